"""Opens the inputs of a command line; what can be read only once is kept on disk first, so that a job can resume."""

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

from jobs.errors import InvalidInput, OutputError

if TYPE_CHECKING:
    from jobs.chaining import Results
    from jobs.corpus import Fields, Line, Source
    from jobs.corpus.source import FileSource
    from jobs.settings import Settings

STDIN = "-"
TEXT_SUFFIX = ".txt"
STALE_S = 86_400.0
"""Kept pipes of this age were left by a process that was killed."""
NOTICE_S = 5.0
"""A reading that takes longer says how far it is, this often."""
LONG_LINES = 5000
"""An input of more lines is long: what comes after the reading may be made ready meanwhile."""
BLOCK_BYTES = 1 << 20

Say = Callable[[str], None]
"""Takes something for people to read."""


@contextmanager
def open_inputs(
    names: Sequence[str],
    settings: "Settings",
    fields: "Fields",
    *,
    form: str | None = None,
    query: str | None = None,
    say: Say,
) -> "Iterator[FingerprintedOnce]":
    """The items of all inputs, readable again and again, with a fingerprint. Raises InvalidInput.

    `form`: the name of their format, for files that do not tell it by their suffix and for pipes. `query`: what is
    read of the one that is a database.
    """
    from jobs import corpus
    from jobs.chaining import lineage
    from jobs.corpus import database

    _check_query(names, query)
    with _spool(settings.home / "spool") as folder, _results(names, settings, fields) as jobs:
        for found in jobs.values():
            if found.left_out is not None:
                say(found.left_out)

        def kept_one(at: int, name: str) -> str:
            if query is not None and database.is_database(name):
                return _keep_rows(name, query, fields, folder / str(at), say)
            return _keep(name, folder / str(at), say) if _once(name) else name

        kept = [kept_one(at, name) for at, name in enumerate(names)]
        pipes = {new: _shown(old) for new, old in zip(kept, names, strict=True) if new != old}
        for path, shown in pipes.items() if form is None else ():
            if doubt := _doubt(Path(path), shown, fields):
                say(doubt)
        source = corpus.open_source(
            kept,
            text_field=fields.text,
            id_field=fields.id,
            main_field=fields.main,
            rows=fields.rows,
            max_line_bytes=settings.max_line_bytes,
            form=form,
            shown=pipes,
            opened={name: found.input for name, found in jobs.items()},
        )
        yield FingerprintedOnce(source, lineage(list(jobs.values())))


def refuse_overwriting(names: Sequence[str], output: str) -> None:
    """Raise OutputError when writing the output would destroy an input."""
    target = _status(output, of_minus=1)
    if target is None:
        return
    for name in names:
        for each in _files(name):
            read = _status(each, of_minus=0)
            if read is not None and os.path.samestat(read, target):
                among = "" if each == name else f", of {name}"
                raise OutputError(f"{output}: is the input {each} itself{among}; give the results another name")


class FingerprintedOnce:
    """A source whose fingerprint is taken once: it reads every byte of the input."""

    def __init__(self, source: "FileSource", labels: Mapping[str, str]) -> None:
        self._source = source
        self.labels = labels
        """What a job of these items is to say of where they come from."""
        self.fingerprint, self.locate = cache(source.fingerprint), source.locate

    @property
    def filtered(self) -> int:
        """Rows that its filter has left out."""
        return self._source.filtered

    def __iter__(self) -> "Iterator[Line]":
        return iter(self._source)


class Noticed:
    """A source that says now and then how much of it was read, and `on_long` once when it turns out to be long."""

    def __init__(self, source: "Source", say: Say, *, on_long: Callable[[], object] = lambda: None) -> None:
        self._source, self._say, self._on_long = source, say, on_long
        self.fingerprint, self.locate = source.fingerprint, source.locate

    def __iter__(self) -> "Iterator[Line]":
        due = time.monotonic() + NOTICE_S
        for number, line in self._source:
            yield number, line
            if number % 1000 == 0:
                if number == LONG_LINES:
                    self._on_long()
                if time.monotonic() > due:
                    due = time.monotonic() + NOTICE_S
                    self._say(f"reading the input: {number:,} lines so far")


def _once(name: str) -> bool:
    """Whether it is a pipe or the like."""
    if name == STDIN:
        return True
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _files(name: str) -> Sequence[str]:
    """The files that a glob or a folder stands for now; of anything else, itself."""
    from jobs.corpus import paths

    if paths.is_glob(name):
        return paths.matched(name)
    if name != STDIN and os.path.isdir(name):
        return [str(path) for path in paths.known_files(Path(name), lambda _: True)[0]]
    return [name]


def _shown(name: str) -> str:
    from jobs.corpus import urls

    return "standard input" if name == STDIN else urls.shown(name)


def _status(name: str, *, of_minus: int) -> os.stat_result | None:
    """Of a regular file, by its name or as one of this process's standard streams; None: it is no such file."""
    try:
        status = os.fstat(of_minus) if name == STDIN else os.stat(name)
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _keep(name: str, folder: Path, say: Say) -> str:
    """A copy of the pipe's bytes, in a file whose name tells its format."""
    folder.mkdir()
    copy = folder / "input"
    with copy.open("wb") as file:
        if name == STDIN:
            if sys.stdin is None:
                raise InvalidInput("standard input is closed, so it cannot be read")
            if sys.stdin.isatty():
                say("reading items from the terminal, one a line; Ctrl-D ends them")
            shutil.copyfileobj(sys.stdin.buffer, file, BLOCK_BYTES)
        else:
            with open(name, "rb") as pipe:
                shutil.copyfileobj(pipe, file, BLOCK_BYTES)
    with copy.open("rb") as file:
        suffix = ".jsonl" if _is_jsonl(file) else TEXT_SUFFIX
    return str(copy.rename(copy.with_suffix(suffix)))


def _check_query(names: Sequence[str], query: str | None) -> None:
    """Raise InvalidInput unless there is a query for the one database, or neither."""
    from jobs.corpus import database, urls

    found = [urls.shown(name) for name in names if database.is_database(name)]
    if query is None and found:
        raise InvalidInput(f"{found[0]}: is a database; say with --query what is to be read of it")
    if query is not None and len(found) != 1:
        known = "sqlite:///path or postgresql://host/name"
        raise InvalidInput(f"--query reads one database ({known}), and {len(found)} are named")


def _keep_rows(url: str, query: str, fields: "Fields", folder: Path, say: Say) -> str:
    """The rows of a query in a file: asked again, the database might give others."""
    from jobs.corpus import database

    folder.mkdir()
    copy = folder / "input.jsonl"
    due = time.monotonic() + NOTICE_S
    with copy.open("wb", buffering=BLOCK_BYTES) as file:
        for number, row in enumerate(database.rows_of(url, query, fields), start=1):
            file.write(database.as_json(row) + b"\n")
            if number % 1000 == 0 and time.monotonic() > due:
                due = time.monotonic() + NOTICE_S
                say(f"reading the database: {number:,} rows so far")
    return str(copy)


def _doubt(path: Path, shown: str, fields: "Fields") -> str | None:
    """What is to be said of a pipe that is read as a text a line and does not look like one; None: nothing."""
    if path.suffix != TEXT_SUFFIX:
        return None
    with path.open("rb") as file:
        start = file.readline(BLOCK_BYTES).decode(errors="replace").removeprefix("\ufeff").strip()
    if start.startswith("["):
        return f"{shown} begins like a JSON array and is read as a text a line; as JSON give it an object a line"
    column = fields.text or fields.main
    if column in [cell.strip(' "') for cell in start.split(",")]:
        return f"{shown} begins like a CSV with a column {column!r} and is read as a text a line; for CSV: --format csv"
    return None


def _is_jsonl(file: BinaryIO) -> bool:
    """As for any pipe: the first byte that is not blank begins an object or a string."""
    while block := file.read(BLOCK_BYTES):
        if start := block.removeprefix(b"\xef\xbb\xbf").lstrip():
            return start[:1] in (b"{", b'"')
    return False


@contextmanager
def _results(names: Sequence[str], settings: "Settings", fields: "Fields") -> "Iterator[dict[str, Results]]":
    """Those inputs that are the results of jobs."""
    from jobs.chaining import is_job, results
    from jobs.cli.session import store

    wanted = [name for name in names if is_job(name)]
    with store(settings) if wanted else nullcontext() as opened:
        yield {name: results(opened, name, fields) for name in wanted} if opened is not None else {}


@contextmanager
def _spool(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in parent.iterdir():
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > STALE_S:
                shutil.rmtree(old)
    with TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)

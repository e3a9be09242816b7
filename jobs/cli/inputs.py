"""Opens the inputs of a command line; what can be read only once is kept on disk first, so that a job can resume."""

import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from jobs.corpus import Fields, Line, Source
    from jobs.intake import Loaded
    from jobs.settings import Settings

STDIN = "-"
STALE_S = 86_400.0
"""Kept pipes of this age were left by a process that was killed."""
NOTICE_S = 5.0
"""A reading that takes longer says how far it is, this often."""
LONG_LINES = 5000
"""An input of more lines is long: what comes after the reading may be made ready meanwhile."""
SHOWN = 10
"""Skipped lines that are shown one by one."""
BLOCK_BYTES = 1 << 20


@contextmanager
def open_inputs(names: Sequence[str], settings: "Settings", fields: "Fields") -> "Iterator[Source]":
    """The items of all inputs, readable again and again, with a fingerprint. Raises InvalidInput."""
    from jobs import corpus

    with _spool(settings.home / "spool") as folder:
        kept = [_keep(name, folder / str(at)) if _once(name) else name for at, name in enumerate(names)]
        source = corpus.open_source(
            kept,
            text_field=fields.text,
            id_field=fields.id,
            main_field=fields.main,
            max_line_bytes=settings.max_line_bytes,
        )
        yield Renamed(source, {new: _shown(old) for new, old in zip(kept, names, strict=True) if new != old})


class Renamed:
    """A source that names kept pipes as the caller named them."""

    def __init__(self, source: "Source", names: dict[str, str]) -> None:
        self._source, self._names = source, names
        self._fingerprint: str | None = None

    def __iter__(self) -> "Iterator[Line]":
        return iter(self._source)

    def fingerprint(self) -> str | None:
        """Taken once: it reads every byte of the input."""
        if self._fingerprint is None:
            self._fingerprint = self._source.fingerprint()
        return self._fingerprint

    def locate(self, line: int) -> tuple[str | None, int]:
        file, number = self._source.locate(line)
        return (self._names.get(file, file) if file else None), number


class Noticed:
    """A source that says now and then how much of it was read, and `on_long` once when it turns out to be long."""

    def __init__(
        self, source: "Source", say: Callable[[str], None], *, on_long: Callable[[], object] = lambda: None
    ) -> None:
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


def skipped(loaded: "Loaded | None") -> str | None:
    """What is to be said of lines that were left out; None: there were none."""
    if loaded is None or not loaded.skipped:
        return None
    lines = [f"{loaded.skipped:,} line(s) cannot be items and were skipped:"]
    lines += [f"  {problem}" for problem in loaded.problems[:SHOWN]]
    if loaded.skipped > SHOWN:
        lines.append(f"  ... all of them: {loaded.report}")
    return "\n".join(lines)


def _once(name: str) -> bool:
    """Whether it is a pipe or the like."""
    if name == STDIN:
        return True
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _shown(name: str) -> str:
    return "standard input" if name == STDIN else name


def _keep(name: str, folder: Path) -> str:
    """A copy of the pipe's bytes, in a file whose name tells its format."""
    folder.mkdir()
    copy = folder / "input"
    with copy.open("wb") as file:
        if name == STDIN:
            if sys.stdin.isatty():
                print("textmill: reading items from the terminal, one a line; Ctrl-D ends them", file=sys.stderr)
            shutil.copyfileobj(sys.stdin.buffer, file, BLOCK_BYTES)
        else:
            with open(name, "rb") as pipe:
                shutil.copyfileobj(pipe, file, BLOCK_BYTES)
    with copy.open("rb") as file:
        suffix = ".jsonl" if _is_jsonl(file) else ".txt"
    return str(copy.rename(copy.with_suffix(suffix)))


def _is_jsonl(file: BinaryIO) -> bool:
    """As for any pipe: the first byte that is not blank begins an object or a string."""
    while block := file.read(BLOCK_BYTES):
        if start := block.removeprefix(b"\xef\xbb\xbf").lstrip():
            return start[:1] in (b"{", b'"')
    return False


@contextmanager
def _spool(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in parent.iterdir():
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > STALE_S:
                shutil.rmtree(old)
    with TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)

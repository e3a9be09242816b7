"""Where items come from and results go: sources and sinks, one file per format.

A format is a file in this folder with a FORMAT, or an entry point `textmill.corpus` of another distribution.
"""

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from jobs.corpus import dataset, document, paths, remote, urls
from jobs.corpus.base import Fields, Format, Line, Named, Place, Source, Writer
from jobs.corpus.compression import decompressed, inner
from jobs.corpus.database import is_database, open_query
from jobs.corpus.memory import ItemSource
from jobs.corpus.rows import EVERY_ROW, Rows
from jobs.corpus.sink import Sink
from jobs.corpus.source import SNIFFED, STDIN, FileSource, file_place, piped, stdin_place
from jobs.corpus.table import TableSink, is_table
from jobs.errors import InvalidInput, OutputError

__all__ = ["Fields", "Format", "ItemSource", "Line", "Named", "Place", "Rows", "Sink", "Source", "Writer"]
__all__ += ["AnySink", "formats", "open_query", "open_sink", "open_source", "stored_source"]

AnySink = Sink | TableSink
STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
"""Other names of standard output; as files they would be replaced, not written to."""
SQLITE = "sqlite:///"
MAX_LINE_BYTES = 16 * 2**20
"""As the setting `max_line_bytes`, for callers without settings."""


@cache
def formats() -> dict[str, Format]:
    """Every known format by its name."""
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    own = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    others = [entry.load() for entry in entry_points(group="textmill.corpus")]
    return {form.name: form for form in [*own, *others]}


def open_source(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    text_field: str | None = None,
    id_field: str | None = None,
    main_field: str = "text",
    rows: Rows = EVERY_ROW,
    max_line_bytes: int = MAX_LINE_BYTES,
    form: str | None = None,
    shown: Mapping[str, str] = MappingProxyType({}),
    opened: Mapping[str, tuple[Format, Place]] = MappingProxyType({}),
) -> FileSource:
    """The items of files, globs, folders, URLs and `-` (standard input), in the order given; nothing is read yet.

    `form`: the name of the format that every file and pipe is in; by default its suffix tells. `rows`: which rows, and
    what of them. `shown`: what messages call a path. `opened`: inputs that are no paths, by the name that stands for
    them. Raises InvalidInput for a path that does not exist or is in no known format.
    """
    given = [inputs] if isinstance(inputs, str | PathLike) else list(inputs)
    if not given:
        raise InvalidInput("no input is named")
    fields = Fields(main=main_field, text=text_field, id=id_field, rows=rows)
    chosen = _named(form) if form is not None else None
    found: list[tuple[Format, Place]] = []
    for path in map(str, given):
        found += [opened[path]] if path in opened else _inputs(path, shown.get(path, path), chosen)
    return FileSource(found, fields, max_line_bytes)


def stored_source(
    opened: Callable[[], BinaryIO],
    *,
    form: str,
    shown: str,
    fields: Fields,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Source:
    """The items of bytes that never change and can be opened as often as one likes, in the format of that name.

    `shown`: what messages call them.
    """
    place = Place(shown, Path(shown), opened)
    return FileSource([(replace(_named(form), version=lambda _: None), place)], fields, max_line_bytes)


def open_sink(
    target: str | PathLike[str], *, columns: Mapping[str, Any] | Sequence[str] = (), kept: Sequence[str] = ()
) -> AnySink:
    """Where results go: a file in the format of its suffix, a URL of such a file, a table of a database
    (`postgresql://host/name#table`), or `-` for standard output as JSON Lines.

    `columns`: the task's output fields, in a mapping with their types; `kept`: the job's kept ones; both for formats
    with columns. Raises InvalidInput for an unknown suffix, OutputError for a folder.
    """
    if is_table(str(target)):
        return TableSink(str(target), columns if isinstance(columns, Mapping) else dict.fromkeys(columns), kept)
    if is_database(str(target)):
        raise InvalidInput(f"{urls.shown(str(target))}: is a database; name the table behind a #, as in ...#results")
    if (path_of_url := urls.local(str(target))) is not None:
        return open_sink(path_of_url, columns=columns, kept=kept)
    if urls.is_url(str(target)):
        remote.check_writable(str(target))
        name = Path(urlsplit(str(target).partition("::")[0]).path)
        return remote.UrlSink(_by_suffix(inner(name), _writable()), str(target), columns, kept)
    if str(target) in (STDIN, *STDOUT):
        return Sink(formats()["jsonl"], None)
    path = Path(target)
    if os.path.isdir(path):
        raise OutputError(f"{path}: is a folder; name a file")
    if os.path.exists(path) and not os.path.isfile(path):
        return Sink(formats()["jsonl"], path)
    return Sink(_by_suffix(inner(path), _writable()), path, columns, kept)


def is_path(target: str) -> bool:
    """Whether a sink is a path of this machine, rather than a URL or a table."""
    return not (urls.is_url(target) or is_table(target))


def absolute(target: str) -> str:
    """A sink with its path in full, if it is one or a SQLite file's: whoever writes may stand in another folder."""
    if is_path(target):
        return str(Path(target).expanduser().absolute())
    file, mark, name = target.removeprefix(SQLITE).partition("#")
    return f"{SQLITE}{Path(file).absolute()}{mark}{name}" if target.startswith(SQLITE) else target


def check_target(target: str) -> None:
    """Raises InvalidInput, OutputError for what can be no sink, whatever there is on this machine."""
    if is_table(target):
        TableSink(target, {})
    elif is_path(target) or urls.local(target) is not None:
        if os.path.isdir(urls.local(target) or target):
            raise OutputError(f"{target}: is a folder; name a file")
        _by_suffix(inner(Path(target)), _writable())
    else:
        remote.check_writable(target)
        _by_suffix(inner(Path(urlsplit(target.partition("::")[0]).path)), _writable())


def _writable() -> list[Format]:
    return [form for form in formats().values() if form.write is not None]


def _named(name: str) -> Format:
    readable = {each.name: each for each in formats().values() if not each.folders}
    if name not in readable:
        raise InvalidInput(f"unknown format {name!r}; known: {', '.join(sorted(readable))}")
    return readable[name]


def _inputs(name: str, shown: str, form: Format | None) -> Iterator[tuple[Format, Place]]:
    """What a path stands for: itself, or the files of a glob or a folder of more than texts."""
    if (path_of_url := urls.local(name)) is not None:
        yield from _inputs(path_of_url, path_of_url, form)
    elif urls.is_url(name):
        yield from urls.inputs(name, lambda path: form or _by_suffix(inner(path), formats().values()), _is_known)
    elif paths.is_glob(name):
        yield from (_input(each, each, form) for each in paths.matched(name))
    elif (saved := dataset.files(name)) is not None:
        yield from (_input(f"{path}", f"{path}", None) for path in saved)
    elif os.path.isdir(name) and (files := _records(Path(name), form)):
        for path in files:
            inside = path.relative_to(name).as_posix()
            text = form is None and path.suffix.lower() == document.SUFFIX
            yield (
                (document.document(inside), file_place(f"{path}", path)) if text else _input(f"{path}", f"{path}", form)
            )
    else:
        yield _input(name, shown, form)


def _records(folder: Path, form: Format | None) -> list[Path]:
    """The files of a folder that has others than texts of a file each, or is read in one format; else none."""
    files, unreadable = paths.known_files(folder, lambda path: form is not None or _is_known(path))
    if form is None and all(path.suffix.lower() == document.SUFFIX for path in files):
        return []
    for error in unreadable:
        raise InvalidInput(f"{error.filename}: cannot be read: {error.strerror}") from error
    return files


def _is_known(path: Path) -> bool:
    return any(inner(path).suffix.lower() in form.suffixes for form in formats().values())


def _input(name: str, shown: str, form: Format | None) -> tuple[Format, Place]:
    if name == STDIN:
        return piped(form) if form else SNIFFED, stdin_place()
    path = Path(name)
    place = file_place(shown, path)
    if os.path.isdir(path):
        return next(form for form in formats().values() if form.folders), place
    if not os.path.exists(path):
        raise InvalidInput(f"{shown}: no such file or folder")
    if not os.path.isfile(path):
        return piped(form) if form else SNIFFED, place
    chosen = form or _by_suffix(inner(path), formats().values())
    return chosen, replace(place, open=decompressed(shown, path, place.open))


def _by_suffix(path: Path, among: Iterable[Format]) -> Format:
    known = {suffix: form for form in among for suffix in form.suffixes}
    if path.suffix.lower() not in known:
        shown = path.suffix or "a name without a suffix"
        raise InvalidInput(f"{path}: unknown format {shown}; known: {', '.join(sorted(known))}")
    return known[path.suffix.lower()]

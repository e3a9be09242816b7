"""Where items come from and results go: sources and sinks, one file per format.

A format is a file in this folder with a FORMAT, or an entry point `textmill.corpus` of another distribution.
"""

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from jobs.corpus.base import Fields, Format, Line, Place, Source, Writer
from jobs.corpus.compression import decompressed, inner
from jobs.corpus.memory import ItemSource
from jobs.corpus.rows import EVERY_ROW, Rows
from jobs.corpus.sink import Sink
from jobs.corpus.source import SNIFFED, STDIN, FileSource, file_place, piped, stdin_place
from jobs.errors import InvalidInput, OutputError

__all__ = ["Fields", "Format", "ItemSource", "Line", "Place", "Rows", "Sink", "Source", "Writer"]
__all__ += ["formats", "open_sink", "open_source", "stored_source"]

STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
"""Other names of standard output; as files they would be replaced, not written to."""
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
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    text_field: str | None = None,
    id_field: str | None = None,
    main_field: str = "text",
    rows: Rows = EVERY_ROW,
    max_line_bytes: int = MAX_LINE_BYTES,
    form: str | None = None,
    shown: Mapping[str, str] = MappingProxyType({}),
) -> FileSource:
    """The items of files, folders and `-` (standard input), in the order given; nothing is read yet.

    `form`: the name of the format that every file and pipe is in; by default its suffix tells. `rows`: which rows, and
    what of them. `shown`: what messages call a path. Raises InvalidInput for a path that does not exist or is in no
    known format.
    """
    given = [paths] if isinstance(paths, str | PathLike) else list(paths)
    if not given:
        raise InvalidInput("no input is named")
    fields = Fields(main=main_field, text=text_field, id=id_field, rows=rows)
    chosen = _named(form) if form is not None else None
    inputs = [_input(str(path), shown.get(str(path), str(path)), chosen) for path in given]
    return FileSource(inputs, fields, max_line_bytes)


def stored_source(
    opened: Callable[[], BinaryIO],
    *,
    form: str,
    shown: str,
    text_field: str | None = None,
    id_field: str | None = None,
    main_field: str = "text",
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Source:
    """The items of bytes that never change and can be opened as often as one likes, in the format of that name.

    `shown`: what messages call them.
    """
    fields = Fields(main=main_field, text=text_field, id=id_field)
    place = Place(shown, Path(shown), opened)
    return FileSource([(replace(_named(form), version=lambda _: None), place)], fields, max_line_bytes)


def open_sink(target: str | PathLike[str], *, columns: Sequence[str] = (), kept: Sequence[str] = ()) -> Sink:
    """Where results go: a file in the format of its suffix, or `-` for standard output as JSON Lines.

    `columns`, `kept`: the task's output fields and the job's kept ones, for formats with columns. Raises InvalidInput
    for an unknown suffix, OutputError for a folder.
    """
    if str(target) in (STDIN, *STDOUT):
        return Sink(formats()["jsonl"], None)
    path = Path(target)
    if os.path.isdir(path):
        raise OutputError(f"{path}: is a folder; name a file")
    if os.path.exists(path) and not os.path.isfile(path):
        return Sink(formats()["jsonl"], path)
    writable = [form for form in formats().values() if form.write is not None]
    return Sink(_by_suffix(inner(path), writable), path, columns, kept)


def _named(name: str) -> Format:
    readable = {each.name: each for each in formats().values() if not each.folders}
    if name not in readable:
        raise InvalidInput(f"unknown format {name!r}; known: {', '.join(sorted(readable))}")
    return readable[name]


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

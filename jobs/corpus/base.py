"""What a corpus format is: how inputs are named and opened, what readers yield, what writers take."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from jobs.errors import InvalidInput, Problem

Line = tuple[int, bytes | Problem]
"""A 1-based line number, with the item as one line of JSON or with what is wrong with the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Which fields of an input become the item's main field and its `custom_id`."""

    main: str = "text"
    """The task's main field: what a bare text stands for."""
    text: str | None = None
    """The input's field for it, where it has another name."""
    id: str | None = None
    """The input's field for `custom_id`, where it has another name."""

    @property
    def mapped(self) -> bool:
        return self.text is not None or self.id is not None


@dataclass(frozen=True, slots=True)
class Place:
    """One input as a reader sees it: a file, a folder, or standard input."""

    name: str
    """As the caller gave it; errors begin with it."""
    path: Path
    open: Callable[[], BinaryIO]
    """A fresh stream of its bytes; the reader closes it. Raises InvalidInput."""


class Writer(Protocol):
    """Writes results to an open stream, one at a time."""

    def write(self, line: bytes) -> None:
        """Append one result, given as the JSON text of a `jobs.schemas.Result`."""
        ...

    def finish(self) -> None:
        """Write what is still held back; the stream stays open."""
        ...


Reader = Callable[[Place, Fields, int], Iterator[Line]]
"""Given a place, the field names and the longest line allowed: the items, in order, in bounded memory."""


@dataclass(frozen=True, slots=True)
class Format:
    """A corpus format: the value that a file in this folder calls FORMAT."""

    name: str
    suffixes: tuple[str, ...]
    """Lower case, with the dot. Empty for a format that is not told by a file's name."""
    read: Reader
    write: Callable[[BinaryIO, Sequence[str], Sequence[str]], Writer] | None = None
    """Given a stream and the names of the task's output fields (empty: not known). None: not a format for results."""
    folders: bool = False
    """It reads folders; its `fingerprint` is then its own."""
    fingerprint: Callable[[Place], bytes] | None = None
    """None: the SHA-256 of the place's bytes."""
    version: Callable[[Place], Hashable] | None = None
    """What differs once the place was changed, at little cost. None: its size and time."""


@runtime_checkable
class Source(Protocol):
    """Where items are read from. Each iteration starts again, unless the input can be read only once."""

    def __iter__(self) -> Iterator[Line]: ...

    def fingerprint(self) -> str | None:
        """A digest of the items it will give; None when only reading them would tell."""
        ...

    def locate(self, line: int) -> tuple[str | None, int]:
        """The file, and the line in it, of a line number of this source. File None: items from a program."""
        ...


def check_columns(name: str, columns: Sequence[str], fields: Fields) -> None:
    """Raise InvalidInput unless an input's columns have every field that is asked for."""
    for wanted in (fields.text or fields.main, fields.id):
        if wanted is not None and wanted not in columns:
            raise InvalidInput(f"{name}: no column {wanted!r}; its columns are: {', '.join(columns)}")


def refuse_fields(place: Place, fields: Fields, what: str) -> None:
    """Raise InvalidInput when the caller names fields of an input that has none."""
    if fields.mapped:
        raise InvalidInput(f"{place.name}: {what} has no fields, so neither a text field nor an id field can be named")

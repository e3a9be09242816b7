"""What a corpus format is: how inputs are named and opened, what readers yield, what writers take."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from jobs.corpus.filter import Filter
from jobs.corpus.rows import EVERY_ROW, Rows
from jobs.corpus.template import Template
from jobs.errors import InvalidInput, Problem
from jobs.schemas import Selection

ID = "custom_id"
"""The field that names an item."""

Line = tuple[int, bytes | Problem]
"""A 1-based line number, with the item as one line of JSON or with what is wrong with the line."""
Read = tuple[int, bytes | Problem | None]
"""A line as a reader gives it. None: the filter leaves the row out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Which fields of an input become the item's main field and its `custom_id`."""

    main: str = "text"
    """The task's main field: what a bare text stands for."""
    text: str | None = None
    """The input's field for it, where it has another name."""
    id: str | None = None
    """The input's field for `custom_id`, where it has another name."""

    rows: Rows = field(default=EVERY_ROW, repr=False)
    """Which rows become items, and further columns of theirs. Not in the repr, which is in every source's digest."""

    def __post_init__(self) -> None:
        named = [field for field, _ in self.moves] + [self.main] * (self.rows.template is not None)
        for name in named:
            if named.count(name) > 1:
                ways = "a text field, an id field, a mapping or a template"
                raise InvalidInput(f"field {name!r} is made twice: it is given by one of {ways}")

    @classmethod
    def of(cls, asked: Selection, main_field: str) -> "Fields":
        """What a caller asked for, of a task with that main field. Raises InvalidInput."""
        rows = {name: getattr(asked, name) for name in ("map", "template", "where", "limit", "sample", "seed")}
        return cls(main=main_field, text=asked.text_field, id=asked.id_field, rows=Rows(**rows))

    @property
    def moves(self) -> tuple[tuple[str, str], ...]:
        """Fields, and the columns that they are."""
        named = ((self.main, self.text), (ID, self.id), *self.rows.map.items())
        return tuple((name, column) for name, column in named if column is not None)

    @property
    def mapped(self) -> bool:
        """Whether an item is more than its line as it stands."""
        return bool(self.moves) or self.rows.template is not None or self.rows.where is not None

    @property
    def columns(self) -> list[str]:
        """All that a row must have."""
        made = [self.main] * (self.rows.template is not None) + [name for name, _ in self.moves]
        asked = [column for _, column in self.moves] + [self.main] * (self.main not in made)
        asked += Template(self.rows.template).columns if self.rows.template is not None else ()
        asked += Filter(self.rows.where).columns if self.rows.where is not None else ()
        return asked


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


Columns = Mapping[str, Any] | Sequence[str]
"""The names of the task's output fields, in a mapping with their types where these are known."""

Reader = Callable[[Place, Fields, int], Iterator[Read]]
"""Given a place, the fields and the longest line allowed: the items, in order, in bounded memory. What the fields
ask for is done (`jobs.corpus.mapping.Mapper`) or refused."""


@dataclass(frozen=True, slots=True)
class Format:
    """A corpus format: the value that a file in this folder calls FORMAT."""

    name: str
    suffixes: tuple[str, ...]
    """Lower case, with the dot. Empty for a format that is not told by a file's name."""
    read: Reader
    write: Callable[[BinaryIO, Columns, Sequence[str]], Writer] | None = None
    """Given a stream, the task's output fields (empty: not known) and the kept ones. None: not a format for results."""
    folders: bool = False
    """It reads folders; its `fingerprint` is then its own."""
    fingerprint: Callable[[Place], bytes] | None = None
    """None: the SHA-256 of the place's bytes."""
    version: Callable[[Place], Hashable] | None = None
    """What differs once the place was changed, at little cost. None: its size and time."""


@dataclass(frozen=True, slots=True)
class Named:
    """A source that the operator of a deployment has named (`jobs.connections`), and what of it becomes items."""

    name: str
    text_field: str | None = None
    id_field: str | None = None
    rows: Rows = EVERY_ROW


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


def check_columns(
    name: str, columns: Sequence[str], fields: Fields, *, has: Callable[[str], bool] | None = None
) -> None:
    """Raise InvalidInput unless an input's columns have every one that is asked for.

    `has`: whether it has the column of that path, where its columns have others inside.
    """
    for wanted in fields.columns:
        if not (wanted in columns or (has is not None and has(wanted))):
            raise InvalidInput(f"{name}: no column {wanted!r}; its columns are: {', '.join(columns)}")


def check_text(place: Place, fields: Fields, what: str, columns: Sequence[str]) -> None:
    """The same of an input without named fields, whose texts have these columns."""
    if fields.moves:
        raise InvalidInput(f"{place.name}: {what} has no fields, so neither a text field nor an id field can be named")
    check_columns(place.name, columns, fields)

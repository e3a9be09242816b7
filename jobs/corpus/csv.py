"""CSV with a header row: a column is a field; results flattened to columns."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, BinaryIO

import orjson

from jobs.corpus.base import ID, Columns, Fields, Format, Place, Read, check_columns
from jobs.corpus.columns import told_texts
from jobs.corpus.lines import not_utf8, read_runs
from jobs.corpus.mapping import Mapper
from jobs.errors import InvalidInput, Problem
from jobs.schemas import Result

OWN = (ID, "params")
"""What every item may carry beside its task's fields; an empty cell of these stands for none."""
LEADING = ("custom_id", "status")
TRAILING = ("error_code", "error")


def read(place: Place, fields: Fields, max_bytes: int, *, delimiter: str = ",") -> Iterator[Read]:
    """An item a record. A cell is text; blank records are left out."""
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    with place.open() as stream:
        records = _Feed(stream, place.name, max_bytes, delimiter).records()
        columns = _header(records, place.name, fields)
        mapper = Mapper(fields)
        quick, own = _shape(columns, mapper), [name for name in OWN if name in columns or name in fields.rows.map]
        for number, cells in records:
            if isinstance(cells, Problem):
                yield number, cells
            elif cells:
                line = quick(cells) if quick is not None else None
                yield number, _item(number, columns, cells, mapper, own) if line is None else line


class CsvWriter:
    """Columns custom_id, status, the output's fields, error_code, error, the kept fields. What is not plain is JSON in
    its cell. A kept field whose name is taken is called `kept_` and its name.

    When the fields are not known, the first ok result names them; until then at most `HELD` results are held back,
    after which the whole output goes into one column as JSON.
    """

    HELD = 10_000
    WHOLE = ("output",)

    def __init__(
        self, stream: BinaryIO, columns: Columns = (), kept: Sequence[str] = (), *, delimiter: str = ","
    ) -> None:
        self._lines = csv.writer(_Encoder(stream), lineterminator="\n", delimiter=delimiter)
        self._columns: Columns = ()
        self._kept = kept
        self._held: list[Result] = []
        if columns:
            self._begin(tuple(columns))

    def write(self, line: bytes) -> None:
        result = Result.model_validate_json(line)
        if not self._columns and result.output is None and len(self._held) < self.HELD:
            self._held.append(result)
            return
        if not self._columns:
            self._begin(tuple(result.output or self.WHOLE))
        self._row(result)

    def finish(self) -> None:
        """Write the header and what was held back, when no result was ok."""
        if not self._columns:
            self._begin(self.WHOLE)

    def _begin(self, columns: Sequence[str]) -> None:
        self._columns = columns
        taken = [*LEADING, *columns, *TRAILING]
        self._lines.writerow([*taken, *(f"kept_{name}" if name in taken else name for name in self._kept)])
        for result in self._held:
            self._row(result)
        self._held.clear()

    def _row(self, result: Result) -> None:
        output = result.output or {}
        cells = [output or None] if self._columns == self.WHOLE else [output.get(column) for column in self._columns]
        error = (result.error.code.value, result.error.message) if result.error else ("", "")
        kept = [result.kept.get(name) for name in self._kept]
        self._lines.writerow([result.custom_id, result.status, *map(_cell, cells), *error, *map(_cell, kept)])


FORMAT = Format("csv", (".csv",), read, CsvWriter)

Record = tuple[int, list[str] | Problem]
"""The first line of a record, with its cells; or the line of what is wrong with it."""


class _Feed:
    """Gives records, and knows on which line one began and what was wrong in it. What has quotes is read by the csv
    module; a line without is split, which takes two thirds of the time and gives the same."""

    def __init__(self, stream: BinaryIO, name: str, max_bytes: int, delimiter: str) -> None:
        self._name, self._max_bytes, self._delimiter = name, max_bytes, delimiter
        self._begun = 0
        """The line on which the record began that the csv module is reading; 0: none."""
        self._before = 0
        """Bytes of that record in earlier runs than the present one."""
        self._first, self._run = 1, list[bytes]()
        """The present run of lines, and the number of its first."""
        self._not_utf8: dict[int, Problem] = {}
        """Of lines of the record that is being read, and of later ones, by their numbers."""
        self._ended = False
        self._lines = chain.from_iterable(self._texts(stream))
        self._next: list[str] = []
        """A line that goes to the csv module before all others."""
        self._rows = csv.reader(self._fed(), strict=True, delimiter=delimiter)

    def records(self) -> Iterator[Record]:
        """Each record once. Raises InvalidInput."""
        number = 0
        for line in self._lines:
            number += 1
            if '"' in line or "\r" in line or self._not_utf8:
                begun, (number, found) = number, self._quoted(number, line)
                yield (found.line if isinstance(found, Problem) else begun), found
            elif line:
                yield number, line.split(self._delimiter)

    def _quoted(self, number: int, line: str) -> tuple[int, list[str] | Problem]:
        """The last line of the record that begins with this line, and its cells or what is wrong with it."""
        rows, self._begun, self._before = self._rows, number, 0
        ahead = number - 1 - rows.line_num
        self._next.append(line)
        found: list[str] | Problem
        try:
            found = next(rows)
        except csv.Error as error:
            self._check_size(ahead + rows.line_num)
            if self._ended:
                raise InvalidInput(f"{self._name}:{number}: a quote opened here is never closed") from error
            found = Problem(number, "malformed_csv", str(error))
        last = ahead + rows.line_num
        if last > number:
            self._check_size(last)
        self._begun = 0
        return last, self._sound(found, last) if self._not_utf8 else found

    def _sound(self, found: list[str] | Problem, last: int) -> list[str] | Problem:
        """What was found up to this line, or the problem of its first line that is not UTF-8."""
        problems = [self._not_utf8.pop(at) for at in sorted(self._not_utf8) if at <= last]
        return problems[0] if problems and not isinstance(found, Problem) else found

    def _fed(self) -> Iterator[str]:
        """The lines that the csv module asks for."""
        while self._next:
            yield self._next.pop() + "\n"
            while not self._next and (line := next(self._lines, None)) is not None:
                yield line + "\n"

    def _texts(self, stream: BinaryIO) -> Iterator[Iterable[str]]:
        """The lines, as many as are read at a time."""
        for number, run in read_runs(stream, self._name, self._max_bytes):
            if isinstance(run, Problem):
                raise InvalidInput(f"{self._name}:{number}: {run.message}")
            if self._begun:
                self._before = self._check_size(number - 1)
            self._first, self._run = number, run
            try:
                yield b"\n".join(run).decode().split("\n")
            except UnicodeDecodeError:
                yield [self._decoded(at, line) for at, line in enumerate(run, number)]
        self._ended = True

    def _decoded(self, number: int, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self._not_utf8[number] = not_utf8(number, error)
            return line.decode(errors="replace")

    def _check_size(self, last: int) -> int:
        """The bytes of the record that is being read, up to this line. Raises InvalidInput when they are too many."""
        size = self._before + sum(map(len, self._run[max(0, self._begun - self._first) : last + 1 - self._first]))
        if size > self._max_bytes:
            raise InvalidInput(
                f"{self._name}:{self._begun}: the record that begins here is longer than {self._max_bytes:,} bytes; "
                "is a quote not closed?"
            )
        return size


def _header(records: Iterator[Record], name: str, fields: Fields) -> list[str]:
    """The column names. Raises InvalidInput when they do not name every field that is asked for."""
    columns = next((cells for _, cells in records if cells), None)
    if columns is None:
        raise InvalidInput(f"{name}: the file is empty; a CSV begins with a row of column names")
    if isinstance(columns, Problem):
        raise InvalidInput(f"{name}:{columns.line}: {columns.message}")
    doubled = sorted({column for column in columns if columns.count(column) > 1})
    if doubled:
        raise InvalidInput(f"{name}: column {doubled[0]!r} is there twice")
    check_columns(name, columns, fields)
    return columns


def _shape(columns: list[str], mapper: Mapper) -> Callable[[list[str]], bytes | None] | None:
    """Makes an item of a record's cells without a look at any of them; None for a record that takes one, or for all."""
    pairs = mapper.plainly(columns)
    if pairs is None or (ID, ID) in pairs or any(field == "params" for field, _ in pairs):
        return None
    line = b"{" + b",".join(orjson.dumps(field).replace(b"%", b"%%") + b':"%b"' for field, _ in pairs) + b"}"
    places = [columns.index(name) for _, name in pairs]
    named = next((columns.index(name) for field, name in pairs if field == ID), None)
    width = len(columns)
    placed: Callable[[list[bytes]], Any] = tuple if places == list(range(width)) else itemgetter(*places)

    def quick(cells: list[str]) -> bytes | None:
        if len(cells) != width or (named is not None and not cells[named]):
            return None
        item: bytes = line % placed(told_texts(cells))
        return item

    return quick


def _item(
    number: int, columns: list[str], cells: list[str], mapper: Mapper, own: Sequence[str]
) -> bytes | Problem | None:
    if len(cells) != len(columns):
        found, named = _counted(len(cells), "cell"), _counted(len(columns), "column")
        return Problem(number, "malformed_csv", f"{found} where the header names {named}")
    item = mapper.item(number, dict(zip(columns, cells, strict=True)))
    if not isinstance(item, dict):
        return item
    for name in own:
        if item.get(name) == "":
            del item[name]
    if (cell := item.get("params")) is not None:
        item["params"] = _parsed(cell)
        if not isinstance(item["params"], dict):
            message = f"column 'params' holds {cell[:100]!r}; the item's own parameters are a JSON object or nothing"
            return Problem(number, "invalid_params", message)
    return orjson.dumps(item)


def _parsed(cell: str) -> Any:
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError:
        return None


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _cell(value: Any) -> Any:
    """Text and numbers as they are, the rest as JSON."""
    if value is None or isinstance(value, str | int | float):
        return value
    return orjson.dumps(value).decode()


class _Encoder:
    """The text side of a binary stream, for csv.writer."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text.encode())

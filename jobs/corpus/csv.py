"""CSV with a header row: a column is a field; results flattened to columns."""

import csv
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import orjson

from jobs.corpus.base import Fields, Format, Line, Place, check_columns
from jobs.corpus.jsonl import rename
from jobs.corpus.lines import not_utf8, read_lines
from jobs.errors import InvalidInput, Problem
from jobs.schemas import Result

OWN = ("custom_id", "params")
"""What every item may carry beside its task's fields; an empty cell of these stands for none."""
LEADING = ("custom_id", "status")
TRAILING = ("error_code", "error")


def read(place: Place, fields: Fields, max_bytes: int, *, delimiter: str = ",") -> Iterator[Line]:
    """An item a record. A cell is text; blank records are left out."""
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    with place.open() as stream:
        feed = _Feed(stream, place.name, max_bytes, delimiter)
        columns = _header(feed, place.name, fields)
        for cells in feed.records():
            problem = feed.problem
            if problem is not None:
                yield problem.line, problem
            elif cells:
                yield feed.start, _item(feed.start, columns, cells, fields)


class CsvWriter:
    """Columns custom_id, status, the output's fields, error_code, error, the kept fields. What is not plain is JSON in
    its cell. A kept field whose name is taken is called `kept_` and its name.

    When the fields are not known, the first ok result names them; until then at most `HELD` results are held back,
    after which the whole output goes into one column as JSON.
    """

    HELD = 10_000
    WHOLE = ("output",)

    def __init__(
        self, stream: BinaryIO, columns: Sequence[str] = (), kept: Sequence[str] = (), *, delimiter: str = ","
    ) -> None:
        self._lines = csv.writer(_Encoder(stream), lineterminator="\n", delimiter=delimiter)
        self._columns: Sequence[str] = ()
        self._kept = kept
        self._held: list[Result] = []
        if columns:
            self._begin(columns)

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


class _Feed:
    """Feeds the csv module line by line and remembers where a record began and what was wrong in it."""

    def __init__(self, stream: BinaryIO, name: str, max_bytes: int, delimiter: str) -> None:
        self.start = 0
        """The line on which the present record began."""
        self.problem: Problem | None = None
        self._name, self._max_bytes = name, max_bytes
        self._size = 0
        self._ended = False
        self._rows = csv.reader(self._texts(stream), strict=True, delimiter=delimiter)

    def records(self) -> Iterator[list[str]]:
        """The cells of each record; look at `problem` before using them. Raises InvalidInput."""
        while True:
            self.start, self.problem, self._size = 0, None, 0
            try:
                yield next(self._rows)
            except StopIteration:
                return
            except csv.Error as error:
                if self._ended:
                    raise InvalidInput(f"{self._name}:{self.start}: a quote opened here is never closed") from error
                self.problem = Problem(self.start, "malformed_csv", str(error))
                yield []

    def _texts(self, stream: BinaryIO) -> Iterator[str]:
        for number, line in read_lines(stream, self._name, self._max_bytes):
            self.start = self.start or number
            if isinstance(line, Problem):
                raise InvalidInput(f"{self._name}:{number}: {line.message}")
            self._size += len(line)
            if self._size > self._max_bytes:
                raise InvalidInput(
                    f"{self._name}:{self.start}: the record that begins here is longer than {self._max_bytes:,} bytes; "
                    "is a quote not closed?"
                )
            yield self._decoded(number, line) + "\n"
        self._ended = True

    def _decoded(self, number: int, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self.problem = self.problem or not_utf8(number, error)
            return line.decode(errors="replace")


def _header(feed: _Feed, name: str, fields: Fields) -> list[str]:
    """The column names. Raises InvalidInput when they do not name every field that is asked for."""
    columns = next((cells for cells in feed.records() if cells or feed.problem), None)
    if columns is None:
        raise InvalidInput(f"{name}: the file is empty; a CSV begins with a row of column names")
    if feed.problem is not None:
        raise InvalidInput(f"{name}:{feed.problem.line}: {feed.problem.message}")
    doubled = sorted({column for column in columns if columns.count(column) > 1})
    if doubled:
        raise InvalidInput(f"{name}: column {doubled[0]!r} is there twice")
    check_columns(name, columns, fields)
    return columns


def _item(number: int, columns: list[str], cells: list[str], fields: Fields) -> bytes | Problem:
    if len(cells) != len(columns):
        found, named = _counted(len(cells), "cell"), _counted(len(columns), "column")
        return Problem(number, "malformed_csv", f"{found} where the header names {named}")
    item: dict[str, Any] = dict(zip(columns, cells, strict=True))
    try:
        rename(item, fields)
    except ValueError as error:
        return Problem(number, "invalid_id", str(error))
    for name in OWN:
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

"""Parquet: a column is a field; read a batch of rows at a time, results written with types of their own."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import orjson

from jobs.corpus.base import ID, Fields, Format, Place, Read, check_columns
from jobs.corpus.columns import plain, told_texts
from jobs.corpus.csv import LEADING, TRAILING
from jobs.corpus.mapping import Mapper
from jobs.errors import InvalidInput, NotInstalled, OutputError, Problem

ROWS_AT_ONCE = 1024
"""Rows that are in memory while reading; of a row group at least a page of each column is, too."""
BUFFER_BYTES = 1 << 20
"""Of each column; without it, a row group's columns would be read whole."""
GROUP_ROWS = 10_000
"""Rows of one row group that is written; the first group decides the columns' types."""


def read(place: Place, fields: Fields, max_bytes: int) -> Iterator[Read]:
    """An item a row, numbered from 1. Empty cells are left out."""
    pyarrow, parquet = _pyarrow()
    with place.open() as stream:
        try:
            file = parquet.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False)
            schema = file.schema_arrow
            check_columns(place.name, schema.names, fields, has=lambda path: _has(pyarrow, schema, path.split(".")))
            mapper = Mapper(fields)
            number = 1
            for batch in file.iter_batches(ROWS_AT_ONCE):
                lines = _lines(batch, mapper)
                if lines is not None and max(map(len, lines), default=0) <= max_bytes:
                    yield from enumerate(lines, number)
                else:
                    for at, row in enumerate(_rows(batch), number):
                        yield at, _item(at, row, mapper, max_bytes)
                number += len(batch)
        except pyarrow.ArrowException as error:
            raise InvalidInput(f"{place.name}: cannot be read as Parquet: {_first_line(error)}") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise InvalidInput(f"{place.name}: cannot be read as Parquet: {_first_line(error)}") from error


class ParquetWriter:
    """Columns custom_id, status, the output's fields, error_code, error, the kept fields, each with a type: numbers are
    numbers, vectors lists of floats, labels lists of structs. One that is empty in the first 10,000 rows is text."""

    def __init__(self, stream: BinaryIO, columns: Sequence[str] = (), kept: Sequence[str] = ()) -> None:
        self._stream, self._columns, self._kept = stream, list(columns), list(kept)
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None

    def write(self, line: bytes) -> None:
        result = orjson.loads(line)
        output, error = result.get("output") or {}, result.get("error") or {}
        self._columns += [name for name in output if name not in self._columns] if self._writer is None else []
        row = {"custom_id": result["custom_id"], "status": result["status"]}
        row |= {name: output.get(name) for name in self._columns}
        row |= {"error_code": error.get("code"), "error": error.get("message")}
        kept = result.get("kept") or {}
        row |= {self._kept_name(name): kept.get(name) for name in self._kept}
        self._rows.append(row)
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write what is left, and the file's end."""
        self._flush()
        self._writer.close()

    def _kept_name(self, name: str) -> str:
        return f"kept_{name}" if name in {*LEADING, *self._columns, *TRAILING} else name

    def _flush(self) -> None:
        pyarrow, parquet = _pyarrow()
        names = [*LEADING, *self._columns, *TRAILING, *map(self._kept_name, self._kept)]
        columns = {name: [row.get(name) for row in self._rows] for name in names}
        self._rows.clear()
        try:
            if self._writer is None:
                table = pyarrow.table({name: _column(pyarrow, values) for name, values in columns.items()})
                self._writer = parquet.ParquetWriter(self._stream, table.schema, compression="zstd")
            else:
                table = pyarrow.Table.from_pydict(columns, schema=self._writer.schema)
            self._writer.write_table(table)
        except pyarrow.ArrowException as error:
            raise OutputError(f"the results do not fit the types of the first {GROUP_ROWS:,}: {error}") from error


def _column(pyarrow: Any, values: list[Any]) -> Any:
    """The values with a type: floats are 64 bits wide but for lists of them, which are vectors; no value at all: text.
    What Arrow has no common type for is JSON text."""
    if all(value is None for value in values):
        return pyarrow.array(values, pyarrow.string())
    first = next(value for value in values if value is not None)
    try:
        if isinstance(first, list) and first and isinstance(first[0], float):
            return pyarrow.array(values, pyarrow.list_(pyarrow.float32()))
        return pyarrow.array(values)
    except (pyarrow.ArrowException, TypeError):
        texts = [None if value is None else orjson.dumps(value).decode() for value in values]
        return pyarrow.array(texts, pyarrow.string())


FORMAT = Format("parquet", (".parquet",), read, ParquetWriter)


def _has(pyarrow: Any, schema: Any, path: list[str]) -> bool:
    """Whether a column has these structures inside each other."""
    if path[0] not in schema.names:
        return False
    kind = schema.field(path[0]).type
    for name in path[1:]:
        if not pyarrow.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return False
        kind = kind.field(name).type
    return True


def _lines(batch: Any, mapper: Mapper) -> list[bytes] | None:
    """The items of all rows, made column by column, which is faster; None where a row needs a look of its own."""
    pairs = mapper.plainly(batch.schema.names)
    if pairs is None:
        return None
    shape, columns, loose = list[bytes](), list[list[bytes]](), list[list[bytes]]()
    try:
        for field, name in pairs:
            key, values, named = orjson.dumps(field) + b":", batch.column(name).to_pylist(), field == ID != name
            if None in values and not named:
                told = (b"" if each is None else b"," + key + orjson.dumps(each, default=plain) for each in values)
                loose.append(list(told))
            else:
                mark, told_alike = _json(_ids(values) if named else values)
                shape.append(key.replace(b"%", b"%%") + mark)
                columns.append(told_alike)
    except (TypeError, ValueError):  # no text, no JSON, or no id
        return None
    if not shape:
        return None
    line = b"{" + b",".join(shape) + b"%b" * len(loose) + b"}"
    return [line % row for row in zip(*columns, *loose, strict=True)]


def _ids(values: list[Any]) -> list[Any]:
    """Numbers as text. Raises ValueError where there is none."""
    if None in values or "" in values:
        raise ValueError
    return [str(each) if type(each) is int else each for each in values]


def _json(values: list[Any]) -> tuple[bytes, list[bytes]]:
    """Each value as JSON, and the mark that it is to stand in place of. Raises TypeError for what is no JSON."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return b'"%b"', told_texts(values)
    if kinds <= {int, float, bool}:
        return b"%b", orjson.dumps(values)[1:-1].split(b",")
    return b"%b", [orjson.dumps(each, default=plain) for each in values]


def _rows(batch: Any) -> Iterator[dict[str, Any] | None]:
    """None: a text in it is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for at in range(len(batch)):
            try:
                yield batch.slice(at, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _item(number: int, row: dict[str, Any] | None, mapper: Mapper, max_bytes: int) -> bytes | Problem | None:
    if row is None:
        return Problem(number, "not_utf8", "a text of the row is not UTF-8")
    try:
        item = mapper.item(number, row)
        if not isinstance(item, dict):
            return item
        line = orjson.dumps({name: value for name, value in item.items() if value is not None}, default=plain)
    except TypeError as error:
        return Problem(number, "malformed_row", f"a value cannot be told as JSON: {error}")
    if len(line) > max_bytes:
        message = f"the row is longer than {max_bytes:,} bytes as JSON (setting max_line_bytes)"
        return Problem(number, "line_too_long", message)
    return line


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise NotInstalled(f"Parquet files need: pip install 'textmill[corpora]' ({error})") from error
    return pyarrow, parquet

"""Parquet: a column is a field; read a batch of rows at a time, results written with types of their own."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import orjson

from jobs.corpus.base import Fields, Format, Place, Read
from jobs.corpus.batches import ROWS_AT_ONCE, check_schema, items
from jobs.corpus.csv import LEADING, TRAILING
from jobs.errors import InvalidInput, NotInstalled, OutputError

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
            check_schema(place.name, file.schema_arrow, fields)
            yield from items(file.iter_batches(ROWS_AT_ONCE), fields, max_bytes)
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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise NotInstalled(f"Parquet files need: pip install 'textmill[corpora]' ({error})") from error
    return pyarrow, parquet

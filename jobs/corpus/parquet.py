"""Parquet: a column is a field; read a batch of rows at a time, results written with types of their own."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any, BinaryIO, Literal, Union, get_args, get_origin

import orjson
from pydantic import BaseModel

from jobs.corpus.base import Columns, Fields, Format, Place, Read
from jobs.corpus.batches import ROWS_AT_ONCE, check_schema, items
from jobs.corpus.columns import as_text_or_null
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
    numbers, vectors lists of floats, labels lists of structs. Of a field whose type is not known (a kept one) the first
    10,000 rows decide; where they have none, it is text."""

    def __init__(self, stream: BinaryIO, columns: Columns = (), kept: Sequence[str] = ()) -> None:
        self._stream, self._columns, self._kept = stream, list(columns), list(kept)
        self._kinds: Mapping[str, Any] = columns if isinstance(columns, Mapping) else {}
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
                table = pyarrow.table(
                    {name: _column(pyarrow, values, self._kinds.get(name)) for name, values in columns.items()}
                )
                self._writer = parquet.ParquetWriter(self._stream, table.schema, compression="zstd")
            else:
                schema = self._writer.schema
                fitting = {
                    name: list(map(as_text_or_null, values)) if schema.field(name).type == pyarrow.string() else values
                    for name, values in columns.items()
                }
                table = pyarrow.Table.from_pydict(fitting, schema=schema)
            self._writer.write_table(table)
        except (pyarrow.ArrowException, TypeError) as error:
            raise OutputError(f"the results do not fit the types of the first {GROUP_ROWS:,}: {error}") from error


def _column(pyarrow: Any, values: list[Any], kind: Any) -> Any:
    """The values with a type, that of their field where it is known, as the first rows may have none of its values;
    else floats are 64 bits wide but for lists of them, which are vectors; no value at all: text.
    What Arrow has no common type for is JSON text."""
    if (known := _arrow_type(pyarrow, kind)) is not None:
        try:
            return pyarrow.array(values, known)
        except (pyarrow.ArrowException, TypeError):
            pass
    if all(value is None for value in values):
        return pyarrow.array(values, pyarrow.string())
    first = next(value for value in values if value is not None)
    try:
        if isinstance(first, list) and first and isinstance(first[0], float):
            return pyarrow.array(values, pyarrow.list_(pyarrow.float32()))
        return pyarrow.array(values)
    except (pyarrow.ArrowException, TypeError):
        return pyarrow.array(list(map(as_text_or_null, values)), pyarrow.string())


def _arrow_type(pyarrow: Any, kind: Any) -> Any:
    """Arrow's type for a field's; None: it has none."""
    kinds = [
        each for each in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)) if each is not NoneType
    ]
    only = kinds[0] if len(kinds) == 1 else None
    if get_origin(only) is Literal or (isinstance(only, type) and issubclass(only, str | Enum)):
        return pyarrow.string()
    if only is bytes:  # a vector, given as numbers
        return pyarrow.list_(pyarrow.float32())
    if get_origin(only) in (list, tuple) and get_args(only):
        inner = _arrow_type(pyarrow, get_args(only)[0])
        return None if inner is None else pyarrow.list_(inner)
    if isinstance(only, type) and issubclass(only, BaseModel):
        parts = {name: _arrow_type(pyarrow, field.annotation) for name, field in only.model_fields.items()}
        return None if None in parts.values() or not parts else pyarrow.struct(parts)
    simple = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    return simple.get(only) if isinstance(only, type) else None


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

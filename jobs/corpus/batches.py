"""Record batches of Arrow as items: column by column where they are taken as they are, else row by row."""

import base64
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from jobs.corpus.base import ID, Fields, Read, check_columns
from jobs.corpus.columns import plain, told_texts
from jobs.corpus.mapping import Mapper
from jobs.errors import Problem

ROWS_AT_ONCE = 1024
"""Rows that are in memory while reading; of a row group at least a page of each column is, too."""


def check_schema(name: str, schema: Any, fields: Fields) -> None:
    """Raise InvalidInput unless an input's columns, or structures inside them, have every field that is asked for."""
    check_columns(name, schema.names, fields, has=lambda path: _has(schema, path.split(".")))


def items(batches: Iterable[Any], fields: Fields, max_bytes: int) -> Iterator[Read]:
    """An item a row, numbered from 1. Empty cells are left out."""
    mapper, number = Mapper(fields), 1
    for batch in map(_in_microseconds, batches):
        lines = _lines(batch, mapper)
        if lines is not None and max(map(len, lines), default=0) <= max_bytes:
            yield from enumerate(lines, number)
        else:
            for at, row in enumerate(_rows(batch), number):
                yield at, _item(at, row, mapper, max_bytes)
        number += len(batch)


def _in_microseconds(batch: Any) -> Any:
    """The batch with its times as Python has them: of nanoseconds the last three digits are left out."""
    import pyarrow

    kinds = [_coarser(pyarrow, kind) for kind in batch.schema.types]
    if kinds == batch.schema.types:
        return batch
    columns = [column.cast(kind, safe=False) for column, kind in zip(batch.columns, kinds, strict=True)]
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _coarser(pyarrow: Any, kind: Any) -> Any:
    if pyarrow.types.is_timestamp(kind) and kind.unit == "ns":
        return pyarrow.timestamp("us", kind.tz)
    if pyarrow.types.is_time64(kind) and kind.unit == "ns":
        return pyarrow.time64("us")
    if pyarrow.types.is_duration(kind) and kind.unit == "ns":
        return pyarrow.duration("us")
    return kind


def _has(schema: Any, path: list[str]) -> bool:
    """Whether a column has these structures inside each other."""
    import pyarrow

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
    except (TypeError, ValueError, OverflowError):  # no text, no JSON, no id, or no time that Python knows
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


def _rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Each row, or why it cannot be read."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for at in range(len(batch)):
            try:
                yield batch.slice(at, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield "a text of the row is not UTF-8"
            except (ValueError, OverflowError) as error:
                yield f"a value of the row cannot be read: {error}"


def _item(number: int, row: dict[str, Any] | str, mapper: Mapper, max_bytes: int) -> bytes | Problem | None:
    if isinstance(row, str):
        return Problem(number, "not_utf8" if "UTF-8" in row else "malformed_row", row)
    try:
        item = mapper.item(number, row)
        if not isinstance(item, dict):
            return item
        if isinstance(text := item.get(mapper.main), bytes):
            item[mapper.main] = text.decode()
        line = orjson.dumps({name: value for name, value in item.items() if value is not None}, default=_told)
    except UnicodeDecodeError:
        return Problem(number, "not_utf8", f"{mapper.main} is not UTF-8")
    except TypeError as error:
        return Problem(number, "malformed_row", f"a value cannot be told as JSON: {error}")
    if len(line) > max_bytes:
        message = f"the row is longer than {max_bytes:,} bytes as JSON (setting max_line_bytes)"
        return Problem(number, "line_too_long", message)
    return line


def _told(value: Any) -> Any:
    """As `plain`; bytes that are no text, as of a picture beside the text, in base64."""
    try:
        return plain(value)
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()

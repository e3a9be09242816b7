"""Columns of a row: how one is named, also inside nested JSON, and what its value is as text."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any

import orjson

Row = dict[str, Any]
"""An input's row by its column names, as its format reads it."""


def column(path: str) -> Callable[[Row], Any]:
    """Finds a column's value in a row. A dotted path (`doc.body`, `labels.0.label`) goes into objects and lists, unless
    a column is called so.

    What it returns raises KeyError with the path for a row that has no such column; what lies inside null is null.
    """
    parts = path.split(".")

    def plain(row: Row) -> Any:
        return row[path]

    def dotted(row: Row) -> Any:
        if path in row:
            return row[path]
        value: Any = row
        for part in parts:
            if value is None:
                return None
            if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, dict) and part in value:
                value = value[part]
            else:
                raise KeyError(path)
        return value

    return plain if len(parts) == 1 else dotted


def columns(paths: Sequence[str]) -> Callable[[Row], tuple[Any, ...]]:
    """Finds the values of several columns, in their order. Raises KeyError likewise."""
    if len(paths) > 1 and not any("." in path for path in paths):
        return itemgetter(*paths)
    found = [column(path) for path in paths]
    return lambda row: tuple([value(row) for value in found])


def as_text(value: Any) -> str:
    """Text as it is, null as none at all, anything else as it stands in JSON. Raises TypeError for what cannot."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    data = orjson.dumps(value, default=plain)
    text: str = orjson.loads(data) if data.startswith(b'"') else data.decode()
    return text


def as_text_or_null(value: Any) -> str | None:
    """The same, but null stays null."""
    return None if value is None else as_text(value)


def plain(value: Any) -> Any:
    """What JSON has no word for, for orjson."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal | date | datetime | time | timedelta):
        return str(value)
    raise TypeError(f"{type(value).__name__}")


def told_texts(values: Sequence[str]) -> list[bytes]:
    """Each text as JSON, without its quotes; of no texts, one that is empty. Raises TypeError for a lone surrogate."""
    # Inside of a text a quote has a backslash before it: so these three stand between two texts alone.
    return orjson.dumps(values)[2:-2].split(b'","')

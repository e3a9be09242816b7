"""The rows of a query on a SQL database as items: streamed, in a transaction that may only read."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from jobs.corpus.base import Fields, Format, Place, Read, check_columns
from jobs.corpus.mapping import Mapper
from jobs.corpus.rows import EVERY_ROW, Rows
from jobs.corpus.source import FileSource, piped
from jobs.corpus.urls import shown
from jobs.errors import InvalidInput, NotInstalled, Problem

ROWS_AT_ONCE = 1000
"""Rows that are in memory."""
CONNECT_S = 10
MAX_ROW_BYTES = 16 * 2**20
"""As the setting `max_line_bytes`, for callers without settings."""

_DATABASE = re.compile(r"(sqlite|postgresql|postgres)(\+\w+)?://", re.IGNORECASE)
_TABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)?")


def is_database(name: str) -> bool:
    """Whether it is the URL of a database that can be asked."""
    return _DATABASE.match(name) is not None


def open_query(
    url: str,
    query: str,
    *,
    text_field: str | None = None,
    id_field: str | None = None,
    main_field: str = "text",
    rows: Rows = EVERY_ROW,
    max_row_bytes: int = MAX_ROW_BYTES,
) -> FileSource:
    """An item a row of the query (or of the table of that name), by the names of its columns; asked at each reading.

    It has no fingerprint, as nobody knows whether the rows will be the same again. Raises InvalidInput.
    """
    fields = Fields(main=main_field, text=text_field, id=id_field, rows=rows)
    form = piped(Format("sql", (), partial(_read, url, query)))
    place = Place(shown(url), Path("sql"), _unopened)
    return FileSource([(form, place)], fields, max_row_bytes)


def rows_of(url: str, query: str, fields: Fields) -> Iterator[dict[str, Any]]:
    """The rows in the order the database gives them.

    Raises InvalidInput for what the database refuses, NotInstalled for its driver.
    """
    from sqlalchemy import text

    name = shown(url)
    with _told(name, url), _connected(name, url) as connection:
        if _TABLE.fullmatch(query.strip()):
            quoted = connection.dialect.identifier_preparer.quote
            query = "SELECT * FROM " + ".".join(map(quoted, query.strip().split(".")))
        # A colon stands for itself, not for a parameter.
        with connection.execute(text(query.strip().rstrip(";").replace(":", r"\:"))) as result:
            columns = _columns(name, result, fields)
            for row in result:
                yield dict(zip(columns, row, strict=True))


def as_json(row: dict[str, Any]) -> bytes:
    """The row as a line of JSON: times in ISO 8601, bytes in base64, decimals and all else as their text."""
    try:
        return orjson.dumps(row, default=_plain)
    except (
        TypeError
    ):  # an integer of more than 64 bits in a JSON column, or a text that is not UTF-8: the intake judges
        return json.dumps(row, default=_plain).encode()


def _read(url: str, query: str, place: Place, fields: Fields, max_bytes: int) -> Iterator[Read]:
    mapper = Mapper(fields)
    for number, row in enumerate(rows_of(url, query, fields), start=1):
        yield number, _item(number, row, mapper, max_bytes)


def _item(number: int, row: dict[str, Any], mapper: Mapper, max_bytes: int) -> bytes | Problem | None:
    try:
        item = mapper.item(number, row)
        if not isinstance(item, dict):
            return item
        line = as_json({name: value for name, value in item.items() if value is not None})
    except TypeError as error:
        return Problem(number, "malformed_row", f"a value cannot be told as JSON: {error}")
    message = f"the row is longer than {max_bytes:,} bytes as JSON (setting max_line_bytes)"
    return line if len(line) <= max_bytes else Problem(number, "line_too_long", message)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode()
    return str(value)


def _columns(name: str, result: Any, fields: Fields) -> list[str]:
    """Raises InvalidInput where they cannot be the fields that are asked for."""
    if not result.returns_rows:
        raise InvalidInput(f"{name}: the query gives no rows; only a query that reads is an input")
    columns = list(result.keys())
    if doubled := sorted({column for column in columns if columns.count(column) > 1}):
        raise InvalidInput(f"{name}: the query has the column {doubled[0]!r} twice; name one of them with AS")
    check_columns(name, columns, fields)
    return columns


@contextmanager
def _connected(name: str, url: str) -> Iterator[Any]:
    """A connection in one transaction that sees one state of the database and cannot write."""
    from sqlalchemy import create_engine, event, make_url
    from sqlalchemy.pool import NullPool

    parsed = make_url(url)
    options: dict[str, Any] = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
    arguments: dict[str, Any] = {}
    if parsed.drivername.startswith("sqlite"):
        path = parsed.database or ""
        if not Path(path).is_file():
            raise InvalidInput(f"{name}: no such file: {path!r}")
        parsed = parsed.set(drivername="sqlite", database=f"file:{quote(path)}", query={"mode": "ro", "uri": "true"})
    else:
        parsed = parsed.set(drivername="postgresql+psycopg")
        options |= {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"}
        arguments = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_S}
    engine = create_engine(parsed, poolclass=NullPool, connect_args=arguments)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _only_read)
    try:
        with engine.connect().execution_options(**options) as connection:
            yield connection
    finally:
        engine.dispose()


def _only_read(raw: Any, _: Any) -> None:
    """Prepares a connection to SQLite. A text that is not UTF-8 would else end the reading, for the sake of one row."""
    raw.execute("PRAGMA query_only = ON")
    raw.text_factory = lambda data: data.decode(errors="surrogateescape")


@contextmanager
def _told(name: str, url: str) -> Iterator[None]:
    """What the driver raises, in words without the password."""
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        yield
    except ArgumentError:
        raise InvalidInput(f"{name}: is no URL of a database, as in postgresql://host/name") from None
    except SQLAlchemyError as error:
        said = shown(str(getattr(error, "orig", None) or error).partition("\n")[0])[:300]
        raise InvalidInput(f"{name}: the database refused, and a query may only read: {said}") from None
    except ImportError as error:
        raise NotInstalled(f"PostgreSQL needs: pip install 'textmill[postgres]' ({error})") from None


def _unopened() -> Any:
    raise NotImplementedError("a query's rows are no bytes")

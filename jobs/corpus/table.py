"""Results to a table of a SQL database: a row an item, replaced where there is one of its `custom_id` already."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

import orjson

from jobs.corpus.columns import as_text_or_null
from jobs.corpus.urls import shown
from jobs.errors import NotInstalled, OutputError

ROWS_AT_ONCE = 1000
"""Written in one transaction."""
CONNECT_S = 10
KEY = "custom_id"
OWN = (KEY, "status")
ERROR = ("error_code", "error")

_TARGET = re.compile(r"(sqlite|postgresql|postgres)(\+\w+)?://[^#]*#([^#]+)", re.IGNORECASE)
_NAME = re.compile(r"(?:([^\W\d]\w{0,62})\.)?([^\W\d]\w{0,62})")

Kinds = Mapping[str, Any]
"""The task's output fields with their types."""


def is_table(target: str) -> bool:
    """Whether it names a table of a database: `postgresql://host/name#table`, `sqlite:///file.db#table`."""
    return _TARGET.fullmatch(target) is not None


class TableSink:
    """Writes as it goes, a thousand rows a transaction. A second delivery of the same results changes nothing.

    The table is made if it is not there: `custom_id` (its key), `status`, the task's output fields, `error_code`,
    `error`, then the kept fields; numbers are numbers, vectors arrays, lists and objects JSON. One that is there needs
    these columns, and `custom_id` as its key. As a context manager it commits at the end. Every failure is an
    OutputError.
    """

    direct = False
    """Nothing that was written needs to be taken back: a row is whole, and written again it is the same."""

    def __init__(self, target: str, kinds: Kinds, kept: Sequence[str] = ()) -> None:
        url, _, name = target.rpartition("#")
        self._shown = shown(target)
        found = _NAME.fullmatch(name)
        if found is None:
            raise OutputError(f"{self._shown}: {name[:100]!r} is no name of a table; it is TABLE or SCHEMA.TABLE")
        self._schema, self._name = found[1], found[2]
        self._kinds, self._kept = kinds, [f"kept_{each}" if each in {*OWN, *kinds, *ERROR} else each for each in kept]
        self._kept_names = list(kept)
        self._url = url
        self._engine: Any = None
        self._table: Any = None
        self._rows: list[dict[str, Any]] = []

    def check(self) -> None:
        """Raise OutputError unless results can be written there: connects, and makes the table if it is not there."""
        self._open()
        self.discard()

    def write_line(self, line: bytes) -> None:
        """Take one result, given as the JSON text of a `jobs.schemas.Result`."""
        self._rows.append(self._row(orjson.loads(line)))
        if len(self._rows) >= ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what was taken."""
        if not self._rows:
            return
        self._open()
        with self._told(), self._engine.begin() as connection:
            connection.execute(self._upsert(), self._rows)
        self._rows.clear()

    def commit(self) -> None:
        """Write the rest."""
        self._open()
        self.flush()
        self.discard()

    def discard(self) -> None:
        """Write nothing more; what was written stays."""
        self._rows.clear()
        if self._engine is not None:
            self._engine.dispose()
        self._engine = self._table = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()

    def _row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        output, error, kept = result.get("output") or {}, result.get("error") or {}, result.get("kept") or {}
        row = {KEY: result["custom_id"], "status": result["status"]}
        row |= {name: output.get(name) for name in self._kinds}
        row |= {"error_code": error.get("code"), "error": error.get("message")}
        row |= {name: as_text_or_null(kept.get(own)) for name, own in zip(self._kept, self._kept_names, strict=True)}
        return {name: _without_nul(value) for name, value in row.items()}

    def _open(self) -> None:
        if self._engine is not None:
            return
        from sqlalchemy import create_engine, make_url
        from sqlalchemy.exc import ArgumentError
        from sqlalchemy.pool import NullPool

        with self._told():
            try:
                parsed = make_url(self._url)
            except ArgumentError:
                raise OutputError(f"{self._shown}: is no URL of a database, as postgresql://host/name#table") from None
            arguments: dict[str, Any] = {}
            if not parsed.drivername.startswith("sqlite"):
                parsed = parsed.set(drivername="postgresql+psycopg")
                arguments = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_S}
            self._engine = create_engine(parsed, poolclass=NullPool, connect_args=arguments)
            self._prepare()

    def _prepare(self) -> None:
        """Make the table, or see whether the one that is there will do."""
        from sqlalchemy import inspect

        self._table = self._described()
        self._table.metadata.create_all(self._engine, checkfirst=True)
        found = inspect(self._engine)
        columns = {column["name"] for column in found.get_columns(self._name, schema=self._schema)}
        if missing := [column.name for column in self._table.columns if column.name not in columns]:
            raise OutputError(f"{self._shown}: the table has no column {', '.join(missing)}; name another table")
        keys = [found.get_pk_constraint(self._name, schema=self._schema)["constrained_columns"]]
        keys += [each["column_names"] for each in found.get_unique_constraints(self._name, schema=self._schema)]
        if [KEY] not in keys:
            raise OutputError(f"{self._shown}: {KEY} is no key of the table, so that rows could not be replaced")

    def _described(self) -> Any:
        from sqlalchemy import Column, MetaData, Table, Text

        columns = [Column(KEY, Text, primary_key=True), Column("status", Text, nullable=False)]
        columns += [Column(name, _type(kind)) for name, kind in self._kinds.items()]
        columns += [Column(name, Text) for name in (*ERROR, *self._kept)]
        return Table(self._name, MetaData(), *columns, schema=self._schema)

    def _upsert(self) -> Any:
        from sqlalchemy.dialects import postgresql, sqlite

        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        new = insert(self._table)
        others = {column.name: new.excluded[column.name] for column in self._table.columns if column.name != KEY}
        return new.on_conflict_do_update(index_elements=[KEY], set_=others)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the driver raises, in words without the password."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except SQLAlchemyError as error:
            self.discard()
            said = shown(str(getattr(error, "orig", None) or error).partition("\n")[0])[:300]
            raise OutputError(f"{self._shown}: cannot be written: {said}") from None
        except ImportError as error:
            self.discard()
            raise NotInstalled(f"PostgreSQL needs: pip install 'textmill[postgres]' ({error})") from None
        except OutputError:
            self.discard()
            raise


def _type(kind: Any) -> Any:
    """The column type of an output field's type."""
    from sqlalchemy import JSON, BigInteger, Boolean, Float, Text
    from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL

    kinds = [
        each for each in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)) if each is not NoneType
    ]
    only = kinds[0] if len(kinds) == 1 else None
    if get_origin(only) is Literal or (isinstance(only, type) and issubclass(only, str | Enum)):
        return Text()
    if only is bytes:  # a vector, given as numbers
        return JSON().with_variant(ARRAY(REAL), "postgresql")
    simple: dict[Any, Any] = {bool: Boolean(), int: BigInteger(), float: Float(53)}
    return simple.get(only) or JSON().with_variant(JSONB(), "postgresql")


def _without_nul(value: Any) -> Any:
    """The value as PostgreSQL can hold it: one NUL in one text would else keep all results from their table."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd") if "\0" in value else value
    if isinstance(value, list) and not (value and isinstance(value[0], float)):
        return [_without_nul(each) for each in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(each) for key, each in value.items()}
    return value

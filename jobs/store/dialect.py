"""The edge to the two databases: connections, transactions, timeouts, retries, and every foreign error mapped."""

import random
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, Table, TextClause, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobs.errors import InvalidParams, InvalidSettings, InvalidState, SchemaOutdated, StoreUnavailable
from jobs.store import unanswered

T = TypeVar("T")

RETRY_S = (0.02, 0.1, 0.4)
"""Waits before a transaction is tried again after a passing trouble; then the caller hears of it."""

BUSY_TIMEOUT_S = 15.0
"""How long SQLite waits for another process's write transaction."""

POSTGRESQL_SESSION = {
    "application_name": "textmill",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "30s",
    # Everything here goes by an index, and what is worked on is in memory.
    "random_page_cost": "1.1",
    # A claim is many small index scans; wild estimates of them must not start the compiler or more processes.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}
POSTGRESQL_CONNECT = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
ANSWER_S = 70.0
"""How long a statement may be without an answer: past `statement_timeout`, nobody is at work on it."""
POSTGRESQL_RELAXED = {
    "synchronous_commit": "off",
    # Claims and renewals are index scans from end to end, in the order of the index. A planner without statistics takes
    # a million pending chunks for one, and would rather sort it.
    "enable_sort": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # So there is one plan, and making it anew for every claim would cost as much as the claim.
    "plan_cache_mode": "force_generic_plan",
}
_PASSING_STATES = {"40001", "40P01", "55P03"}
"""SQLSTATE: serialization failure, deadlock, lock timeout."""
_LOST_STATES = {"57P01", "57P02", "57P03", "25P03"}
"""SQLSTATE: the server shuts down, crashed, starts up; the session was idle in a transaction."""
_SQLITE_PASSING = ("locked", "busy")


class Database:
    """One database: transactions that are retried as a whole, with errors of Textmill's own.

    Work given to `read`, `write` and `relaxed` may run several times, and must be safe to repeat after a commit
    whose answer was lost.
    """

    def __init__(self, url: str, *, relaxed_answer_s: float = ANSWER_S) -> None:
        """`relaxed_answer_s`: how long a claim or a renewal may be without an answer (PostgreSQL)."""
        address = _address(url)
        self.dialect = address.get_backend_name()
        self.words: dict[str, str] = _WORDS[self.dialect]
        server = self.dialect == "postgresql"
        self._durable = _open_postgresql(address, {}, ANSWER_S) if server else _open_sqlite(address)
        self._autocommit = self._durable.execution_options(isolation_level="AUTOCOMMIT")
        self._relaxed: Engine | None = None
        if server:
            engine = _open_postgresql(address, POSTGRESQL_RELAXED, min(ANSWER_S, relaxed_answer_s))
            self._relaxed = engine.execution_options(isolation_level="AUTOCOMMIT")
        # Rows that travel below SQLAlchemy's row layer raise the driver's own errors.
        self._errors = (SQLAlchemyError, self._durable.dialect.loaded_dbapi.Error)
        self._closed = False
        self.sql = lru_cache(maxsize=None)(self._sql)

    @property
    def engine(self) -> Engine:
        """For migrations; everything else goes through `read`, `write` and `relaxed`."""
        return self._durable

    def close(self) -> None:
        """Close every connection; those in use, as soon as their work is done. Later work raises StoreUnavailable."""
        self._closed = True
        self._close_idle()

    def read(self, work: Callable[[Connection], T]) -> T:
        """The work's result. Each statement sees what is committed when it begins."""
        return self._retrying(lambda: self._in(self._autocommit, work))

    def write(self, work: Callable[[Connection], T]) -> T:
        """The work's result, committed and on disk."""
        return self._retrying(lambda: self._transaction(work))

    def relaxed(self, work: Callable[[Connection], T]) -> T:
        """The work's result, each statement committed at once, but lost if the server crashes just then (PostgreSQL).

        On its own few connections, so that renewals never wait for bulk writes. On SQLite the same as `write`.
        """
        engine = self._relaxed
        return self.write(work) if engine is None else self._retrying(lambda: self._in(engine, work))

    def insert(self, table: Table) -> "postgresql.Insert | sqlite.Insert":
        """An INSERT that knows ON CONFLICT, which both databases spell the same."""
        return postgresql.insert(table) if self.dialect == "postgresql" else sqlite.insert(table)

    def _sql(self, template: str) -> TextClause:
        """The statement, with this database's words for `{now}`, `{later}` (by :lease_s), locks and the like."""
        return sqlalchemy.text(template.format_map(self.words))

    def _in(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        with engine.connect() as connection:
            return work(connection)

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        with self._durable.connect() as connection, connection.execution_options(textmill_write=True).begin():
            return work(connection)

    def _retrying(self, attempt: Callable[[], T]) -> T:
        try:
            for wait in (*RETRY_S, None):
                if self._closed:
                    raise StoreUnavailable("this connection to the database was closed; open the store or client anew")
                try:
                    return attempt()
                except self._errors as error:
                    if wait is None or not passing(error):
                        raise mapped(error) from error
                    time.sleep(wait * random.uniform(0.5, 1.5))
            raise AssertionError("unreachable")
        finally:
            if self._closed:
                self._close_idle()

    def _close_idle(self) -> None:
        # Not Engine.dispose: it starts a new pool, and connections given back to the old one are never closed.
        self._durable.pool.dispose()
        if self._relaxed is not None:
            self._relaxed.pool.dispose()


def passing(error: Exception) -> bool:
    """Whether the same transaction may well succeed in a moment: a deadlock, a lock, a lost connection."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    original, state = _original(error)
    if state is not None:
        return state in _PASSING_STATES or state in _LOST_STATES or state.startswith("08")
    text = str(original).lower()
    if type(original).__module__.startswith("psycopg"):
        return type(original).__name__ == "OperationalError"  # without SQLSTATE: the connection, not a statement
    return type(original).__name__ == "OperationalError" and any(word in text for word in _SQLITE_PASSING)


def mapped(error: Exception) -> Exception:
    """Textmill's own error for a database's: StoreUnavailable, SchemaOutdated, InvalidParams or InvalidState."""
    original, state = _original(error)
    text = str(original).strip().partition("\n")[0]
    if state == "42P01" or "no such table" in text:
        return SchemaOutdated(f"the database lacks a table; run `textmill db upgrade` ({text})")
    if state == "53100" or "disk is full" in text:
        return StoreUnavailable(f"the disk of the database is full: {text}")
    name = type(original).__name__
    if isinstance(error, PoolTimeout) or name in ("OperationalError", "InterfaceError") or _is_operational(original):
        return StoreUnavailable(f"the database did not answer or refused: {text}")
    if _named(original, "DataError"):
        return InvalidParams(f"the database cannot hold a value: {text}")
    if _named(original, "IntegrityError"):
        return InvalidState(f"the database refused a row: {text}")
    return error


def _original(error: Exception) -> tuple[BaseException, str | None]:
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return original, getattr(original, "sqlstate", None)


def _is_operational(error: BaseException) -> bool:
    return _named(error, "OperationalError") or _named(error, "InternalError")


def _named(error: BaseException, name: str) -> bool:
    """By name, so that SQLite users need no psycopg: the DB API gives both drivers the same class names."""
    return any(kind.__name__ == name for kind in type(error).__mro__)


_WORDS = {
    "postgresql": {
        "now": "clock_timestamp()",
        "later": "(clock_timestamp() + make_interval(secs => :lease_s))",
        "minute_ago": "(clock_timestamp() - make_interval(secs => 60))",
        "lock_c": "FOR UPDATE OF c",
        "skip_c": "FOR UPDATE OF c SKIP LOCKED",
        "share": "FOR SHARE",
        "lock": "FOR UPDATE",
        "held": "jsonb_to_recordset(CAST(:held AS jsonb)) AS held(id bigint, token text)",
        "saves": "jsonb_to_recordset(CAST(:saves AS jsonb)) AS s"
        "(id bigint, token text, done boolean, ok integer, failed integer, tokens_in bigint, tokens_out bigint)",
    },
    "sqlite": {
        "now": "strftime('%Y-%m-%d %H:%M:%f000', 'now')",
        "later": "strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%.3f seconds', :lease_s))",
        "minute_ago": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-60 seconds')",
        "lock_c": "",
        "skip_c": "",
        "share": "",
        "lock": "",
        "held": "(SELECT value ->> 'id' AS id, value ->> 'token' AS token FROM json_each(:held)) AS held",
        "saves": "(SELECT value ->> 'id' AS id, value ->> 'token' AS token, value ->> 'done' AS done,"
        " value ->> 'ok' AS ok, value ->> 'failed' AS failed, value ->> 'tokens_in' AS tokens_in,"
        " value ->> 'tokens_out' AS tokens_out FROM json_each(:saves)) AS s",
    },
}
"""What the two databases say differently. Rows come in as one JSON parameter, so that a statement has one text."""


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise InvalidSettings("the database URL cannot be read; postgresql://... or sqlite:///... is wanted") from error
    backend = address.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return address.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise InvalidSettings(f"unknown kind of database {backend!r}; known: postgresql, sqlite")
    if not address.database or address.database == ":memory:":
        raise InvalidSettings("a SQLite database in memory cannot be shared by processes; name a file: sqlite:///PATH")
    return address


def _open_postgresql(address: URL, session: dict[str, str], answer_s: float) -> Engine:
    settings = {**POSTGRESQL_SESSION, **session}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    try:
        engine = sqlalchemy.create_engine(
            address,
            connect_args={**POSTGRESQL_CONNECT, "options": options},
            # No ping before use: a connection that was lost makes the transaction be tried again on a new one.
            pool_size=8,
            max_overflow=16,
            pool_timeout=10,
        )
    except ImportError as error:
        raise InvalidSettings("PostgreSQL needs its driver: pip install 'textmill[postgres]'") from error
    # SQLAlchemy's hook for making the driver's connections oneself.
    event.listen(engine, "do_connect", lambda _, __, args, given: unanswered.connect(answer_s, *args, **given))
    return engine


def _open_sqlite(address: URL) -> Engine:
    Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(
        address,
        # Transactions are begun by `_begin_sqlite`, not by the driver, which would begin them too late.
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
        pool_size=8,
        max_overflow=16,
        pool_timeout=BUSY_TIMEOUT_S,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """A write transaction takes its lock at once: one that had to upgrade a read lock would fail instead of waiting."""
    if connection.get_execution_options().get("textmill_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")

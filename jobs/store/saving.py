"""Saving results: the guarded UPDATE first, then the rows of what it let through, in one transaction."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from jobs.store.dialect import Database
from jobs.store.encoding import storable
from jobs.store.values import ResultRow, Save

COLUMNS = ("job_id", *ResultRow._fields)
_COPY = f"COPY results ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_COPY_TYPES = ("uuid", "int8", "text", "text", "text", "bytea", "text", "text", "int4", "int4", "int4", "int4", "text")
_VALUES = f"({', '.join('?' * len(COLUMNS))})"
_INSERT = f"INSERT INTO results ({', '.join(COLUMNS)}) VALUES "
ROWS_AT_ONCE = 32_766 // len(COLUMNS)
"""Rows of one INSERT on SQLite, by the parameters it takes: one call for many rows runs without the interpreter's lock,
where a call for each row would fight for it."""
_INSERT_MANY = _INSERT + ", ".join([_VALUES] * ROWS_AT_ONCE)

_GUARDED = """
    UPDATE chunks SET
        state = CASE WHEN mine.done THEN 'done' ELSE 'running' END,
        lease_until = CASE WHEN mine.done THEN NULL ELSE chunks.lease_until END,
        finished_at = CASE WHEN mine.done THEN {now} END,
        n_ok = n_ok + mine.ok, n_error = n_error + mine.failed,
        tokens_in = chunks.tokens_in + mine.tokens_in, tokens_out = chunks.tokens_out + mine.tokens_out
    FROM (
        SELECT c.id AS chunk_id, s.* FROM {saves} JOIN chunks AS c ON c.id = s.id AND c.lease_token = s.token
        WHERE c.state = 'running' ORDER BY c.id {lock_c}) AS mine
    WHERE chunks.id = mine.chunk_id
    RETURNING chunks.id, chunks.job_id
"""
_LOCKED = "SELECT c.id, c.job_id, c.state FROM {held} JOIN chunks AS c ON c.id = held.id AND c.lease_token = held.token"
_HAS_RESULT = "SELECT 1 FROM results WHERE job_id = :job_id AND seq = :seq"


def save(database: Database, saves: Sequence[Save]) -> set[int]:
    """The ids of the chunks whose rows are now in the database; what was not held by its token is dropped."""
    merged, tries = _merged(saves), count()

    def work(connection: Connection) -> set[int]:
        # A commit whose answer was lost may have landed: look before doing it again.
        landed = _landed(database, connection, merged) if next(tries) else None
        return landed or _save(database, connection, merged)

    return database.write(work)


def insert(database: Database, connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    """Write rows of `COLUMNS`, the job's id `bound`, below SQLAlchemy's row layer."""
    driver: Any = connection.connection.driver_connection
    if database.dialect == "sqlite":
        _insert_sqlite(driver, list(rows))
        return
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_COPY_TYPES)
        for row in rows:
            copy.write_row(row)


def _insert_sqlite(driver: Any, rows: Sequence[tuple[Any, ...]]) -> None:
    whole = len(rows) - len(rows) % ROWS_AT_ONCE
    for at in range(0, whole, ROWS_AT_ONCE):
        driver.execute(_INSERT_MANY, list(chain.from_iterable(rows[at : at + ROWS_AT_ONCE]))).close()
    driver.executemany(_INSERT + _VALUES, rows[whole:]).close()


def _merged(saves: Sequence[Save]) -> list[Save]:
    """One save a chunk: an UPDATE would let only one of several through."""
    merged: dict[tuple[int, str], Save] = {}
    for save in saves:
        before = merged.get((save.chunk_id, save.token))
        if before is not None:
            save = save._replace(rows=[*before.rows, *save.rows], done=before.done or save.done)
        merged[save.chunk_id, save.token] = save
    return list(merged.values())


def _save(database: Database, connection: Connection, saves: Sequence[Save]) -> set[int]:
    given = orjson.dumps([_summary(save) for save in saves]).decode()
    accepted = {row.id: as_uuid(row.job_id) for row in connection.execute(database.sql(_GUARDED), {"saves": given})}
    keys = {chunk_id: bound(database, job_id) for chunk_id, job_id in accepted.items()}
    insert(database, connection, _rows(saves, keys))
    return set(accepted)


def _summary(save: Save) -> dict[str, Any]:
    rows = save.rows
    ok = [row.status for row in rows].count("ok")
    return {
        "id": save.chunk_id,
        "token": save.token,
        "done": save.done,
        "ok": ok,
        "failed": len(rows) - ok,
        "tokens_in": sum([row.tokens_in for row in rows]),
        "tokens_out": sum([row.tokens_out for row in rows]),
    }


def _rows(saves: Sequence[Save], keys: dict[int, UUID | str]) -> Iterator[tuple[Any, ...]]:
    for save in saves:
        key = keys.get(save.chunk_id)
        if key is not None:
            for row in save.rows:
                yield (key, *(row if row.error is None else row._replace(error=storable(row.error))))


def _landed(database: Database, connection: Connection, saves: Sequence[Save]) -> set[int] | None:
    """What an earlier try saved after all; None if nothing.

    The rows are locked first, so that a try that is still committing has ended before it is looked at.
    """
    held = orjson.dumps([{"id": save.chunk_id, "token": save.token} for save in saves]).decode()
    mine = f"{_LOCKED} ORDER BY c.id {{lock_c}}"
    found = {row.id: row for row in connection.execute(database.sql(mine), {"held": held})}
    landed = {save.chunk_id for save in saves if _is_there(database, connection, save, found.get(save.chunk_id))}
    return landed or None


def _is_there(database: Database, connection: Connection, save: Save, chunk: Any) -> bool:
    """Done rows keep their token; rows saved before the end are found by their first."""
    if chunk is None or save.done:
        return chunk is not None and chunk.state == "done"
    if not save.rows:
        return False
    first = {"job_id": bound(database, as_uuid(chunk.job_id)), "seq": save.rows[0].seq}
    return connection.execute(database.sql(_HAS_RESULT), first).first() is not None


def as_uuid(value: UUID | str) -> UUID:
    """SQLite gives the hex digits when the statement is plain text."""
    return value if isinstance(value, UUID) else UUID(hex=value)


def bound(database: Database, job_id: UUID) -> UUID | str:
    """The id as a statement in plain text takes it."""
    return job_id if database.dialect == "postgresql" else job_id.hex

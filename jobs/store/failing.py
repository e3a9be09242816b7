"""Items of one outcome, found through the chunks that have some: a job of ten million may have one that failed."""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, select

from jobs.store.tables import chunks, results


def items_of(
    connection: Connection,
    job_id: UUID,
    status: Literal["ok", "error"],
    columns: Sequence[Any],
    *,
    after: int = -1,
    n_chunks: int,
    limit: int,
) -> list[Row[Any]]:
    """These columns of `results`, of at most so many items behind `after` with this outcome, in order, looked for in
    the first so many chunks that have any.

    A query for each chunk: joined with `chunks`, SQLite would read all results of the job.
    """
    count = chunks.c.n_error if status == "error" else chunks.c.n_ok
    spans = (
        select(chunks.c.seq_lo, chunks.c.seq_hi)
        .where(chunks.c.job_id == job_id, count > 0, chunks.c.seq_hi > after + 1)
        .order_by(chunks.c.seq_lo)
        .limit(n_chunks)
    )
    wanted = (
        select(*columns)
        .where(results.c.job_id == job_id, results.c.seq >= bindparam("low"), results.c.seq < bindparam("high"))
        .where(results.c.status == status)
        .order_by(results.c.seq)
        .limit(bindparam("most"))
    )
    found: list[Row[Any]] = []
    for low, high in connection.execute(spans).all():
        given = {"low": max(low, after + 1), "high": high, "most": limit - len(found)}
        found += connection.execute(wanted, given).all()
        if len(found) >= limit:
            break
    return found

"""Items of one outcome, found through the chunks that have some: a job of ten million may have one that failed."""

from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Select, select

from jobs.store.tables import chunks, results

CHUNKS = 40
"""Chunks that are looked at, the first ones."""


def items_of(job_id: UUID, status: Literal["ok", "error"], *columns: Any, after: int = -1) -> Select[Any]:
    """These columns of `results`, of items behind `after` with this outcome, in the first chunks that have any."""
    count = chunks.c.n_error if status == "error" else chunks.c.n_ok
    some = (
        select(chunks.c.seq_lo, chunks.c.seq_hi)
        .where(chunks.c.job_id == job_id, count > 0, chunks.c.seq_hi > after + 1)
        .order_by(chunks.c.seq_lo)
        .limit(CHUNKS)
        .subquery()
    )
    return (
        select(*columns)
        .select_from(some)
        .join(results, (results.c.seq >= some.c.seq_lo) & (results.c.seq < some.c.seq_hi))
        .where(results.c.job_id == job_id, results.c.status == status, results.c.seq > after)
    )

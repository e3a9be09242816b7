"""Deleting what nobody keeps any more: old jobs with their items and results, in small pieces.

A job goes in two steps. First it is marked as gone (`expires_at`): nobody finds it any more, and its idempotency key
is free. Then its rows are taken away, a piece a transaction. Whoever pages through its results at that moment looks
for the mark after each page, so that a page with a hole is never taken for a whole one.
"""

from uuid import UUID

from sqlalchemy import ColumnElement, Connection, CursorResult, Delete, Select, delete, func, or_, select, update

from jobs.errors import UnknownJob
from jobs.states import FINAL
from jobs.store import ids, seen
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.tables import blocks, chunks, exports, jobs, results

JOBS_AT_ONCE = 1000
"""Jobs marked in one transaction."""
RESULTS_AT_ONCE, BLOCKS_AT_ONCE = 2000, 32
"""Rows deleted in one transaction: it must not keep others waiting."""
CLOCK_SLACK_S = 86_400.0
"""Ids carry the time of their maker's clock; they only narrow the search."""

GONE: ColumnElement[bool] = jobs.c.expires_at <= now()
NOT_GONE: ColumnElement[bool] = or_(jobs.c.expires_at.is_(None), jobs.c.expires_at > now())


class Retention:
    """What upkeep, and an operator by hand, delete."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def due(self, older_s: float) -> int:
        """How many jobs `mark` would take, in all."""
        counted = select(func.count()).select_from(_due(older_s).subquery())
        return int(self._db.read(lambda connection: connection.execute(counted).scalar_one()))

    def mark(self, older_s: float, *, limit: int = JOBS_AT_ONCE) -> int:
        """How many jobs that ended so long ago are gone from now on.

        A job and its retries go together, with the youngest of them: their results are read laid over each other.
        """

        def work(connection: Connection) -> int:
            wanted = _due(older_s).order_by(jobs.c.id).limit(limit)
            found = connection.scalars(wanted.with_for_update(skip_locked=True, of=jobs)).all()
            gone = update(jobs).where(jobs.c.id.in_(found)).values(expires_at=now(), idempotency_key=None)
            connection.execute(gone)
            return len(found)

        return self._db.write(work)

    def sweep(self) -> int:
        """Delete a piece of one job that is gone; how many rows that were. 0: nothing is left of any."""
        return self._db.write(self._sweep)

    def _sweep(self, connection: Connection) -> int:
        wanted = select(jobs.c.id).where(jobs.c.state.in_(sorted(FINAL)), GONE).order_by(jobs.c.expires_at).limit(1)
        job_id = connection.execute(wanted.with_for_update(skip_locked=True)).scalar_one_or_none()
        if job_id is None:
            return 0
        if settled := seen.settle(connection, job_id):
            return settled
        for piece in (_results(connection, job_id), _chunks(job_id), _blocks(job_id)):
            deleted = _count(connection, piece)
            if deleted:
                return deleted
        connection.execute(delete(exports).where(exports.c.job_id == job_id))
        return _count(connection, delete(jobs).where(jobs.c.id == job_id))


def check_there(connection: Connection, job_id: UUID) -> None:
    """Raises UnknownJob if the job is gone: what was just read of it may not be whole."""
    there = connection.execute(select(jobs.c.id).where(jobs.c.id == job_id, NOT_GONE)).one_or_none()
    if there is None:
        raise UnknownJob(f"no job {ids.public(job_id)!r}; it may have been deleted because of its age")


def _due(older_s: float) -> Select[tuple[UUID]]:
    """Jobs that ended so long ago, with every retry of theirs."""
    old = jobs.c.state.in_(sorted(FINAL)) & (jobs.c.finished_at < later(-older_s))
    young, other = jobs.alias("young"), jobs.alias("other")
    not_old = or_(young.c.finished_at.is_(None), young.c.finished_at >= later(-older_s))
    wanted = select(young.c.id, young.c.retry_of).where(young.c.retry_of.is_not(None), not_old)
    family = wanted.cte("family", recursive=True)
    akin = or_(other.c.id == family.c.retry_of, other.c.retry_of == family.c.id)
    family = family.union(select(other.c.id, other.c.retry_of).join(family, akin))
    by_age = jobs.c.id <= ids.latest_of(older_s - CLOCK_SLACK_S)
    return select(jobs.c.id).where(old, by_age, jobs.c.expires_at.is_(None), jobs.c.id.not_in(select(family.c.id)))


def _results(connection: Connection, job_id: UUID) -> Delete:
    first = connection.execute(select(func.min(results.c.seq)).where(results.c.job_id == job_id)).scalar_one()
    return delete(results).where(results.c.job_id == job_id, results.c.seq < (first or 0) + RESULTS_AT_ONCE)


def _chunks(job_id: UUID) -> Delete:
    some = select(chunks.c.id).where(chunks.c.job_id == job_id).order_by(chunks.c.seq_lo).limit(RESULTS_AT_ONCE)
    return delete(chunks).where(chunks.c.id.in_(some))


def _blocks(job_id: UUID) -> Delete:
    some = select(blocks.c.id).where(blocks.c.job_id == job_id).order_by(blocks.c.seq_lo).limit(BLOCKS_AT_ONCE)
    return delete(blocks).where(blocks.c.id.in_(some))


def _count(connection: Connection, statement: Delete) -> int:
    done: CursorResult[tuple[()]] = connection.execute(statement)
    return done.rowcount

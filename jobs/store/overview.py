"""What those who watch a deployment want to see of many jobs at once: counts, throughput, failures, queues."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Integer, cast, exists, func, literal, select, text
from sqlalchemy import Text as SqlText

from jobs.store import figures, ids, progress
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.failing import items_of
from jobs.store.listing import PAUSED, PAUSED_JOB, of_tenant
from jobs.store.retention import NOT_GONE
from jobs.store.tables import chunks, jobs, results, workers
from jobs.store.workers import alive

DAY_S = 86_400.0
BUCKETS = {1: 60, 24: 48, 168: 56}
"""Into how many pieces so many hours are cut."""
FAILING_JOBS, FAILING_CHUNKS, FAILED_ITEMS = 20, 5, 500
"""Jobs that are looked at, those that failed last; in each of them so many chunks, and so many failed items."""

_ITEMS = chunks.c.n_ok + chunks.c.n_error
_TOKENS = chunks.c.tokens_in + chunks.c.tokens_out
_PENDING = text("chunks.state = 'pending'")


class Now(NamedTuple):
    """How things are at this moment."""

    running: int
    waiting: int
    paused: int
    loading: int
    completed: int
    """In the last 24 hours, as the next ones."""
    failed: int
    expired: int
    cancelled: int
    failed_items: int
    """Of chunks that were finished in that time."""
    items_per_s: float
    """Of the last minute."""
    tokens_per_s: float
    pending_items: int
    oldest_wait_s: float | None
    """How long the job has been ready that waits longest. None: none waits."""


class Bucket(NamedTuple):
    """What was done of one task in a piece of time. A chunk counts when it is finished, all at once."""

    start_at: datetime
    task: str
    items: int
    errors: int
    tokens: int


class FailureGroup(NamedTuple):
    """Failures that are alike."""

    code: str
    message: str
    """One of them."""
    n_items: int
    """0: jobs that failed as a whole."""
    n_jobs: int
    job_id: str
    """The one that failed last."""
    last_at: datetime


class QueueRow(NamedTuple):
    """What lies in a queue, and who serves it."""

    queue: str
    ready: int
    """Chunks."""
    running: int
    items: int
    """Ready."""
    tokens: int
    """Ready, estimated."""
    oldest_s: float
    workers: int


class Overview:
    """Looks at the jobs of a tenant, or with None of all."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def now(self, tenant: str | None) -> Now:
        """Counts, rates and waits. Raises StoreUnavailable."""
        live = of_tenant(
            tenant, select(jobs.c.state, PAUSED_JOB, func.count()).where(NOT_GONE, jobs.c.finished_at.is_(None))
        )
        ended = of_tenant(
            tenant, select(jobs.c.state, func.count()).where(NOT_GONE, jobs.c.finished_at > later(-DAY_S))
        ).group_by(jobs.c.state)
        minute = of_tenant(tenant, select(func.sum(_ITEMS), func.sum(_TOKENS)), chunks.c.tenant).where(
            chunks.c.finished_at > later(-progress.RECENT_S)
        )
        day = of_tenant(tenant, select(func.sum(chunks.c.n_error)), chunks.c.tenant).where(
            chunks.c.finished_at > later(-DAY_S)
        )
        pending = of_tenant(tenant, select(func.sum(chunks.c.seq_hi - chunks.c.seq_lo)), chunks.c.tenant).where(
            _PENDING
        )
        waits = exists().where(chunks.c.job_id == jobs.c.id, _PENDING)
        oldest = of_tenant(
            tenant, select(func.min(jobs.c.sealed_at)).where(text("jobs.state IN ('queued', 'running')"), waits)
        )

        def work(connection: Connection) -> Now:
            moment = connection.execute(select(now())).scalar_one()
            counts: dict[str, int] = {}
            for state, paused, count in connection.execute(live.group_by(jobs.c.state, PAUSED_JOB)):
                name = PAUSED if paused else state
                counts[name] = counts.get(name, 0) + count
            over: dict[str, int] = {row[0]: row[1] for row in connection.execute(ended)}
            items, tokens = connection.execute(minute).one()
            since = connection.execute(oldest).scalar_one()
            return Now(
                counts.get("running", 0),
                counts.get("queued", 0),
                counts.get(PAUSED, 0),
                counts.get("loading", 0),
                over.get("completed", 0),
                over.get("failed", 0),
                over.get("expired", 0),
                over.get("cancelled", 0),
                int(connection.execute(day).scalar_one() or 0),
                float(items or 0) / progress.RECENT_S,
                float(tokens or 0) / progress.RECENT_S,
                int(connection.execute(pending).scalar_one() or 0),
                None if since is None else max(0.0, (moment - since).total_seconds()),
            )

        return self._db.read(work)

    def throughput(self, tenant: str | None, hours: int) -> list[Bucket]:
        """What was done in the last 1, 24 or 168 hours, in pieces by task, in order; those without anything are left
        out."""
        size = hours * 3600 // BUCKETS[hours]
        piece = piece_of(self._db.dialect, chunks.c.finished_at, size)
        sums = (func.sum(_ITEMS), func.sum(chunks.c.n_error), func.sum(_TOKENS))
        wanted = (
            of_tenant(tenant, select(piece, chunks.c.job_id, *sums), chunks.c.tenant)
            .where(chunks.c.finished_at > later(-hours * 3600.0))
            .group_by(piece, chunks.c.job_id)
            .subquery()
        )
        by_task = (
            select(wanted.c[0], jobs.c.task, *(func.sum(wanted.c[at]) for at in (2, 3, 4)))
            .join(jobs, jobs.c.id == wanted.c.job_id)
            .group_by(wanted.c[0], jobs.c.task)
            .order_by(wanted.c[0], jobs.c.task)
        )
        found = self._db.read(lambda connection: connection.execute(by_task).all())
        return [
            Bucket(datetime.fromtimestamp(int(at) * size, UTC), task, int(items), int(errors), int(tokens))
            for at, task, items, errors, tokens in found
        ]

    def failures(self, tenant: str | None, *, hours: float = 24.0, limit: int = 20) -> list[FailureGroup]:
        """Failed items by their code, and failed jobs by their error, the most frequent first.

        Of the jobs that had failures last, and of each of them the first chunks that have some: what ten million
        failures have in common shows in the first thousands, and nobody waits for the rest. Counts are those of what
        was looked at.
        """
        since = later(-hours * 3600.0)
        failing = (
            of_tenant(tenant, select(chunks.c.job_id, func.max(chunks.c.finished_at).label("at")), chunks.c.tenant)
            .where(chunks.c.finished_at > since, chunks.c.n_error > 0)
            .group_by(chunks.c.job_id)
            .order_by(func.max(chunks.c.finished_at).desc())
            .limit(FAILING_JOBS)
        )
        last = cast(jobs.c.id, SqlText)  # PostgreSQL has no max of uuids before 18
        whole = (
            of_tenant(tenant, select(jobs.c.error, func.count(), func.max(last), func.max(jobs.c.finished_at)))
            .where(jobs.c.state.in_(["failed", "expired"]), NOT_GONE, jobs.c.finished_at > since)
            .group_by(jobs.c.error)
            .order_by(func.count().desc())
            .limit(limit)
        )

        def work(connection: Connection) -> list[FailureGroup]:
            groups = [
                FailureGroup("job failed", error or "", 0, n, ids.public(UUID(newest)), at)
                for error, n, newest, at in connection.execute(whole)
            ]
            return groups + _of_items(connection, [(row[0], row[1]) for row in connection.execute(failing)])

        found = self._db.read(work)
        return sorted(found, key=lambda group: max(group.n_items, group.n_jobs), reverse=True)[:limit]

    def queues(self, within_s: float) -> list[QueueRow]:
        """Every queue that has work, or a worker that reported in the last so many seconds, by name."""
        running = select(chunks.c.queue, func.count()).where(text("chunks.state = 'running'")).group_by(chunks.c.queue)
        serving = select(workers.c.queues).where(alive(within_s))

        def work(connection: Connection) -> tuple[dict[str, int], list[Any]]:
            return {row[0]: row[1] for row in connection.execute(running)}, list(connection.scalars(serving))

        ready = {each.queue: each for each in figures.read(self._db).backlogs}
        held, served = self._db.read(work)
        names = {*ready, *held, *(name for each in served for name in each)}
        return [
            QueueRow(
                name,
                ready[name].chunks if name in ready else 0,
                held.get(name, 0),
                ready[name].items if name in ready else 0,
                ready[name].tokens if name in ready else 0,
                ready[name].oldest_s if name in ready else 0.0,
                sum(name in each for each in served),
            )
            for name in sorted(names)
        ]


def piece_of(dialect: str, column: ColumnElement[Any], seconds: int) -> ColumnElement[Any]:
    """The number of the piece of time of so many seconds that a moment lies in, counted from 1970."""
    if dialect == "postgresql":
        return func.floor(func.extract("epoch", column) / literal(seconds))
    return cast(func.strftime("%s", column), Integer) // seconds


def _of_items(connection: Connection, failing: Sequence[tuple[UUID, datetime]]) -> list[FailureGroup]:
    """Failed items of these jobs, grouped."""
    found: dict[str, FailureGroup] = {}
    columns = (results.c.error_code, results.c.error)
    for job_id, at in failing:
        rows = items_of(connection, job_id, "error", columns, n_chunks=FAILING_CHUNKS, limit=FAILED_ITEMS)
        for code, count in Counter(row.error_code for row in rows).items():
            message = next(row.error or "" for row in rows if row.error_code == code)
            known = found.get(code, FailureGroup(code, message, 0, 0, ids.public(job_id), at))
            found[code] = known._replace(n_items=known.n_items + count, n_jobs=known.n_jobs + 1)
    return list(found.values())

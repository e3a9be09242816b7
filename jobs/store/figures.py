"""Figures of a whole deployment, for those who watch it."""

from typing import NamedTuple

from sqlalchemy import Connection, exists, func, select, text

from jobs.states import JobState
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.retention import NOT_GONE
from jobs.store.tables import chunks, deliveries, jobs, webhooks

_PENDING = text("chunks.state = 'pending'")
_WAITS = exists().where(chunks.c.job_id == jobs.c.id, _PENDING)
_STATES = select(jobs.c.state, func.count()).where(NOT_GONE).group_by(jobs.c.state)
_QUEUES = (
    select(chunks.c.queue, func.count(), func.sum(chunks.c.seq_hi - chunks.c.seq_lo), func.sum(chunks.c.cost))
    .where(_PENDING)
    .group_by(chunks.c.queue)
)
_OLDEST = (
    select(jobs.c.queue, func.min(jobs.c.sealed_at))
    .where(text("jobs.state IN ('queued', 'running')"), _WAITS)
    .group_by(jobs.c.queue)
)

_DELIVERIES = (
    select(func.count(), func.min(deliveries.c.created_at))
    .select_from(deliveries.join(webhooks))
    .where(text("deliveries.state = 'pending'"), webhooks.c.disabled_at.is_(None))
)


class Backlog(NamedTuple):
    """What of one queue is ready for workers."""

    queue: str
    chunks: int
    items: int
    tokens: int
    """Estimated."""
    oldest_s: float
    """How long the job that has waited longest has been ready."""


class Figures(NamedTuple):
    jobs: dict[str, int]
    """By state; every state is there."""
    backlogs: list[Backlog]
    deliveries: int
    """To webhooks in force, on their way."""
    undelivered_s: float
    """How long ago the event of the oldest of them was."""


def read(database: Database) -> Figures:
    """All of it, as it stands now. Raises StoreUnavailable."""

    def work(connection: Connection) -> Figures:
        moment = connection.execute(select(now())).scalar_one()
        counted: dict[str, int] = {row[0]: row[1] for row in connection.execute(_STATES)}
        oldest = {row[0]: (moment - row[1]).total_seconds() for row in connection.execute(_OLDEST)}
        backlogs = [
            Backlog(queue, int(count), int(items), int(cost), max(0.0, oldest.get(queue, 0.0)))
            for queue, count, items, cost in connection.execute(_QUEUES)
        ]
        waiting, oldest_at = connection.execute(_DELIVERIES).one()
        undelivered_s = 0.0 if oldest_at is None else max(0.0, (moment - oldest_at).total_seconds())
        states = {str(state): counted.get(state, 0) for state in JobState}
        return Figures(states, backlogs, waiting, undelivered_s)

    return database.read(work)

"""Jobs as callers see them: the row, and counts, rate and forecast from one aggregate over its chunks."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, func, select

from jobs.schemas import Counts, Job, JobUsage, Rate
from jobs.states import FINAL, Control, JobState
from jobs.store import ids
from jobs.store.clock import later, now
from jobs.store.retention import NOT_GONE
from jobs.store.tables import chunks, jobs

RECENT_S = 60.0
"""The rate of a live job is that of the chunks finished in this time, if there were any."""

_ITEMS = chunks.c.n_ok + chunks.c.n_error
_TOKENS = chunks.c.tokens_in + chunks.c.tokens_out
_RECENT = chunks.c.finished_at > later(-RECENT_S)
_SUMS = select(
    func.sum(chunks.c.n_ok),
    func.sum(chunks.c.n_error),
    func.sum(chunks.c.tokens_in),
    func.sum(chunks.c.tokens_out),
    func.sum(_ITEMS).filter(_RECENT),
    func.sum(_TOKENS).filter(_RECENT),
    func.count(chunks.c.finished_at).filter(_RECENT),
    func.count(chunks.c.finished_at),
).where(chunks.c.job_id == bindparam("job_id"))


NINE_IN_TEN = 1.645
"""Nine in ten of a normal distribution lie within so many standard deviations."""
LONGEST_S = 10 * 365 * 86_400.0


class Forecast(NamedTuple):
    """When a job will have ended."""

    at: datetime | None
    early_at: datetime | None
    late_at: datetime | None


UNKNOWN = Forecast(None, None, None)


class Tally(NamedTuple):
    """What the chunks of one job add up to."""

    ok: int
    error: int
    tokens_in: int
    tokens_out: int
    recent_items: int
    recent_tokens: int
    recent_chunks: int
    chunks: int


def read(connection: Connection, rows: Sequence[Row[Any]]) -> list[Job]:
    """The jobs of these rows of `jobs`, in their order."""
    if not rows:
        return []
    moment = connection.execute(select(now())).scalar_one()
    return [_job(row, _tally(connection, row.id), moment) for row in rows]


def fresh(row: Row[Any]) -> Job:
    """The job of this row, sealed in this very transaction, so that nobody has worked on it yet."""
    return _job(row, Tally(*[0] * len(Tally._fields)), row.sealed_at)


def _tally(connection: Connection, job_id: UUID) -> Tally:
    """One aggregate a job, not one for all: without statistics the planner would read the whole table for a list."""
    found = connection.execute(_SUMS, {"job_id": job_id}).one()
    return Tally(*(int(total or 0) for total in found))


def _job(row: Row[Any], tally: Tally, moment: datetime) -> Job:
    done = tally.ok + tally.error
    state, control = JobState(row.state), Control(row.control)
    rate = _rate(row, tally, moment)
    runs = state is JobState.RUNNING and control is Control.RUN
    known = (tally.recent_items, tally.recent_chunks) if tally.recent_items else (done, tally.chunks)
    forecast = _forecast(row.n_items - done, rate, known, moment) if runs else UNKNOWN
    return Job(
        id=ids.public(row.id),
        task=row.task,
        model=row.model,
        model_revision=row.model_revision,
        params=row.params,
        state=state,
        control=control,
        queue=row.queue,
        tenant=row.tenant,
        priority=row.priority,
        weight=row.weight,
        labels=row.labels,
        keep=tuple(row.keep),
        counts=Counts(total=row.n_items, ok=tally.ok, error=tally.error, pending=max(row.n_items - done, 0)),
        progress=done / row.n_items if row.n_items else float(state in FINAL),
        rate=rate,
        eta_at=forecast.at,
        eta_early_at=forecast.early_at,
        eta_late_at=forecast.late_at,
        first_eta_at=row.first_eta_at,
        usage=JobUsage(input_tokens=tally.tokens_in, output_tokens=tally.tokens_out),
        in_force=row.in_force,
        created_at=row.created_at,
        sealed_at=row.sealed_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        deadline_at=row.deadline_at,
        error=row.error,
        retry_of=ids.public(row.retry_of) if row.retry_of else None,
        webhook=row.webhook_id,
        schedule=None if row.schedule_run_id is None else str(row.schedule_run_id),
    )


def _rate(row: Row[Any], tally: Tally, moment: datetime) -> Rate:
    """Of the last minute while the job is live, of its whole life once it is final."""
    if row.started_at is None:
        return Rate()
    elapsed = ((row.finished_at or moment) - row.started_at).total_seconds()
    if row.finished_at is None and tally.recent_items:
        items, tokens, seconds = tally.recent_items, tally.recent_tokens, min(elapsed, RECENT_S)
    else:
        items, tokens, seconds = tally.ok + tally.error, tally.tokens_in + tally.tokens_out, elapsed
    seconds = max(seconds, 0.001)
    return Rate(items_per_s=round(items / seconds, 3), tokens_per_s=round(tokens / seconds, 3))


def _forecast(left: int, rate: Rate, known: tuple[int, int], moment: datetime) -> Forecast:
    """When the rest is done at this rate, which is `known` from so many items in so many chunks.

    Chunks that end are taken for events of a Poisson process: nine times in ten the logarithm of the time that m more
    of them take is known to 1.64 x sqrt(1/n + 1/m) when n have been seen.
    """
    items, n_chunks = known
    if not rate.items_per_s or not items:
        return UNKNOWN
    n_chunks = max(1, n_chunks)  # a long chunk saves results before its end
    more = max(1.0, left * n_chunks / items)
    factor = math.exp(NINE_IN_TEN * math.sqrt(1 / n_chunks + 1 / more))
    seconds = left / rate.items_per_s
    early, late = seconds / factor, seconds * factor
    return Forecast(*(moment + timedelta(seconds=min(each, LONGEST_S)) for each in (seconds, early, late)))


def by_prefix(connection: Connection, text: str) -> list[Row[Any]]:
    """Up to three rows of `jobs` whose id begins so, oldest first."""
    low, high = ids.span(text)
    wanted = select(jobs).where(jobs.c.id.between(low, high), NOT_GONE).order_by(jobs.c.id).limit(3)
    return list(connection.execute(wanted))

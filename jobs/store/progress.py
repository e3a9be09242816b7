"""Jobs as callers see them: the row, and counts, rate and forecast from one aggregate over its chunks."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, func, select

from jobs.schemas import Counts, Job, JobUsage, Rate
from jobs.states import FINAL, CanaryState, Control, JobState
from jobs.store import canaries, ids
from jobs.store.clock import later, now
from jobs.store.rates import LONGEST_S, NINE_IN_TEN
from jobs.store.retention import NOT_GONE
from jobs.store.tables import Utc, chunks, jobs

RECENT_S = 60.0
"""The rate of a live job is that of the chunks finished in this time, if there were any."""

_ITEMS = chunks.c.n_ok + chunks.c.n_error
_TOKENS = chunks.c.tokens_in + chunks.c.tokens_out
_ENDED = func.count(chunks.c.finished_at)
_RECENT = chunks.c.finished_at > later(-RECENT_S)
_SINCE = chunks.c.finished_at > bindparam("since", type_=Utc())


def _sums(*more: ColumnElement[Any]) -> Select[Any]:
    columns = (chunks.c.n_ok, chunks.c.n_error, chunks.c.tokens_in, chunks.c.tokens_out)
    return select(*map(func.sum, columns), *more).where(chunks.c.job_id == bindparam("job_id"))


def _pace(which: ColumnElement[bool]) -> tuple[ColumnElement[Any], ...]:
    return func.sum(_ITEMS).filter(which), func.sum(_TOKENS).filter(which), _ENDED.filter(which)


_SUMS = _sums(*_pace(_RECENT), _ENDED)
_SUMS_SINCE = _sums(*_pace(_RECENT & _SINCE), *_pace(_SINCE))
"""Of a job that rested: what it did before tells nothing of its rate, least of all a canary."""


class Forecast(NamedTuple):
    """When a job will have ended."""

    at: datetime | None
    early_at: datetime | None
    late_at: datetime | None


UNKNOWN = Forecast(None, None, None)


class Pace(NamedTuple):
    """What was done in some time."""

    items: int
    tokens: int
    chunks: int


class Tally(NamedTuple):
    """What the chunks of one job add up to."""

    ok: int
    error: int
    tokens_in: int
    tokens_out: int
    recent: Pace
    whole: Pace
    """Since the job went on, if it rested."""


def read(connection: Connection, rows: Sequence[Row[Any]]) -> list[Job]:
    """The jobs of these rows of `jobs`, in their order."""
    if not rows:
        return []
    moment = connection.execute(select(now())).scalar_one()
    return [_job(row, _tally(connection, row), moment) for row in rows]


def fresh(row: Row[Any]) -> Job:
    """The job of this row, sealed in this very transaction, so that nobody has worked on it yet."""
    return _job(row, Tally(0, 0, 0, 0, Pace(0, 0, 0), Pace(0, 0, 0)), row.sealed_at)


def _tally(connection: Connection, row: Row[Any]) -> Tally:
    """One aggregate a job, not one for all: without statistics the planner would read the whole table for a list."""
    if row.went_on_at is None or row.finished_at is not None:
        found = [int(total or 0) for total in connection.execute(_SUMS, {"job_id": row.id}).one()]
        whole = Pace(found[0] + found[1], found[2] + found[3], found[7])
    else:
        since = {"job_id": row.id, "since": row.went_on_at}
        found = [int(total or 0) for total in connection.execute(_SUMS_SINCE, since).one()]
        whole = Pace(*found[7:])
    ok, error, tokens_in, tokens_out = found[:4]
    return Tally(ok, error, tokens_in, tokens_out, Pace(*found[4:7]), whole)


def _job(row: Row[Any], tally: Tally, moment: datetime) -> Job:
    done = tally.ok + tally.error
    state, control = JobState(row.state), Control(row.control)
    rate = _rate(row, tally, moment)
    # What a canary does tells little of the rest, which may wait for days.
    runs = state is JobState.RUNNING and control is Control.RUN and row.canary_state != CanaryState.RUNNING
    known = tally.recent if tally.recent.items else tally.whole
    forecast = _forecast(row.n_items - done, rate, (known.items, known.chunks), moment) if runs else UNKNOWN
    late_by_s = _late_by_s(forecast, row.deadline_at)
    usage = JobUsage(input_tokens=tally.tokens_in, output_tokens=tally.tokens_out)
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
        usage=usage,
        in_force=row.in_force,
        created_at=row.created_at,
        sealed_at=row.sealed_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        deadline_at=row.deadline_at,
        late=late_by_s is not None,
        late_by_s=late_by_s,
        canary=canaries.read(row, tally.ok, tally.error, usage),
        max_error_share=row.max_error_share,
        errors_after=row.errors_after,
        on_errors=row.on_errors,
        error=row.error,
        retry_of=ids.public(row.retry_of) if row.retry_of else None,
        webhook=row.webhook_id,
        schedule=None if row.schedule_run_id is None else str(row.schedule_run_id),
    )


def _rate(row: Row[Any], tally: Tally, moment: datetime) -> Rate:
    """Of the last minute while the job is live (and goes on, if it rested meanwhile), of its whole life once it is
    final."""
    if row.started_at is None:
        return Rate()
    since = row.started_at if row.finished_at is not None else max(row.started_at, row.went_on_at or row.started_at)
    elapsed = ((row.finished_at or moment) - since).total_seconds()
    recently = row.finished_at is None and tally.recent.items > 0
    pace = tally.recent if recently else tally.whole
    seconds = max(min(elapsed, RECENT_S) if recently else elapsed, 0.001)
    return Rate(items_per_s=round(pace.items / seconds, 3), tokens_per_s=round(pace.tokens / seconds, 3))


def _forecast(left: int, rate: Rate, known: tuple[int, int], moment: datetime) -> Forecast:
    """When the rest is done at this rate, which is `known` from so many items in so many chunks.

    Chunks that end are taken for events of a Poisson process: nine times in ten the logarithm of the time that m more
    of them take is known to 1.64 x sqrt(1/n + 1/m) when n have been seen.
    """
    items, n_chunks = known[0], max(known[1], 1)  # a first chunk that saves as it goes has not ended yet
    if not rate.items_per_s or not items:
        return UNKNOWN
    more = max(1.0, left * n_chunks / items)
    factor = math.exp(NINE_IN_TEN * math.sqrt(1 / n_chunks + 1 / more))
    seconds = left / rate.items_per_s
    early, late = seconds / factor, seconds * factor
    return Forecast(*(moment + timedelta(seconds=min(each, LONGEST_S)) for each in (seconds, early, late)))


def _late_by_s(forecast: Forecast, deadline_at: datetime | None) -> float | None:
    """By how much the deadline will be missed; None: it will not, or nobody knows."""
    if forecast.at is None or deadline_at is None or forecast.at <= deadline_at:
        return None
    return round((forecast.at - deadline_at).total_seconds(), 3)


def by_prefix(connection: Connection, text: str) -> list[Row[Any]]:
    """Up to three rows of `jobs` whose id begins so, oldest first."""
    low, high = ids.span(text)
    wanted = select(jobs).where(jobs.c.id.between(low, high), NOT_GONE).order_by(jobs.c.id).limit(3)
    return list(connection.execute(wanted))

"""Jobs that are looked after while they run: those with a canary, and those with an error budget."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, func, select, update

from jobs.errors import UnknownJob
from jobs.schemas import Job, TimeEstimate
from jobs.states import FINAL, CanaryState, ChunkState, Control, JobState
from jobs.store import canaries, exports, ids, outbox, rates, rows
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.tables import SUPERVISED, chunks, jobs

AT_ONCE = 50
"""Jobs that one round looks at, others each time: the counts of each are a sum over its chunks."""

Outcome = Literal["failed", "paused", "waiting", "went_on"]


DUE = select(jobs).where(SUPERVISED).order_by(func.random()).limit(AT_ONCE)
"""A few supervised jobs."""


class Tally(NamedTuple):
    ok: int
    error: int


class Supervision:
    """What becomes of supervised jobs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def due(self) -> Sequence[str]:
        """Jobs that `settle` may have something to do about: their canary is done, or their error budget spent."""

        def work(connection: Connection) -> Sequence[str]:
            found = connection.execute(DUE).all()
            return [ids.public(job.id) for job in found if _spent(connection, job) or _canary_done(connection, job)]

        return self._db.read(work)

    def settle(self, job_id: str) -> Outcome | None:
        """Pause or fail a job that has spent its error budget; let the rest follow a canary that is done, or wait for
        approval. What was done; None: there was nothing to do (any more). Safe to repeat."""

        def work(connection: Connection) -> Outcome | None:
            try:
                job = rows.locked(connection, job_id)
            except UnknownJob:  # it has ended since it was found, and was deleted
                return None
            if job.state in FINAL or job.sealed_at is None:
                return None
            if spent := _spent(connection, job):
                return self._stop(connection, job, spent)
            done = canaries.passed(connection, job) if job.canary_state == CanaryState.RUNNING else ()
            return _judge(connection, job, done) if done else None

        return self._db.write(work)

    def approve(self, job_id: str) -> Job:
        """The job, with its rest released, whether its canary is done or not. Safe to repeat. Raises InvalidState for a
        job that has no canary, or has ended."""

        def work(connection: Connection) -> Job:
            job = rows.locked(connection, job_id)
            rows.require(job, job.canary_state is not None, "has no canary to approve of")
            if job.canary_state == CanaryState.PASSED:
                return rows.read(connection, job.id)
            rows.require(job, job.state not in FINAL, "cannot go on")
            paused = job.control == Control.PAUSE and job.canary_state == CanaryState.RUNNING
            job = _set(connection, job, canary_state=CanaryState.PASSED)
            if job.sealed_at is not None and not paused:
                go_on(connection, job)
            return rows.read(connection, job.id)

        return self._db.write(work)

    def expected(self, task: str, model: str, cost: int, n_chunks: int) -> TimeEstimate | None:
        """How long work of this cost takes, by past jobs of the task on the model. None: there were none."""
        found = self._db.read(lambda connection: rates.past(connection, task, model))
        if found is None:
            return None
        return rates.estimate(found.pace, cost, n_chunks, spread=found.spread, jobs=found.jobs)

    def _stop(self, connection: Connection, job: Row[Any], why: str) -> Outcome:
        if job.on_errors == "fail":
            rows.end(connection, job, JobState.FAILED, error=why)
            outbox.job_ended(self._db, connection, job, JobState.FAILED, why)
            exports.job_ended(connection, job, JobState.FAILED)
            return "failed"
        hold(connection, job, error=f"paused: {why}")
        return "paused"


def go_on(connection: Connection, job: Row[Any]) -> None:
    """Let a sealed, locked job go on. If it was its error budget that paused it, that is counted anew from here."""
    values: dict[str, Any] = {"control": Control.RUN, "went_on_at": now(), "turn": canaries.go_on(connection, job)}
    if job.error is not None:
        ok, error = _tally(connection, job)
        values |= {"error": None, "forgiven_ok": ok, "forgiven_error": error}
    _set(connection, job, **values)


def hold(connection: Connection, job: Row[Any], **values: Any) -> None:
    """Pause a locked job: nothing of it is claimed, running chunks are released by their workers."""
    _set(connection, job, control=Control.PAUSE, **values)
    rows.move_chunks(connection, job.id, [ChunkState.PENDING], {"state": ChunkState.HELD})


def _set(connection: Connection, job: Row[Any], **values: Any) -> Row[Any]:
    return connection.execute(update(jobs).where(jobs.c.id == job.id).values(**values).returning(jobs)).one()


def _judge(connection: Connection, job: Row[Any], done: Sequence[Row[Any]]) -> Outcome:
    """What follows a canary whose chunks these are. An owner who paused the job meanwhile still has to resume it."""
    figures = canaries.figures(connection, job, done)
    kept = {**job.canary, "figures": figures}
    if not (job.canary["go_on"] and _good(job, Tally(figures["ok"], figures["error"]))):
        hold(connection, job, canary=kept, canary_state=CanaryState.WAITING)
        return "waiting"
    job = _set(connection, job, canary=kept, canary_state=CanaryState.PASSED)
    if job.control == Control.RUN:
        go_on(connection, job)
    return "went_on"


def _good(job: Row[Any], tally: Tally) -> bool:
    """Whether a canary is good enough for the rest to follow by itself."""
    total = tally.ok + tally.error
    return tally.error < total if job.max_error_share is None else tally.error <= job.max_error_share * total


def _spent(connection: Connection, job: Row[Any]) -> str | None:
    """In what way more items have failed than may; None: they have not, or the job rests already."""
    if job.max_error_share is None or (job.control == Control.PAUSE and job.on_errors == "pause"):
        return None
    ok, error = _tally(connection, job)
    ok, error = ok - (job.forgiven_ok or 0), error - (job.forgiven_error or 0)
    total = ok + error
    if total < job.errors_after or error <= job.max_error_share * total:
        return None
    since = " since it was resumed" if job.forgiven_ok is not None else ""
    most = f"more than the {job.max_error_share:.4g} that may"
    return f"{error:,} of {total:,} items failed{since} ({error / total:.3g}), {most}"


def _canary_done(connection: Connection, job: Row[Any]) -> bool:
    return job.canary_state == CanaryState.RUNNING and bool(canaries.passed(connection, job))


def _tally(connection: Connection, job: Row[Any]) -> Tally:
    sums = select(func.sum(chunks.c.n_ok), func.sum(chunks.c.n_error)).where(chunks.c.job_id == job.id)
    return Tally(*(int(total or 0) for total in connection.execute(sums).one()))

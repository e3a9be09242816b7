"""The canary in the tables: its items become chunks of their own, which alone are released at first."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, insert, select, update

from jobs.errors import InvalidState
from jobs.schemas import Canary, JobUsage, TimeEstimate
from jobs.states import CanaryState, ChunkState
from jobs.store import ids, rates, turns
from jobs.store.tables import chunks
from jobs.store.values import Pick

AT_ONCE = timedelta(milliseconds=20)
"""Chunks that end within so short a time were saved together."""
MUCH_MORE = 10
"""Past jobs that did so many times a canary's work know more of the rate than the canary, which is small batches."""

_COPIED = ("job_id", "block_id", "tenant", "queue", "model", "priority", "state")


def cut_out(connection: Connection, job: Row[Any], picks: Sequence[Pick], n_items: int) -> dict[str, Any]:
    """Give each item of the canary a chunk of its own; the job's columns that change with it.

    A canary of all its items has passed already: there is no rest that could wait. Raises InvalidState without picks,
    when a job that was begun with a canary is gone on with by somebody who knows of none.
    """
    if job.canary_state != CanaryState.RUNNING:
        return {}
    if not picks:
        told = f"was begun with a canary of {job.canary['items']} items; go on with the same"
        raise InvalidState(f"job {ids.public(job.id)} {told}")
    canary = {**job.canary, "items": len(picks), "seqs": [pick.seq for pick in picks]}
    if len(picks) == n_items:
        return {"canary": canary, "canary_state": CanaryState.PASSED}
    for pick in picks:
        _cut_out(connection, job.id, pick)
    return {"canary": canary}


def go_on(connection: Connection, job: Row[Any]) -> float:
    """Release what may be claimed now: the canary, as long as it runs, else everything. Gives the job's turn."""
    running = job.canary_state == CanaryState.RUNNING
    return turns.release(connection, job, job.canary["seqs"] if running else None)


def passed(connection: Connection, job: Row[Any]) -> Sequence[Row[Any]]:
    """The chunks of a canary, in the order they ended; none as long as one of its items has no result."""
    wanted = select(chunks).where(chunks.c.job_id == job.id, chunks.c.seq_lo.in_(job.canary["seqs"]))
    found = connection.execute(wanted.where(chunks.c.state == ChunkState.DONE).order_by(chunks.c.finished_at)).all()
    return found if len(found) == len(job.canary["seqs"]) else ()


def figures(connection: Connection, job: Row[Any], done: Sequence[Row[Any]]) -> dict[str, Any]:
    """What came of a canary with these chunks, as it is kept with the job."""
    rest = _rest(connection, job, done)
    return {
        "ok": sum(chunk.n_ok for chunk in done),
        "error": sum(chunk.n_error for chunk in done),
        "input_tokens": sum(chunk.tokens_in for chunk in done),
        "output_tokens": sum(chunk.tokens_out for chunk in done),
        "rest": None if rest is None else rest.model_dump(),
    }


def read(job: Row[Any], ok: int, error: int, usage: JobUsage) -> Canary | None:
    """The canary of a job as callers see it; the counts are those of the whole job, which only it adds to at first."""
    if job.canary is None:
        return None
    kept, rest = job.canary.get("figures"), None
    if kept is not None:
        ok, error = kept["ok"], kept["error"]
        usage = JobUsage(input_tokens=kept["input_tokens"], output_tokens=kept["output_tokens"])
        rest = None if kept["rest"] is None else TimeEstimate(**kept["rest"])
    elif job.canary_state == CanaryState.PASSED:
        ok, error, usage = 0, 0, JobUsage()
    return Canary(
        state=CanaryState(job.canary_state),
        items=job.canary["items"],
        go_on=job.canary["go_on"],
        ok=ok,
        error=error,
        error_share=round(error / (ok + error), 6) if error else 0.0,
        usage=usage,
        rest=rest,
    )


def _cut_out(connection: Connection, job_id: UUID, pick: Pick) -> None:
    """The chunk that holds the item keeps what is before it; the item and what is behind it become new ones."""
    around = select(chunks).where(chunks.c.job_id == job_id, chunks.c.seq_lo <= pick.seq)
    chunk = connection.execute(around.order_by(chunks.c.seq_lo.desc()).limit(1)).one()
    left = max(chunk.cost - pick.cost, 0)
    spans = [(chunk.seq_lo, pick.seq), (pick.seq, pick.seq + 1), (pick.seq + 1, chunk.seq_hi)]
    others = max(chunk.seq_hi - chunk.seq_lo - 1, 1)
    parts = [
        {"seq_lo": lo, "seq_hi": hi, "cost": pick.cost if lo == pick.seq else left * (hi - lo) // others}
        for lo, hi in spans
        if lo < hi
    ]
    connection.execute(update(chunks).where(chunks.c.id == chunk.id).values(**parts[0]))
    shared = {name: getattr(chunk, name) for name in _COPIED}
    for part in parts[1:]:
        connection.execute(insert(chunks).values(**shared, **part))


def _rest(connection: Connection, job: Row[Any], done: Sequence[Row[Any]]) -> TimeEstimate | None:
    held = select(func.sum(chunks.c.cost), func.count(), func.sum(chunks.c.seq_hi - chunks.c.seq_lo))
    cost, n_chunks, n_items = connection.execute(
        held.where(chunks.c.job_id == job.id, chunks.c.state == ChunkState.HELD)
    ).one()
    if not n_chunks:
        return None
    (own, steady), before = _pace(done), rates.past(connection, job.task, job.model)
    if before is not None and before.pace.cost >= MUCH_MORE * own.cost:
        return rates.estimate(before.pace, int(cost), n_chunks, spread=before.spread, jobs=before.jobs)
    found = rates.estimate(own, int(cost), int(n_items))
    return found if steady else found.model_copy(update={"early_s": 0.0})


def _pace(done: Sequence[Row[Any]]) -> tuple[rates.Pace, bool]:
    """What ended behind the first save took the time since then, without that of loading the model. Where that is less
    than half of the work, all of it counts, from the first claim on; False: so the rest may be much quicker."""
    first, last = done[0].finished_at, done[-1].finished_at
    later = [chunk for chunk in done if chunk.finished_at > first + AT_ONCE]
    steady = 2 * sum(chunk.cost for chunk in later) >= sum(chunk.cost for chunk in done)
    if not steady:
        later, first = list(done), min(chunk.started_at for chunk in done)
    seconds = max((last - first).total_seconds(), rates.SHORTEST_S)
    return rates.Pace(sum(chunk.cost for chunk in later), seconds, len(later)), steady

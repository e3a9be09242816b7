"""The rows of one job inside a transaction: found, locked, refused, filled, ended."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, select, text, update

from jobs.errors import InvalidState, UnknownJob
from jobs.schemas import Job, JobSpec
from jobs.states import LIVE, CanaryState, ChunkState, Control, JobState
from jobs.store import ids, progress, seen
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.retention import NOT_GONE
from jobs.store.tables import blocks, chunks, jobs
from jobs.store.values import NewBlock

LIVE_JOBS = text("jobs.state IN ('queued', 'running')")
"""Spelled out, not bound, so that the planner sees that the partial index of live jobs will do."""

FINISHABLE: tuple[Any, ...] = (
    LIVE_JOBS,
    # The last items are done last: looking from the end finds a live chunk at once.
    select(chunks.c.id)
    .where(chunks.c.job_id == jobs.c.id, text("chunks.state IN ('held', 'pending', 'running')"))
    .order_by(chunks.c.seq_lo.desc())
    .limit(1)
    .scalar_subquery()
    .is_(None),
)


def live_jobs() -> Select[Any]:
    return select(jobs).where(LIVE_JOBS)


def find(connection: Connection, condition: ColumnElement[bool]) -> Row[Any] | None:
    return connection.execute(select(jobs).where(condition)).one_or_none()


def locked(connection: Connection, job_id: str) -> Row[Any]:
    """The job's row, locked for the rest of the transaction. Jobs are locked before chunks, always."""
    wanted = select(jobs).where(jobs.c.id == ids.parse(job_id), NOT_GONE)
    row = connection.execute(wanted.with_for_update()).one_or_none()
    if row is None:
        raise UnknownJob(f"no job {job_id!r}")
    return row


def only(wanted: str, rows: Sequence[Row[Any]]) -> Row[Any]:
    """The one row, of those found for an id or prefix."""
    if not rows:
        raise UnknownJob(f"no job {wanted!r}")
    if len(rows) > 1:
        found = ", ".join(ids.public(row.id) for row in rows[:2])
        raise UnknownJob(f"several jobs begin with {wanted!r}: {found}, ...")
    return rows[0]


def require(job: Row[Any], allowed: bool, refusal: str) -> None:
    """Raises InvalidState unless the move is allowed."""
    if not allowed:
        raise InvalidState(f"job {ids.public(job.id)} is {job.state} and {refusal}")


def read(connection: Connection, job_id: UUID) -> Job:
    """The job as callers see it, as this transaction has left it."""
    return progress.read(connection, connection.execute(select(jobs).where(jobs.c.id == job_id)).all())[0]


def columns(spec: JobSpec, request_hash: bytes, model_revision: str | None) -> dict[str, Any]:
    """The row of a new job, with an id of its own."""
    given = spec.model_dump(include={"task", "model", "params", "queue", "tenant", "priority", "weight", "labels"})
    return {
        **given,
        "id": ids.new_id(),
        "idempotency_key": spec.idempotency_key,
        "keep": list(spec.keep),
        "deadline_at": spec.deadline_at,
        "retry_of": ids.parse(spec.retry_of) if spec.retry_of else None,
        "webhook_id": spec.webhook,
        "traceparent": spec.traceparent,
        "schedule_run_id": spec.schedule_run,
        "request_hash": request_hash,
        "model_revision": model_revision,
        "state": JobState.LOADING,
        "control": Control.RUN,
        **(_supervised(spec) if spec.canary is not None or spec.max_error_share is not None else {}),
    }


def _supervised(spec: JobSpec) -> dict[str, Any]:
    values = dict[str, Any]()
    if spec.canary is not None:
        values |= {"canary": {"items": spec.canary, "go_on": spec.go_on}, "canary_state": CanaryState.RUNNING}
    if spec.max_error_share is not None:
        values |= spec.model_dump(include={"max_error_share", "errors_after", "on_errors"})
    return values


def check_partition(block: NewBlock) -> None:
    """Raises ValueError unless the block's chunks cover it without gap or overlap."""
    at = block.seq_lo
    for chunk in block.chunks:
        if chunk.seq_lo != at or chunk.seq_hi <= at:
            raise ValueError(f"chunks of the block at item {block.seq_lo} do not meet at item {at}")
        at = chunk.seq_hi
    if at != block.seq_lo + block.n_items:
        raise ValueError(f"chunks of the block at item {block.seq_lo} end at {at}")


def check_whole(whole: Sequence[NewBlock]) -> int:
    """How many items these blocks hold together. Raises ValueError unless they follow each other from item 0 on."""
    at = 0
    for block in whole:
        if block.seq_lo != at:
            raise ValueError(f"the block at item {block.seq_lo} does not follow item {at}")
        check_partition(block)
        at += block.n_items
    return at


def known_blocks(connection: Connection, job_id: UUID, starts: Sequence[int]) -> dict[int, bytes]:
    """Hashes by `seq_lo` of those of these blocks that are there."""
    wanted = select(blocks.c.seq_lo, blocks.c.sha256).where(blocks.c.job_id == job_id, blocks.c.seq_lo.in_(starts))
    return {row.seq_lo: bytes(row.sha256) for row in connection.execute(wanted)}


def insert_blocks(
    database: Database,
    connection: Connection,
    job: Row[Any],
    new: Sequence[NewBlock],
    turns: Sequence[float] | None = None,
) -> None:
    """Write blocks, and their chunks: as held, or pending, with these turns."""
    data = [{**block._asdict(), "job_id": job.id} for block in new]
    for row in data:
        del row["chunks"], row["seen"]
    added = insert(blocks).values(created_at=now()).returning(blocks.c.seq_lo, blocks.c.id)
    block_ids = {row.seq_lo: row.id for row in connection.execute(added, data)}
    shared = {"job_id": job.id, "tenant": job.tenant, "queue": job.queue, "priority": job.priority}
    written = [
        {**shared, **chunk._asdict(), "model": chunk.model or job.model, "block_id": block_ids[block.seq_lo]}
        for block in new
        for chunk in block.chunks
    ]
    for at, row in enumerate(written):
        row |= {"state": ChunkState.HELD} if turns is None else {"state": ChunkState.PENDING, "turn": turns[at]}
    connection.execute(insert(chunks), written)
    seen.insert(database, connection, job.tenant, job.id, [block.seen for block in new if block.seen is not None])


def blocks_after(connection: Connection, job_id: UUID, after: int, limit: int) -> Sequence[Any]:
    """The next blocks of a job behind the one that begins at item `after`."""
    wanted = select(blocks.c.seq_lo, blocks.c.encoding, blocks.c.data).order_by(blocks.c.seq_lo).limit(limit)
    return connection.execute(wanted.where(blocks.c.job_id == job_id, blocks.c.seq_lo > after)).all()


def gapless(connection: Connection, job: Row[Any]) -> int:
    """How many items the job has. Raises InvalidState if blocks are missing or overlap."""
    wanted = select(blocks.c.seq_lo, blocks.c.n_items).where(blocks.c.job_id == job.id).order_by(blocks.c.seq_lo)
    at = 0
    for seq_lo, n_items in connection.execute(wanted):
        require(job, seq_lo == at, f"cannot be sealed: item {min(at, seq_lo)} is missing or doubled")
        at += n_items
    return at


def count_chunks(connection: Connection, job_id: UUID) -> int:
    return int(
        connection.execute(select(func.count()).select_from(chunks).where(chunks.c.job_id == job_id)).scalar_one()
    )


def end(connection: Connection, job: Row[Any], state: JobState, **values: Any) -> None:
    """Bring a locked job into a final state, its live chunks with it; their workers learn of it when they renew."""
    final = update(jobs).where(jobs.c.id == job.id).values(state=state, finished_at=now(), **values)
    connection.execute(final)
    cancelled = {"state": ChunkState.CANCELLED, "lease_until": None, "finished_at": now()}
    move_chunks(connection, job.id, LIVE, cancelled)


def move_chunks(
    connection: Connection, job_id: UUID, states: Sequence[str] | frozenset[str], values: dict[str, Any]
) -> None:
    """Change the job's chunks that are in one of these states, locking them in the order every other writer does."""
    wanted = select(chunks.c.id).where(chunks.c.job_id == job_id, chunks.c.state.in_(sorted(states)))
    mine = wanted.order_by(chunks.c.id).with_for_update().cte("mine")
    connection.execute(update(chunks).where(chunks.c.id.in_(select(mine.c.id))).values(**values))

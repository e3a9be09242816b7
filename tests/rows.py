"""Jobs, blocks and results for tests of the store, and its rows as seen from outside."""

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import text, update

from jobs.schemas import Counts, Job, JobSpec
from jobs.states import JobState
from jobs.store import Store
from jobs.store.clock import later
from jobs.store.tables import chunks
from jobs.store.values import Claim, NewBlock, NewChunk, ResultRow, Save

_AGE = "SELECT pg_sleep(greatest(0, :seconds - extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())))"
"""Waits, once a session, until the server is so old: a lease that began before it was up is nobody's fault."""


def block(seq_lo: int, n_items: int, *, per_chunk: int = 5, cost: int = 10, lines: Sequence[bytes] = ()) -> NewBlock:
    """A block of items `{"text": "<seq>"}`, or of these lines; `cost` is that of one item."""
    items = lines or [orjson.dumps({"text": str(seq)}) for seq in range(seq_lo, seq_lo + n_items)]
    data = b"\n".join(items)
    seq_hi = seq_lo + n_items
    spans = [(at, min(at + per_chunk, seq_hi)) for at in range(seq_lo, seq_hi, per_chunk)]
    new = tuple(NewChunk(low, high, cost * (high - low)) for low, high in spans)
    return NewBlock(seq_lo, n_items, "jsonl+zlib", hashlib.sha256(data).digest(), zlib.compress(data), new)


def spec(**given: Any) -> JobSpec:
    return JobSpec(**{"task": "classify", "model": "fake", **given})


def running_job(**fields: Any) -> Job:
    """A job as a client sees it, that no store has."""
    defaults: dict[str, Any] = {
        "id": "job_0199" + "a" * 28,
        "task": "classify",
        "model": "fake",
        "state": JobState.RUNNING,
        "counts": Counts(total=1000, ok=412, error=3, pending=585),
        "progress": 0.415,
        "created_at": datetime(2026, 11, 23, tzinfo=UTC),
    }
    return Job(**defaults | fields)


def loading_job(store: Store, **given: Any) -> Job:
    return store.jobs.create(spec(**given), request_hash=b"hash")[0]


def queued_job(store: Store, n_items: int = 20, *, per_chunk: int = 5, cost: int = 10, **given: Any) -> Job:
    """A sealed job of one block."""
    job = loading_job(store, **given)
    store.jobs.append(job.id, [block(0, n_items, per_chunk=per_chunk, cost=cost)])
    return store.jobs.seal(job.id)


def claim(store: Store, *, chunks: int = 1, worker_id: str = "w1", queue: str = "default", **given: Any) -> list[Claim]:
    """Claims one chunk after another, as a worker does that looks ahead no further than a chunk."""
    wish = {"cost": 1, "items": 1, "loaded": [], "lease_s": 60.0, **given}
    taken: list[Claim] = []
    while len(taken) < chunks and (more := store.chunks.claim(worker_id=worker_id, queue=queue, **wish)):
        taken += more
    return taken


def ok(seq: int, **given: Any) -> ResultRow:
    row = ResultRow(seq, str(seq), "ok", '{"labels":[]}', None, None, None, 3, 1, 0, 1, None)
    return row._replace(**given)


def failed(seq: int, code: str = "empty_text", message: str = "it is empty") -> ResultRow:
    return ResultRow(seq, str(seq), "error", None, None, code, message, 0, 0, 0, 1, None)


def done(held: Claim, seqs: Iterable[int] | None = None) -> Save:
    """The last save of a chunk, with results of all its items or of these."""
    rows = [ok(seq) for seq in (range(held.seq_lo, held.seq_hi) if seqs is None else seqs)]
    return Save(held.chunk_id, held.token, rows, done=True)


def part(held: Claim, seqs: Iterable[int]) -> Save:
    """Results of some items of a chunk that goes on."""
    return Save(held.chunk_id, held.token, [ok(seq) for seq in seqs], done=False)


def complete(store: Store, held: Claim) -> None:
    """Save results of all its items."""
    store.chunks.save([done(held)])


def tokens(held: Iterable[Claim]) -> dict[int, str]:
    return {claimed.chunk_id: claimed.token for claimed in held}


def run_dry(store: Store, **given: Any) -> None:
    """Claim and save until nothing is left, then finish what can be."""
    while held := store.chunks.claim(
        **{"worker_id": "w", "queue": "default", "cost": 10**9, "items": 10**6, "loaded": [], **given}
    ):
        store.chunks.save([_rest(store, claimed) for claimed in held])
    for job_id in store.jobs.finishable():
        store.jobs.finish(job_id)


def _rest(store: Store, held: Claim) -> Save:
    have = store.results.have(held.job_id, held.seq_lo, held.seq_hi)
    return done(held, [seq for seq in range(held.seq_lo, held.seq_hi) if seq not in have])


def fall_silent(store: Store, held: Iterable[Claim], *, ago_s: float = 0.5, lease_s: float = 5.0) -> None:
    """As if these chunks had been claimed for so long, and their lease had ended so long ago."""
    ended = update(chunks).where(chunks.c.id.in_([claimed.chunk_id for claimed in held]))
    values = {"lease_s": lease_s, "lease_until": later(-ago_s)}
    if store.dialect == "postgresql" and lease_s < 60:
        rows(store, _AGE, seconds=lease_s + ago_s + 0.5)
    store._db.write(lambda connection: connection.execute(ended.values(**values)))


def crash(store: Store, *, chunks: int = 1, worker_id: str = "w1") -> list[Claim]:
    """Claim chunks, and have upkeep find their worker dead."""
    held = claim(store, chunks=chunks, worker_id=worker_id)
    fall_silent(store, held)
    store.chunks.reap()
    return held


def rows(store: Store, query: str, **values: Any) -> list[Any]:
    """What a query finds in the tables."""
    return store._db.read(lambda connection: list(connection.execute(text(query), values)))


def chunk_states(store: Store) -> list[str]:
    """The state of every chunk, by id."""
    return [row.state for row in rows(store, "SELECT state FROM chunks ORDER BY id")]

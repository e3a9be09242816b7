"""What becomes of chunks whose worker fell silent: back in line, split in two, or one item called poison.

A chunk that crashed once is a suspect and is run alone. At its second crash it is halved, and the halves are suspects
too, so that an item that kills its worker is alone after 2 + log2(n) restarts at most.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, text, update

from jobs.errors import ItemErrorCode
from jobs.states import ChunkState, Control
from jobs.store import encoding, saving
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.tables import blocks, chunks, jobs, results
from jobs.store.values import Reaped, ResultRow

Watched = Callable[[], float | None]
"""How long ago the last silence of the database ended; None: there was none."""
CRASH_LIMIT = 2
"""At this many crashes a chunk is no longer run as it is."""

SILENT = "its worker fell silent before the lease ended"
POISON = "this item ended its worker's process {} times"
DONE = {"state": ChunkState.DONE, "finished_at": now()}
_EXPIRED = text("chunks.state = 'running'")


def reap(database: Database, connection: Connection, *, limit: int, watched_s: Watched) -> Reaped:
    """Deal with up to `limit` expired leases. Locks jobs before chunks, and looks again under the lock.

    `watched_s` is asked once the chunks could be read: someone may have locked the table all the while.
    """
    done: Counter[str] = Counter()
    held = _lock_jobs(connection, limit)
    if not held:
        return Reaped(0, 0, 0, 0)
    for chunk in _lock_expired(connection, list(held), limit, _unblamed(database, watched_s())):
        back = ChunkState.HELD if held[chunk.job_id] == Control.PAUSE else ChunkState.PENDING
        if chunk.unblamed:
            change(connection, chunk, state=back)
            done["unblamed"] += 1
        else:
            done[settle(database, connection, chunk, back)] += 1
    return Reaped(**{name: done[name] for name in Reaped._fields})


def _lock_jobs(connection: Connection, limit: int) -> dict[UUID, str]:
    """The control of each job with expired chunks; pause and cancel wait until we are through."""
    silent = select(chunks.c.job_id).where(_EXPIRED, chunks.c.lease_until < now()).limit(limit)
    wanted = select(jobs.c.id, jobs.c.control).where(jobs.c.id.in_(silent)).order_by(jobs.c.id)
    return {row.id: row.control for row in connection.execute(wanted.with_for_update(read=True))}


def _lock_expired(
    connection: Connection, job_ids: Sequence[UUID], limit: int, unblamed: ColumnElement[bool]
) -> Sequence[Row[Any]]:
    wanted = (
        select(chunks, unblamed.label("unblamed"))
        .where(_EXPIRED, chunks.c.lease_until < now(), chunks.c.job_id.in_(job_ids))
        .order_by(chunks.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=chunks)
    )
    return connection.execute(wanted).all()


def _unblamed(database: Database, watched_s: float | None) -> ColumnElement[bool]:
    """Nobody was watching for a whole lease, or the database did not answer while it ran: the work is not to blame."""
    unwatched = chunks.c.lease_until < later(-chunks.c.lease_s)
    if watched_s is not None:
        unwatched |= chunks.c.lease_until < later(chunks.c.lease_s - watched_s)
    if database.dialect == "sqlite":
        return unwatched
    return unwatched | (
        chunks.c.lease_until < func.pg_postmaster_start_time() + func.make_interval(0, 0, 0, 0, 0, 0, chunks.c.lease_s)
    )


def settle(database: Database, connection: Connection, chunk: Row[Any], back: ChunkState) -> str:
    """Blame one locked chunk as a whole, as its history asks for; the name of the counter to raise."""
    if chunk.crashes + 1 < CRASH_LIMIT:
        change(connection, chunk, state=back, crashes=chunk.crashes + 1, last_error=SILENT)
        return "pending"
    left = unfinished(connection, chunk)
    if len(left) > 1:
        _split(connection, chunk, left, back)
        return "split"
    poison(database, connection, chunk, left, CRASH_LIMIT)
    change(
        connection,
        chunk,
        **DONE,
        crashes=chunk.crashes + 1,
        n_error=chunk.n_error + len(left),
        last_error=POISON.format(CRASH_LIMIT) if left else SILENT,
    )
    return "poisoned" if left else "pending"


def change(connection: Connection, chunk: Row[Any], **values: Any) -> None:
    """Change a locked chunk that runs; it runs no longer."""
    connection.execute(update(chunks).where(chunks.c.id == chunk.id).values(lease_until=None, **values))


def unfinished(connection: Connection, chunk: Row[Any]) -> list[int]:
    """The chunk's items without a result."""
    wanted = select(results.c.seq).where(results.c.job_id == chunk.job_id)
    have = set(connection.scalars(wanted.where(results.c.seq >= chunk.seq_lo, results.c.seq < chunk.seq_hi)))
    return [seq for seq in range(chunk.seq_lo, chunk.seq_hi) if seq not in have]


def poison(database: Database, connection: Connection, chunk: Row[Any], seqs: Sequence[int], crashes: int) -> None:
    """Write the results of items that cannot be run."""
    if seqs:
        job_id = saving.bound(database, chunk.job_id)
        rows = [(job_id, *row) for row in _poison(connection, chunk, seqs, POISON.format(crashes))]
        saving.insert(database, connection, rows)


def _split(connection: Connection, chunk: Row[Any], left: Sequence[int], back: ChunkState) -> None:
    """Two children, each with half of the unfinished items; the parent's counts and suspects go with them."""
    middle = left[len(left) // 2]
    copied = ("job_id", "block_id", "tenant", "queue", "model", "priority", "turn", "attempt", "errors", "started_at")
    shared = {name: getattr(chunk, name) for name in copied}
    size, suspects = chunk.seq_hi - chunk.seq_lo, encoding.suspects_of(chunk.suspects)
    for seq_lo, seq_hi in ((chunk.seq_lo, middle), (middle, chunk.seq_hi)):
        child = {
            **shared,
            **_counts(connection, chunk.job_id, seq_lo, seq_hi),
            "seq_lo": seq_lo,
            "seq_hi": seq_hi,
            "cost": chunk.cost * (seq_hi - seq_lo) // size,
            "state": back,
            "crashes": CRASH_LIMIT - 1,
            "last_error": SILENT,
            "suspects": encoding.suspects_text(suspects, range(seq_lo, seq_hi)),
        }
        connection.execute(insert(chunks).values(**child))
    none = {"n_ok": 0, "n_error": 0, "tokens_in": 0, "tokens_out": 0}
    change(connection, chunk, state=ChunkState.SPLIT, crashes=chunk.crashes + 1, finished_at=now(), **none)


def _counts(connection: Connection, job_id: UUID, seq_lo: int, seq_hi: int) -> dict[str, int]:
    """What the results of these items add up to."""
    sums = {
        "n_ok": func.count().filter(results.c.status == "ok"),
        "n_error": func.count().filter(results.c.status == "error"),
        "tokens_in": func.coalesce(func.sum(results.c.tokens_in), 0),
        "tokens_out": func.coalesce(func.sum(results.c.tokens_out), 0),
    }
    wanted = select(*[total.label(name) for name, total in sums.items()])
    row = connection.execute(
        wanted.where(results.c.job_id == job_id, results.c.seq >= seq_lo, results.c.seq < seq_hi)
    ).one()
    return {name: int(getattr(row, name)) for name in sums}


def _poison(connection: Connection, chunk: Row[Any], seqs: Sequence[int], message: str) -> list[ResultRow]:
    wanted = select(blocks.c.seq_lo, blocks.c.encoding, blocks.c.data).where(blocks.c.id == chunk.block_id)
    block = connection.execute(wanted).one()
    lines = encoding.parse_block(block.encoding, bytes(block.data))
    keep = connection.execute(select(jobs.c.keep).where(jobs.c.id == chunk.job_id)).scalar_one()
    return [_poisoned(seq, lines[seq - block.seq_lo], keep, message) for seq in seqs]


def _poisoned(seq: int, line: bytes, keep: Sequence[str], message: str) -> ResultRow:
    return ResultRow(
        seq=seq,
        custom_id=encoding.custom_id(seq, line),
        status="error",
        output=None,
        vector=None,
        error_code=ItemErrorCode.POISON,
        error=message,
        tokens_in=0,
        tokens_out=0,
        truncated_tokens=0,
        windows=0,
        kept=encoding.kept(line, keep),
    )

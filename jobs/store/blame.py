"""What becomes of a dead worker's chunks when its note tells what it had in flight.

Chunks with nothing in flight go back as they were. Items that were in flight are suspects: their chunk is run by
itself, they behind its other items and one at a time. An item that ends its worker `ALONE_LIMIT` times with nothing
else in flight is poison. One crash in company and these make at most four.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select, text

from jobs.states import ChunkState, Control
from jobs.store import reaping
from jobs.store.dialect import Database
from jobs.store.encoding import suspects_of, suspects_text
from jobs.store.tables import chunks, jobs
from jobs.store.values import InFlight, Reaped

ALONE_LIMIT = 3
"""One more than a chunk's: whoever kills a worker by hand twice, and hits the same innocent item each time, must not
make it poison."""
TOO_OFTEN = 10
"""A chunk claimed so often whose worker dies with nothing of it in flight: something that no note sees may be its own
fault, and it is blamed as a whole."""

ENDED = "its worker's process ended while it ran"
_RUNNING = text("chunks.state = 'running'")


def blame(database: Database, connection: Connection, worker_id: str, in_flight: Sequence[InFlight]) -> Reaped:
    """Take all chunks from a worker that is dead. Locks jobs before chunks, and looks again under the lock."""
    done: Counter[str] = Counter()
    held = _lock_jobs(connection, worker_id)
    noted = {each.chunk_id: each for each in in_flight}
    for chunk in _lock_chunks(connection, worker_id, list(held)):
        back = ChunkState.HELD if held[chunk.job_id] == Control.PAUSE else ChunkState.PENDING
        mine = noted.get(chunk.id)
        if mine is not None and mine.token == chunk.lease_token:
            alone = len(in_flight) == 1
            done.update(_suspected(database, connection, chunk, mine, back, alone=alone))
        elif chunk.attempt >= TOO_OFTEN:
            done[reaping.settle(database, connection, chunk, back)] += 1
        else:
            reaping.change(connection, chunk, state=back)
            done["unblamed"] += 1
    return Reaped(**{name: done[name] for name in Reaped._fields})


def _lock_jobs(connection: Connection, worker_id: str) -> dict[Any, str]:
    mine = select(chunks.c.job_id).where(_RUNNING, chunks.c.worker_id == worker_id)
    wanted = select(jobs.c.id, jobs.c.control).where(jobs.c.id.in_(mine)).order_by(jobs.c.id)
    return {row.id: row.control for row in connection.execute(wanted.with_for_update(read=True))}


def _lock_chunks(connection: Connection, worker_id: str, job_ids: Sequence[Any]) -> Sequence[Row[Any]]:
    """Waits for a row that the dead worker's last statement still holds: it may yet be saved."""
    wanted = select(chunks).where(_RUNNING, chunks.c.worker_id == worker_id, chunks.c.job_id.in_(job_ids))
    return connection.execute(wanted.order_by(chunks.c.id).with_for_update(of=chunks)).all()


def _suspected(
    database: Database, connection: Connection, chunk: Row[Any], noted: InFlight, back: ChunkState, *, alone: bool
) -> dict[str, int]:
    """Blame what was in flight of a locked chunk; the names of the counters to raise."""
    unfinished = reaping.unfinished(connection, chunk)
    seqs = unfinished if noted.seqs is None else sorted({*noted.seqs} & {*unfinished})
    if noted.seqs is None and not chunk.crashes and len(seqs) > 1:
        # All of its items were being prepared. It is run by itself as a whole before each of them is.
        reaping.change(connection, chunk, state=back, crashes=1, last_error=ENDED)
        return {"pending": 1}
    if not seqs and unfinished:
        reaping.change(connection, chunk, state=back)
        return {"unblamed": 1}
    crashed = _counted(suspects_of(chunk.suspects), unfinished, seqs, alone=alone and len(seqs) == 1)
    poison = [seq for seq, times in crashed.items() if times >= ALONE_LIMIT]
    reaping.poison(database, connection, chunk, poison, ALONE_LIMIT)
    left = {seq: times for seq, times in crashed.items() if seq not in poison}
    ended = len(poison) == len(unfinished)
    reaping.change(
        connection,
        chunk,
        **(reaping.DONE if ended else {"state": back}),
        crashes=chunk.crashes + 1,
        n_error=chunk.n_error + len(poison),
        suspects=suspects_text(left, unfinished),
        last_error=reaping.POISON.format(ALONE_LIMIT) if poison else ENDED,
    )
    return {"poisoned" if poison else "pending": 1}


def _counted(
    before: Mapping[int, int], unfinished: Sequence[int], seqs: Sequence[int], *, alone: bool
) -> dict[int, int]:
    """How often each suspect without a result has ended its worker alone."""
    open_ = {seq: times for seq, times in before.items() if seq in unfinished}
    return open_ | {seq: open_.get(seq, 0) + alone for seq in seqs}

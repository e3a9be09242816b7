"""Chunks in a worker's hands: claim, read, renew, save, release; and what upkeep asks of the queues."""

import builtins
import secrets
import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, bindparam, select, text, update

from jobs.errors import StoreUnavailable
from jobs.states import Control, JobState
from jobs.store import blame, claims, ids, reaping, saving
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.encoding import storable, suspects_of
from jobs.store.tables import blocks, jobs
from jobs.store.values import Claim, InFlight, Reaped, Renewal, Save

CROWDED_S = (0.002, 0.01)
"""Waits before an empty-handed claim looks again when there is work, but every chunk in reach was being claimed."""
ORDERS_KEPT = 10_000
"""Jobs whose task and params are remembered."""

_READY = """
    SELECT count(*) FROM (SELECT 1 FROM chunks AS c
        WHERE c.state = 'pending' AND c.queue = :queue AND (c.not_before IS NULL OR c.not_before <= {now})
        ORDER BY c.queue, c.priority DESC, c.turn, c.id LIMIT :most) AS ready
"""
_QUEUES = """
    WITH RECURSIVE found(queue) AS (
        SELECT (SELECT min(queue) FROM chunks WHERE state = 'pending')
        UNION ALL
        SELECT (SELECT min(queue) FROM chunks WHERE state = 'pending' AND queue > found.queue)
        FROM found WHERE found.queue IS NOT NULL)
    SELECT queue FROM found WHERE queue IS NOT NULL
"""
_RENEW = """
    UPDATE chunks SET lease_s = :lease_s, lease_until = {later}
    FROM (SELECT c.id AS chunk_id FROM {held} JOIN chunks AS c ON c.id = held.id AND c.lease_token = held.token
          WHERE c.state = 'running' AND c.worker_id = :worker_id {skip_c}) AS mine
    WHERE chunks.id = mine.chunk_id
    RETURNING chunks.id, (SELECT control FROM jobs WHERE jobs.id = chunks.job_id) AS control
"""
_STILL_MINE = """
    SELECT c.id FROM {held} JOIN chunks AS c ON c.id = held.id AND c.lease_token = held.token
    WHERE c.state = 'running' AND c.worker_id = :worker_id
"""
_LOCK_JOBS = """
    SELECT jobs.id FROM jobs WHERE jobs.id IN (
        SELECT c.job_id FROM {held} JOIN chunks AS c ON c.id = held.id AND c.lease_token = held.token)
    ORDER BY jobs.id {share}
"""
_RELEASE = """
    UPDATE chunks SET
        state = CASE WHEN (SELECT control FROM jobs WHERE jobs.id = chunks.job_id) = 'pause' THEN 'held'
            ELSE 'pending' END,
        lease_until = NULL, errors = errors + :blame, last_error = coalesce(:error, last_error),
        not_before = CASE WHEN :lease_s > 0 THEN {later} END
    FROM (SELECT c.id AS chunk_id FROM {held} JOIN chunks AS c ON c.id = held.id AND c.lease_token = held.token
          WHERE c.state = 'running' ORDER BY c.id {lock_c}) AS mine
    WHERE chunks.id = mine.chunk_id
    RETURNING chunks.id, chunks.errors
"""
_ORDERS = select(jobs.c.id, jobs.c.task, jobs.c.model, jobs.c.params, jobs.c.keep, jobs.c.traceparent).where(
    jobs.c.id.in_(bindparam("ids", expanding=True))
)
_START = (
    update(jobs)
    .where(jobs.c.id.in_(bindparam("ids", expanding=True)), text("jobs.state = 'queued'"))
    .values(state=JobState.RUNNING, started_at=now())
)


class Chunks:
    """The chunks of all jobs. `lease_s`: how long a claim or renewal holds unless it says otherwise."""

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._db, self._lease_s = database, lease_s
        self._orders = _Orders()
        self._unanswered: dict[str, str] = {}
        """By worker, the token of its last claim, if no answer to it came: it may have landed."""

    def claim(
        self,
        *,
        worker_id: str,
        queue: str,
        cost: int,
        items: int,
        loaded: Sequence[str],
        lease_s: float | None = None,
    ) -> list[Claim]:
        """Chunks of one model, now held by the worker, worth about `cost` and `items`: the first in line.

        A suspect comes alone. Nothing when there is no work. A chunk that overshoots is let in, so that none is
        too large ever to be claimed.
        """
        lease = lease_s or self._lease_s
        for wait in (*CROWDED_S, None):
            known = self._unanswered.pop(worker_id, None)
            token = known or secrets.token_hex(16)
            wish = claims.Wish(worker_id, queue, cost, items, loaded, lease, token)
            taken = self._claim(wish, again=known is not None)
            if taken or wait is None or self._db.dialect == "sqlite" or not self.ready(queue, 1):
                return taken
            time.sleep(wait)
        raise AssertionError("unreachable")

    def blocks(self, block_ids: Sequence[int]) -> dict[int, tuple[str, bytes]]:
        """The (encoding, data) of these blocks."""
        wanted = select(blocks.c.id, blocks.c.encoding, blocks.c.data).where(blocks.c.id.in_(list(block_ids)))
        rows = self._db.read(lambda connection: connection.execute(wanted).all())
        return {row[0]: (row[1], bytes(row[2])) for row in rows}

    def renew(
        self, worker_id: str, tokens: Mapping[int, str], lease_s: float | None = None
    ) -> tuple[list[Renewal], builtins.set[int]]:
        """The chunks whose lease was extended, and those skipped because someone is just writing them.

        A chunk in neither is lost: cancelled, or reaped and perhaps another's by now.
        """
        values = {"held": _held(tokens), "worker_id": worker_id, "lease_s": lease_s or self._lease_s}

        def work(connection: Connection) -> tuple[list[Renewal], builtins.set[int]]:
            found = connection.execute(self._db.sql(_RENEW), values)
            renewed = [Renewal(row.id, Control(row.control)) for row in found]
            missing = tokens.keys() - {renewal.chunk_id for renewal in renewed}
            if not missing:
                return renewed, set()
            still = set(connection.scalars(self._db.sql(_STILL_MINE), values))
            return renewed, still & missing

        return self._db.relaxed(work) if tokens else ([], set())

    def save(self, saves: Sequence[Save]) -> builtins.set[int]:
        """The ids of the chunks whose rows are saved; the rows of chunks that are not held any more are dropped.

        All of it is one transaction, done once even when the answer to its commit is lost. Raises InvalidState when
        `done` is claimed of a chunk with items that have no result.
        """
        return saving.save(self._db, saves) if saves else set()

    def release(self, tokens: Mapping[int, str], *, error: str | None = None, delay_s: float = 0.0) -> dict[int, int]:
        """Give chunks back, to be claimed after `delay_s`; their errors by chunk id, for those that were still held.

        Without `error` there is no blame; with it, each has one error more.
        """
        values = {"held": _held(tokens), "blame": int(error is not None), "lease_s": delay_s}
        values["error"] = None if error is None else storable(error)

        def work(connection: Connection) -> dict[int, int]:
            connection.execute(self._db.sql(_LOCK_JOBS), values).all()
            return {row.id: row.errors for row in connection.execute(self._db.sql(_RELEASE), values)}

        return self._db.write(work) if tokens else {}

    def reap(self, *, limit: int = 1000, watched_s: reaping.Watched = lambda: None) -> Reaped:
        """Take chunks from workers whose lease has ended. Safe to repeat, and for several leaders at once.

        `watched_s` gives how long ago the database began to answer again after a silence in which no worker could
        renew: leases from before that are nobody's fault.
        """
        return self._db.write(lambda connection: reaping.reap(self._db, connection, limit=limit, watched_s=watched_s))

    def blame(self, worker_id: str, in_flight: Sequence[InFlight]) -> Reaped:
        """Take all chunks from a worker that is known to be dead, blaming what it had in flight. Safe to repeat."""
        return self._db.write(lambda connection: blame.blame(self._db, connection, worker_id, in_flight))

    def ready(self, queue: str, limit: int) -> int:
        """How many chunks of the queue could be claimed now, counted up to `limit`."""
        values = {"queue": queue, "most": limit}
        return int(self._db.read(lambda connection: connection.execute(self._db.sql(_READY), values).scalar_one()))

    def queues(self) -> list[str]:
        """The queues with pending work, by name."""
        return self._db.read(lambda connection: list(connection.scalars(self._db.sql(_QUEUES))))

    def _claim(self, wish: claims.Wish, *, again: bool) -> list[Claim]:
        """`again`: it was asked before, and no answer came."""
        tries = count(int(again))

        def work(connection: Connection) -> list[Claim]:
            rows = next(tries) > 0 and claims.taken_before(self._db, connection, wish)
            rows = rows or claims.take(self._db, connection, wish)
            found = [(saving.as_uuid(row.job_id), row) for row in rows]
            _start(connection, {job_id for job_id, row in found if row.job_state == JobState.QUEUED})
            orders = self._orders.read(connection, {job_id for job_id, _ in found})
            return [_claimed(row, orders[job_id], wish.token) for job_id, row in found]

        try:
            return self._db.relaxed(work)
        except StoreUnavailable:
            self._unanswered[wish.worker_id] = wish.token
            raise


class _Orders:
    """What jobs ask for. It never changes, so that a claim seldom has to read it."""

    def __init__(self) -> None:
        self._known: dict[UUID, Any] = {}

    def read(self, connection: Connection, job_ids: set[UUID]) -> dict[UUID, Any]:
        """The rows (id, task, model, params, keep, traceparent) of these jobs."""
        known = self._known
        missing = {job_id for job_id in job_ids if job_id not in known}
        if missing:
            if len(known) > ORDERS_KEPT:
                known = self._known = {job_id: known[job_id] for job_id in job_ids - missing}
            known |= {row.id: row for row in connection.execute(_ORDERS, {"ids": sorted(missing)})}
        return known


def _start(connection: Connection, job_ids: set[UUID]) -> None:
    if job_ids:
        connection.execute(_START, {"ids": sorted(job_ids)})


def _held(tokens: Mapping[int, str]) -> str:
    return orjson.dumps([{"id": chunk_id, "token": token} for chunk_id, token in tokens.items()]).decode()


def _claimed(row: Any, job: Any, token: str) -> Claim:
    return Claim(
        chunk_id=row.id,
        job_id=ids.public(job.id),
        block_id=row.block_id,
        block_lo=row.block_lo,
        seq_lo=row.seq_lo,
        seq_hi=row.seq_hi,
        cost=row.cost,
        tenant=row.tenant,
        task=job.task,
        model=row.model,
        named=job.model,
        params=job.params,
        keep=tuple(job.keep),
        attempt=row.attempt,
        crashes=row.crashes,
        errors=row.errors,
        token=token,
        traceparent=job.traceparent,
        suspects=suspects_of(row.suspects),
    )

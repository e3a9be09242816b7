"""The life of a job in the tables: create, append, seal, the owner's wishes, the end."""

import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, func, select, update

from jobs.errors import IdempotencyConflict, InvalidInput, InvalidState
from jobs.schemas import Job, JobSpec
from jobs.states import FINAL, CanaryState, Control, JobState
from jobs.store import canaries, encoding, exports, finding, ids, outbox, progress, rows, supervision, tenants, turns
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.retention import NOT_GONE, check_there
from jobs.store.tables import blocks, chunks, jobs
from jobs.store.values import Finished, NewBlock, Pick, Pulse

LINES_AT_ONCE = 16
"""Blocks read by one query when a job's lines are streamed."""
FORECASTS_AT_ONCE = 20


_DONE = select(func.sum(chunks.c.n_ok + chunks.c.n_error)).where(chunks.c.job_id == jobs.c.id).scalar_subquery()
_PULSES = select(jobs.c.id, jobs.c.state, jobs.c.control, func.coalesce(_DONE, 0))


class Jobs:
    """All jobs. Ids go in and out as text; an id that no job has raises UnknownJob."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(
        self,
        spec: JobSpec,
        *,
        request_hash: bytes,
        model_revision: str | None = None,
        whole: Sequence[NewBlock] = (),
    ) -> tuple[Job, bool]:
        """A job in `loading`, and True; or the one made before with this tenant and idempotency key, and False.

        `whole`: all its items; a new job then holds them and is `queued`, in one transaction instead of three.
        Raises IdempotencyConflict when the key was used for a request of another hash, QuotaExceeded.
        """
        if whole and spec.canary is not None:
            raise ValueError("a job with a canary cannot be whole at once: it is sealed with its picks")
        values = rows.columns(spec, request_hash, model_revision)
        n_items = rows.check_whole(whole)
        costs = [chunk.cost for block in whole for chunk in block.chunks]

        def work(connection: Connection) -> tuple[Job, bool]:
            filled, turns_of = dict[str, Any](), list[float]()
            if whole:
                line, turns_of = turns.enter(connection, values, costs)
                filled = {"turn": line, **_sealed(n_items, len(costs))}
            new = self._db.insert(jobs).values(**{**values, **filled}, created_at=now())
            row = inserted = connection.execute(new.on_conflict_do_nothing().returning(jobs)).one_or_none()
            if row is None:  # it is a repeat of ours, or of somebody else's
                row = rows.find(connection, jobs.c.id == values["id"]) or rows.find(
                    connection, (jobs.c.tenant == spec.tenant) & (jobs.c.idempotency_key == spec.idempotency_key)
                )
            if row is None or bytes(row.request_hash) != request_hash:
                raise IdempotencyConflict(f"idempotency key {spec.idempotency_key!r} was used for another request")
            created = row.id == values["id"]
            if created and spec.sink is not None:
                exports.created(self._db, connection, row.id, spec.sink)
            if inserted is not None and whole:
                tenants.admit(connection, row.tenant, whole)
                rows.insert_blocks(self._db, connection, row, whole, turns_of)
                return progress.fresh(row), True
            return progress.read(connection, [row])[0], created

        return self._db.write(work)

    def append(self, job_id: str, new: Sequence[NewBlock]) -> None:
        """Add blocks to a loading job. Safe to repeat: a block that is there already is left alone.

        Raises InvalidState if another block is in its place, or the job is not loading, and QuotaExceeded.
        """
        for block in new:
            rows.check_partition(block)

        def work(connection: Connection) -> None:
            job = rows.locked(connection, job_id)
            known = rows.known_blocks(connection, job.id, [block.seq_lo for block in new])
            missing = {block.seq_lo: block for block in new if block.seq_lo not in known}
            for block in new:
                if block.sha256 != known.get(block.seq_lo, missing.get(block.seq_lo, block).sha256):
                    raise InvalidState(f"job {job_id} has another block at item {block.seq_lo}")
            if missing:
                rows.require(job, job.state == JobState.LOADING, "takes no more items")
                tenants.admit(connection, job.tenant, list(missing.values()))
                rows.insert_blocks(self._db, connection, job, list(missing.values()))

        self._db.write(work)

    def loaded(self, job_id: str) -> builtins.list[tuple[int, int, bytes]]:
        """The (seq_lo, n_items, sha256) of the blocks that have arrived, in order."""
        wanted = select(blocks.c.seq_lo, blocks.c.n_items, blocks.c.sha256).where(blocks.c.job_id == ids.parse(job_id))
        found = self._db.read(lambda connection: connection.execute(wanted.order_by(blocks.c.seq_lo)).all())
        return [(row[0], row[1], bytes(row[2])) for row in found]

    def seal(self, job_id: str, picks: Sequence[Pick] = ()) -> Job:
        """The job, queued: its items are complete and can be claimed; of one with a canary, only the `picks` at first.
        Safe to repeat.

        Raises InvalidState if blocks are missing in between, or the job ended before.
        """

        def work(connection: Connection) -> Job:
            job = rows.locked(connection, job_id)
            if job.sealed_at is None:
                rows.require(job, job.state == JobState.LOADING, "cannot be sealed")
                n_items = rows.gapless(connection, job)
                values = canaries.cut_out(connection, job, picks, n_items)
                self._seal(connection, job, n_items, rows.count_chunks(connection, job.id), **values)
            return rows.read(connection, job.id)

        return self._db.write(work)

    def get(self, id_or_prefix: str) -> Job:
        """The job as it stands now. Raises UnknownJob if several have this prefix."""

        def work(connection: Connection) -> Job:
            return progress.read(connection, [rows.only(id_or_prefix, progress.by_prefix(connection, id_or_prefix))])[0]

        return self._db.read(work)

    def resolve(self, id_or_prefix: str) -> str:
        """The whole id of the one job with this prefix."""
        found = self._db.read(lambda connection: progress.by_prefix(connection, id_or_prefix))
        return ids.public(rows.only(id_or_prefix, found).id)

    def keyed(self, tenant: str, idempotency_key: str) -> str | None:
        """The id of the job made with this key."""
        wanted = select(jobs.c.id).where(jobs.c.tenant == tenant, jobs.c.idempotency_key == idempotency_key)
        found = self._db.read(lambda connection: connection.execute(wanted).scalar_one_or_none())
        return None if found is None else ids.public(found)

    def list(
        self,
        *,
        states: Sequence[JobState] | None = None,
        tenant: str | None = None,
        task: str | None = None,
        model: str | None = None,
        labels: Mapping[str, str] = MappingProxyType({}),
        limit: int = 100,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs, newest first; `before` is the id of the last job of the page before. `labels`: those of all of them."""
        meant = finding.JobFilter(states=states, task=task, model=model, labels=labels)
        wanted = select(jobs).where(*finding.conditions(tenant, meant)).order_by(jobs.c.id.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(jobs.c.id < ids.parse(before))
        return self._db.read(lambda connection: progress.read(connection, connection.execute(wanted).all()))

    def pulses(self, job_ids: Sequence[str]) -> dict[str, Pulse]:
        """How far these jobs are, at little cost, for whoever watches many; those that are gone are left out."""
        wanted = _PULSES.where(jobs.c.id.in_([ids.parse(each) for each in job_ids]), NOT_GONE)
        found = self._db.read(lambda connection: connection.execute(wanted).all())
        return {ids.public(row[0]): Pulse(*row[1:]) for row in found}

    def lines(self, job_id: str) -> Iterator[tuple[int, bytes]]:
        """Every item's `seq` and JSON line, in order, read as it is consumed."""
        job, after = ids.parse(job_id), -1
        while found := self._blocks_after(job, after):
            for row in found:
                yield from enumerate(encoding.parse_block(row.encoding, bytes(row.data)), row.seq_lo)
            after = found[-1].seq_lo

    def lines_of(self, job_id: str, seqs: Sequence[int], most_bytes: int | None = None) -> dict[int, bytes]:
        """The JSON lines of a few items, by `seq`. Raises InvalidInput as soon as they are longer together."""
        job, found = ids.parse(job_id), dict[int, bytes]()
        for seq in seqs:
            block = None if seq in found else self._block_at(job, seq)
            if block is not None:
                lines = dict(enumerate(encoding.parse_block(block.encoding, bytes(block.data)), block.seq_lo))
                found |= {at: lines[at] for at in seqs if at in lines}
                if most_bytes is not None and sum(map(len, found.values())) > most_bytes:
                    raise InvalidInput(f"these items are longer than {most_bytes:,} bytes together; ask for fewer")
        return found

    def record(self, job_id: str, in_force: dict[str, Any]) -> None:
        """Keep with the job what it is run with; whoever records first wins."""
        noted = update(jobs).where(jobs.c.id == ids.parse(job_id), jobs.c.in_force.is_(None)).values(in_force=in_force)
        self._db.write(lambda connection: connection.execute(noted))

    def forecast(self) -> int:
        """How many running jobs got their `first_eta_at` now: the first forecast there was, kept to be judged by.

        Looks at a few of them, a few others each time.
        """
        unknown = rows.live_jobs().where(jobs.c.state == JobState.RUNNING, jobs.c.first_eta_at.is_(None))
        wanted = unknown.order_by(func.random()).limit(FORECASTS_AT_ONCE)

        def work(connection: Connection) -> int:
            found = progress.read(connection, connection.execute(wanted).all())
            known = [job for job in found if job.eta_at is not None]
            for job in known:
                row = update(jobs).where(jobs.c.id == ids.parse(job.id), jobs.c.first_eta_at.is_(None))
                connection.execute(row.values(first_eta_at=job.eta_at))
            return len(known)

        return self._db.write(work)

    def pause(self, job_id: str) -> Job:
        """The job with control `pause`: nothing of it is claimed, running chunks are released by their workers."""

        def work(connection: Connection, job: Row[Any]) -> None:
            supervision.hold(connection, job)

        return self._steer(job_id, "cannot be paused", work)

    def resume(self, job_id: str) -> Job:
        """The job with control `run`; what was held goes on from the present turn of its queue.

        Raises InvalidState for one that waits for approval: what goes on then is more than was paused.
        """

        def work(connection: Connection, job: Row[Any]) -> None:
            waits = job.canary_state == CanaryState.WAITING
            rows.require(job, not waits, "waits for approval of its canary (`textmill approve`)")
            if job.sealed_at is None:
                connection.execute(update(jobs).where(jobs.c.id == job.id).values(control=Control.RUN))
            elif job.control == Control.PAUSE:
                supervision.go_on(connection, job)

        return self._steer(job_id, "cannot be resumed", work)

    def cancel(self, job_id: str) -> Job:
        """The job, cancelled; results so far are kept. Safe to repeat. Raises InvalidState if it ended otherwise."""

        def work(connection: Connection) -> Job:
            job = rows.locked(connection, job_id)
            if job.state != JobState.CANCELLED:
                rows.require(job, job.state not in FINAL, "cannot be cancelled")
                self._end(connection, job, JobState.CANCELLED, control=Control.CANCEL)
            return rows.read(connection, job.id)

        return self._db.write(work)

    def delete(self, job_id: str) -> None:
        """The job is gone from now on; upkeep takes its rows away. Raises InvalidState for one that has not ended."""

        def work(connection: Connection) -> None:
            job = rows.locked(connection, job_id)
            rows.require(job, job.state in FINAL, "cannot be deleted: cancel it first")
            gone = update(jobs).where(jobs.c.id == job.id)
            connection.execute(gone.values(expires_at=now(), idempotency_key=None))

        self._db.write(work)

    def fail(self, job_id: str, error: str) -> Job:
        """The job, failed with this message; one that is final already stays as it is."""

        def work(connection: Connection) -> Job:
            job = rows.locked(connection, job_id)
            if job.state not in FINAL:
                self._end(connection, job, JobState.FAILED, error=encoding.storable(error))
            return rows.read(connection, job.id)

        return self._db.write(work)

    def discard(self, job_id: str) -> None:
        """Take back a job that is loading, as if it had never been: its key is free, and nobody is told. Any other job
        stays as it is."""

        wanted = select(jobs).where(jobs.c.id == ids.parse(job_id), jobs.c.state == JobState.LOADING)

        def work(connection: Connection) -> None:
            job = connection.execute(wanted.with_for_update()).one_or_none()
            if job is not None:
                rows.end(connection, job, JobState.FAILED, expires_at=now(), idempotency_key=None)

        self._db.write(work)

    def finish(self, job_id: str) -> Finished | None:
        """The job if this call completed it: it is sealed, and none of its chunks is live.

        Never in the transaction that saved the last chunk: two of those at once would each see the other as running.
        """
        done = {"state": JobState.COMPLETED, "finished_at": now()}
        last = update(jobs).where(jobs.c.id == ids.parse(job_id), *rows.FINISHABLE).values(**done).returning(jobs)

        def work(connection: Connection) -> Finished | None:
            job = connection.execute(last).one_or_none()
            if job is None:
                return None
            outbox.job_ended(self._db, connection, job, JobState.COMPLETED)
            exports.job_ended(connection, job, JobState.COMPLETED)
            told = (job.task, job.model, job.traceparent, job.created_at, job.finished_at)
            return Finished(ids.public(job.id), *told)

        return self._db.write(work)

    def finishable(self) -> builtins.list[str]:
        """The jobs that `finish` would complete."""
        begun = (jobs.c.state == JobState.RUNNING) | (jobs.c.n_chunks == 0)
        wanted = select(jobs.c.id).where(begun, *rows.FINISHABLE)
        return [ids.public(found) for found in self._db.read(lambda connection: connection.scalars(wanted).all())]

    def expire_due(self) -> int:
        """How many jobs were ended because their deadline has passed."""
        due = rows.live_jobs().where(jobs.c.deadline_at < now())
        return self._end_all(due, JobState.EXPIRED, "its deadline passed")

    def abandon_stale(self, timeout_s: float) -> int:
        """How many loading jobs were failed because no item arrived for so long."""
        newest = select(func.max(blocks.c.created_at)).where(blocks.c.job_id == jobs.c.id).scalar_subquery()
        stale = select(jobs).where(
            jobs.c.state == JobState.LOADING, func.coalesce(newest, jobs.c.created_at) < later(-timeout_s)
        )
        return self._end_all(stale, JobState.FAILED, f"abandoned: no items arrived for {timeout_s:g} s")

    def _block_at(self, job: UUID, seq: int) -> Any:
        """The block that holds this item, if any does; else the one before it."""
        wanted = select(blocks).where(blocks.c.job_id == job, blocks.c.seq_lo <= seq)
        last = wanted.order_by(blocks.c.seq_lo.desc()).limit(1)
        return self._db.read(lambda connection: connection.execute(last).first())

    def _blocks_after(self, job: UUID, after: int) -> Sequence[Any]:
        def work(connection: Connection) -> Sequence[Any]:
            found = rows.blocks_after(connection, job, after, LINES_AT_ONCE)
            check_there(connection, job)
            return found

        return self._db.read(work)

    def _seal(self, connection: Connection, job: Row[Any], n_items: int, n_chunks: int, **values: Any) -> Row[Any]:
        values |= _sealed(n_items, n_chunks)
        sealed = update(jobs).where(jobs.c.id == job.id).returning(jobs)
        if values.get("canary") is not None:  # it says what is released
            job = connection.execute(sealed.values(**values)).one()
        if job.control == Control.RUN:
            values["turn"] = canaries.go_on(connection, job)
        return connection.execute(sealed.values(**values)).one()

    def _end(self, connection: Connection, job: Row[Any], state: JobState, **values: Any) -> None:
        rows.end(connection, job, state, **values)
        outbox.job_ended(self._db, connection, job, state, values.get("error"))
        exports.job_ended(connection, job, state)

    def _steer(self, job_id: str, refusal: str, change: Callable[[Connection, Row[Any]], None]) -> Job:
        def work(connection: Connection) -> Job:
            job = rows.locked(connection, job_id)
            rows.require(job, job.state not in FINAL, refusal)
            change(connection, job)
            return rows.read(connection, job.id)

        return self._db.write(work)

    def _end_all(self, wanted: Select[Any], state: JobState, error: str) -> int:
        def work(connection: Connection) -> int:
            due = connection.execute(wanted.with_for_update(skip_locked=True, of=jobs).order_by(jobs.c.id)).all()
            for job in due:
                self._end(connection, job, state, error=error)
            return len(due)

        return self._db.write(work)


def _sealed(n_items: int, n_chunks: int) -> dict[str, Any]:
    """The columns of a job whose items are complete."""
    return {"n_items": n_items, "n_chunks": n_chunks, "state": JobState.QUEUED, "sealed_at": now()}

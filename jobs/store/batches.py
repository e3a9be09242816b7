"""Batches of the OpenAI-compatible API: a file, and the job that its lines became."""

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, select, text, update

from jobs.errors import InvalidState, UnknownBatch
from jobs.store import ids, outbox
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.tables import batches, jobs


class BatchRow(NamedTuple):
    id: str
    tenant: str
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: dict[str, str] | None
    priority: int
    created_at: datetime
    expires_at: datetime
    job_id: str | None
    errors: list[dict[str, Any]] | None
    """What is wrong with the lines; then the batch has failed."""
    failed_at: datetime | None
    cancelled_at: datetime | None
    """When it was cancelled before it had a job."""
    output_keep_s: int | None
    """How long its output is kept after its end; None: as long as its job."""
    ended_as: dict[str, Any] | None
    """Its job, as it was when its output's time was over."""
    traceparent: str | None
    """The trace that its creation belongs to."""


_COLUMNS = [batches.c[name] for name in BatchRow._fields]
_WAITING = batches.c.job_id.is_(None) & batches.c.failed_at.is_(None) & batches.c.cancelled_at.is_(None)


class Batches:
    """The batches of all tenants."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(
        self,
        tenant: str,
        *,
        request_hash: bytes,
        endpoint: str,
        input_file_id: str,
        completion_window: str,
        window_s: float,
        metadata: Mapping[str, str] | None,
        priority: int = 0,
        output_keep_s: int | None = None,
        traceparent: str | None = None,
    ) -> BatchRow:
        """A new batch, which has to become a job."""
        values = {
            "id": f"batch_{ids.new_id().hex}",
            "tenant": tenant,
            "request_hash": request_hash,
            "endpoint": endpoint,
            "input_file_id": input_file_id,
            "completion_window": completion_window,
            "metadata": metadata,
            "priority": priority,
            "output_keep_s": output_keep_s,
            "traceparent": traceparent,
        }
        made = self._db.insert(batches).values(**values, created_at=now(), expires_at=later(window_s))
        return _row(self._db.write(lambda connection: connection.execute(made.returning(*_COLUMNS)).one()))

    def repeated(self, tenant: str, request_hash: bytes, within_s: float) -> BatchRow | None:
        """The newest batch of the same request in the last so many seconds."""
        same = (batches.c.tenant == tenant) & (batches.c.request_hash == request_hash)
        wanted = select(*_COLUMNS).where(same, batches.c.created_at > later(-within_s)).order_by(batches.c.id.desc())
        row = self._db.read(lambda connection: connection.execute(wanted.limit(1)).one_or_none())
        return None if row is None else _row(row)

    def get(self, batch_id: str, tenant: str | None = None) -> BatchRow:
        """Raises UnknownBatch, also for one of another tenant."""
        wanted = select(*_COLUMNS).where(batches.c.id == batch_id)
        if tenant is not None:
            wanted = wanted.where(batches.c.tenant == tenant)
        row = self._db.read(lambda connection: connection.execute(wanted).one_or_none())
        if row is None:
            raise UnknownBatch(f"no batch {batch_id[:100]!r}")
        return _row(row)

    def list(self, tenant: str, *, limit: int, after: str | None) -> list[BatchRow]:
        """A page, newest first, behind the id `after`."""
        wanted = select(*_COLUMNS).where(batches.c.tenant == tenant).order_by(batches.c.id.desc()).limit(limit)
        if after is not None:
            wanted = wanted.where(batches.c.id < after)
        return [_row(row) for row in self._db.read(lambda connection: connection.execute(wanted).all())]

    def waiting(self, limit: int) -> builtins.list[BatchRow]:
        """Batches that have no job yet, the oldest first."""
        wanted = select(*_COLUMNS).where(_WAITING).order_by(batches.c.id).limit(limit)
        return [_row(row) for row in self._db.read(lambda connection: connection.execute(wanted).all())]

    def over(self, limit: int) -> builtins.list[BatchRow]:
        """Batches whose output was kept for its time; their jobs are to go."""
        ended = jobs.c.finished_at <= later(-batches.c.output_keep_s)
        kept = text("batches.output_keep_s IS NOT NULL AND batches.ended_as IS NULL")
        wanted = select(*_COLUMNS).join(jobs, jobs.c.id == batches.c.job_id).where(kept, ended).limit(limit)
        return [_row(row) for row in self._db.read(lambda connection: connection.execute(wanted).all())]

    def close(self, batch_id: str, job_id: str, ended_as: Mapping[str, Any]) -> None:
        """Delete its job, and keep what that was."""
        kept = update(batches).where(batches.c.id == batch_id).values(ended_as=dict(ended_as))
        gone = update(jobs).where(jobs.c.id == ids.parse(job_id)).values(expires_at=now(), idempotency_key=None)

        def work(connection: Connection) -> None:
            connection.execute(kept)
            connection.execute(gone)

        self._db.write(work)

    def began(self, batch_id: str, job_id: str) -> bool:
        """Give the batch its job. False: it was cancelled meanwhile, or has one."""
        return self._settle(batch_id, job_id=ids.parse(job_id))

    def fail(self, batch_id: str, errors: Sequence[Mapping[str, Any]]) -> bool:
        """The batch cannot become a job."""
        return self._settle(batch_id, errors=[*errors], failed_at=now())

    def cancel(self, batch_id: str) -> bool:
        """Cancel one that has no job yet. Raises InvalidState when it has failed or was cancelled."""
        done = self._settle(batch_id, cancelled_at=now())
        if not done and self.get(batch_id).job_id is None:
            raise InvalidState(f"batch {batch_id} has ended and cannot be cancelled")
        return done

    def _settle(self, batch_id: str, **values: Any) -> bool:
        settled = update(batches).where(batches.c.id == batch_id, _WAITING).values(**values).returning(*_COLUMNS)

        def work(connection: Connection) -> bool:
            row = connection.execute(settled).one_or_none()
            if row is not None and row.job_id is None:
                state = "failed" if row.failed_at is not None else "cancelled"
                outbox.batch_ended(self._db, connection, row.tenant, batch_id, state)
            return row is not None

        return self._db.write(work)


def _row(row: Row[Any]) -> BatchRow:
    found = BatchRow._make(row)
    job: UUID | None = row.job_id
    return found._replace(job_id=None if job is None else ids.public(job))

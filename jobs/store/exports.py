"""Sinks of jobs: where their results are to be written once they have ended, and what became of it."""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, select, update

from jobs.errors import InvalidState
from jobs.states import ExportState, JobState
from jobs.store import encoding, ids
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.tables import exports


class Export(NamedTuple):
    """The results of one job on their way to its sink."""

    job_id: str
    target: str
    state: ExportState
    attempts: int
    due_at: datetime | None
    """When it is tried, or tried again."""
    ended_at: datetime | None
    n_results: int | None
    """How many were written."""
    error: str | None
    """Why the last try failed."""


_COLUMNS = [exports.c[name] for name in Export._fields]
_IS_DUE = (exports.c.state == ExportState.DUE) & (exports.c.due_at <= now())


class Exports:
    """The sinks of all jobs that have one."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, job_id: str) -> Export | None:
        """None: the job has no sink."""
        wanted = select(*_COLUMNS).where(exports.c.job_id == ids.parse(job_id))
        row = self._db.read(lambda connection: connection.execute(wanted).one_or_none())
        return None if row is None else _export(row)

    def take(self, hold_s: float) -> Export | None:
        """The one that has been due longest, for whoever writes it: nobody else takes it for so long."""
        first = (
            select(exports.c.job_id)
            .where(_IS_DUE)
            .order_by(exports.c.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        taken = update(exports).where(exports.c.job_id == first.scalar_subquery(), _IS_DUE)
        taken = taken.values(due_at=later(hold_s), attempts=exports.c.attempts + 1).returning(*_COLUMNS)
        row = self._db.write(lambda connection: connection.execute(taken).one_or_none())
        return None if row is None else _export(row)

    def hold(self, export: Export, hold_s: float) -> bool:
        """Whether it is still this try's, which has it for so long from now on."""
        return self._change(export, due_at=later(hold_s))

    def done(self, export: Export, n_results: int) -> None:
        """All results are written."""
        self._change(export, state=ExportState.DONE, due_at=None, ended_at=now(), n_results=n_results, error=None)

    def failed(self, export: Export, error: str, *, again_s: float | None) -> None:
        """The try failed; it is tried again after so long. None: it is given up."""
        told = {"error": encoding.storable(error)[:2000]}
        if again_s is not None:
            self._change(export, **told, due_at=later(again_s))
        else:
            self._change(export, **told, state=ExportState.FAILED, due_at=None, ended_at=now())

    def again(self, job_id: str) -> Export:
        """Have the results of an ended job written once more, at once. Raises InvalidState where there is no sink."""
        anew = update(exports).where(exports.c.job_id == ids.parse(job_id), exports.c.state != ExportState.WAITING)
        anew = anew.values(state=ExportState.DUE, due_at=now(), ended_at=None, attempts=0).returning(*_COLUMNS)
        row = self._db.write(lambda connection: connection.execute(anew).one_or_none())
        if row is None:
            raise InvalidState(f"job {job_id} has no sink, or has not ended")
        return _export(row)

    def _change(self, export: Export, **values: Any) -> bool:
        mine = (exports.c.job_id == ids.parse(export.job_id)) & (exports.c.attempts == export.attempts)
        changed = update(exports).where(mine, exports.c.state == ExportState.DUE).values(**values)
        return bool(self._db.write(lambda connection: connection.execute(changed).rowcount))


def created(database: Database, connection: Connection, job_id: UUID, target: str) -> None:
    """A new job has this sink. Safe to repeat."""
    new = database.insert(exports).values(job_id=job_id, target=target, state=ExportState.WAITING)
    connection.execute(new.on_conflict_do_nothing())


def job_ended(connection: Connection, job: Row[Any], state: str) -> None:
    """Its results are due, if it completed: what others left is no whole output."""
    mine = update(exports).where(exports.c.job_id == job.id, exports.c.state == ExportState.WAITING)
    if state == JobState.COMPLETED:
        connection.execute(mine.values(state=ExportState.DUE, due_at=now()))
    else:
        connection.execute(mine.values(state=ExportState.FAILED, ended_at=now(), error=f"the job is {state}"))


def _export(row: Row[Any]) -> Export:
    return Export(**{**row._mapping, "job_id": ids.public(row.job_id), "state": ExportState(row.state)})

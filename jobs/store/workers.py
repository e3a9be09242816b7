"""The workers as they last reported themselves; nothing but people's eyes and the number of hints relies on it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, select, update

from jobs.errors import UnknownWorker
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.tables import workers
from jobs.store.values import WorkerRow

STOPPED = "stopped"
"""The state of a worker that has ended as it should."""
ENDED = "ended: "
"""The state of one that did not begins with this and goes on with the reason."""


def alive(within_s: float) -> list[ColumnElement[bool]]:
    """What holds of a worker that reported in the last so many seconds and has not ended since."""
    ended = workers.c.state.startswith(ENDED)
    return [workers.c.heartbeat_at > later(-within_s), workers.c.state != STOPPED, ~ended]


class Workers:
    """Heartbeats of all workers."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def beat(
        self,
        worker_id: str,
        *,
        host: str,
        pid: int,
        boot_id: str,
        device: str,
        models: Sequence[str],
        state: str,
        queues: Sequence[str],
        load: Mapping[str, float] | None = None,
        memory_bytes: int | None = None,
        models_bytes: int | None = None,
    ) -> bool:
        """Note that the worker is alive, and what it is doing; whether it is to be quiet."""
        report = {"host": host, "pid": pid, "boot_id": boot_id, "device": device, "state": state}
        report |= {"models": list(models), "queues": list(queues), "load": load, "heartbeat_at": now()}
        report |= {"memory_bytes": memory_bytes, "models_bytes": models_bytes}
        row = self._db.insert(workers).values(id=worker_id, started_at=now(), **report)
        beat = row.on_conflict_do_update(index_elements=[workers.c.id], set_=report).returning(workers.c.quiet)
        return bool(self._db.relaxed(lambda connection: connection.execute(beat).scalar_one()))

    def quiet(self, worker_id: str, *, on: bool) -> None:
        """Have the worker claim nothing more, or go on; it hears of it with its next report. Raises UnknownWorker."""
        told = update(workers).where(workers.c.id == worker_id).values(quiet=on)
        if not self._db.write(lambda connection: connection.execute(told).rowcount):
            raise UnknownWorker(f"no worker {worker_id[:100]!r}")

    def live(self, within_s: float) -> list[WorkerRow]:
        """The workers that reported in the last so many seconds and have not ended since, by id."""
        wanted = select(*[workers.c[name] for name in WorkerRow._fields]).where(*alive(within_s))
        return self._rows(wanted.order_by(workers.c.id))

    def ended(self, within_s: float) -> list[WorkerRow]:
        """The workers that ended in the last so many seconds as they should not have, the last one first."""
        wanted = select(*[workers.c[name] for name in WorkerRow._fields]).where(
            workers.c.heartbeat_at > later(-within_s), workers.c.state.startswith(ENDED)
        )
        return self._rows(wanted.order_by(workers.c.heartbeat_at.desc()))

    def note_end(self, *, host: str, pid: int, boot_id: str, why: str) -> bool:
        """Note why a worker ended that could not say so itself; whether there was one."""
        gone = (
            update(workers)
            .where(workers.c.host == host, workers.c.pid == pid, workers.c.boot_id == boot_id)
            .where(workers.c.state != STOPPED, ~workers.c.state.startswith(ENDED))
            .values(state=ENDED + why, heartbeat_at=now())
        )
        return self._db.write(lambda connection: connection.execute(gone).rowcount) > 0

    def _rows(self, wanted: "Select[Any]") -> list[WorkerRow]:
        rows = self._db.read(lambda connection: connection.execute(wanted).all())
        return [WorkerRow(*row)._replace(models=tuple(row.models), queues=tuple(row.queues)) for row in rows]

    def prune(self, older_s: float) -> int:
        """How many workers that fell silent longer ago were forgotten."""
        gone = delete(workers).where(workers.c.heartbeat_at < later(-older_s))
        return self._db.write(lambda connection: connection.execute(gone).rowcount)

"""The workers as they last reported themselves; nothing but people's eyes and the number of hints relies on it."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, select

from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.tables import workers
from jobs.store.values import WorkerRow


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
    ) -> None:
        """Note that the worker is alive, and what it is doing."""
        report = {"host": host, "pid": pid, "boot_id": boot_id, "device": device, "state": state}
        report |= {"models": list(models), "queues": list(queues), "load": load, "heartbeat_at": now()}
        row = self._db.insert(workers).values(id=worker_id, started_at=now(), **report)
        beat = row.on_conflict_do_update(index_elements=[workers.c.id], set_=report)

        def work(connection: Connection) -> None:
            connection.execute(beat)

        self._db.relaxed(work)

    def live(self, within_s: float) -> list[WorkerRow]:
        """The workers that reported in the last so many seconds, by id."""
        wanted = select(*[workers.c[name] for name in WorkerRow._fields]).where(
            workers.c.heartbeat_at > later(-within_s)
        )
        rows = self._db.read(lambda connection: connection.execute(wanted.order_by(workers.c.id)).all())
        return [WorkerRow(*row)._replace(models=tuple(row.models), queues=tuple(row.queues)) for row in rows]

    def prune(self, older_s: float) -> int:
        """How many workers that fell silent longer ago were forgotten."""
        gone = delete(workers).where(workers.c.heartbeat_at < later(-older_s))
        return self._db.write(lambda connection: connection.execute(gone).rowcount)

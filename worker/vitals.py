"""What a worker depends on, asked now and then: whether it could work on a job at this moment."""

import time
from typing import Any

from jobs.errors import QueueUnavailable, SchemaOutdated, StoreUnavailable
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.store import Store
from worker.residency import Residency

LONG_IDLE_S = 60.0
"""A worker that looks for work by itself less often than this depends on hints."""


class Vitals:
    """The last answers of database, Redis and models."""

    def __init__(self, settings: Settings, store: Store, queue: Queue, residency: Residency) -> None:
        self._settings, self._store, self._queue, self._residency = settings, store, queue, residency
        self._database_at: float | None = None
        self._database: str | None = None
        self._schema: str | None = None
        self._redis: str | None = None

    def look(self) -> None:
        """Ask each of them once. Never raises; waits as long as their timeouts last."""
        self._database = self._schema = None
        try:
            self._store.check_schema()
            self._database_at = time.monotonic()
        except SchemaOutdated as error:
            self._database_at, self._schema = time.monotonic(), str(error)
        except StoreUnavailable as error:
            self._database = str(error)
        try:
            self._queue.depth(self._settings.queues[0])
            self._redis = None
        except QueueUnavailable as error:
            self._redis = str(error)

    def facts(self) -> dict[str, Any]:
        """For the pulse (`jobs.health` reads it)."""
        return {
            "database_at": self._database_at,
            "database": self._database,
            "redis": self._redis,
            "problems": [problem for problem in (self._schema, self._deaf(), self._residency.trouble) if problem],
        }

    def _deaf(self) -> str | None:
        """Redis counts only where a worker without hints would not find its work soon."""
        idle_s = self._settings.idle_claim_s
        if self._redis is None or idle_s <= LONG_IDLE_S:
            return None
        return f"{self._redis}, and it looks for work by itself only every {idle_s:g} s"

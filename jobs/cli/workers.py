"""Tells whether anybody works on a queue."""

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.store import Store
    from jobs.store.values import WorkerRow

LATELY_S = 3600.0
"""Workers that ended within this time are remembered with the reason."""
MOST = 8
"""Live workers that are named."""
LIVE_S = 30.0
"""A worker that reported in this time is there, unless it ran on this machine and its process is gone."""


def anyone_serves(store: "Store", queue: str) -> bool:
    """Whether a worker that lives serves the queue."""
    return any(queue in worker.queues and not _gone(worker) for worker in store.workers.live(LIVE_S))


class Absence:
    """Notices that nobody serves a job's queue: once, and again after somebody did."""

    def __init__(self, store: "Store", queue: str) -> None:
        self._store, self._queue, self._told = store, queue, False

    def noticed(self) -> str | None:
        """What is to be said of it now."""
        told, self._told = self._told, not anyone_serves(self._store, self._queue)
        return nobody(self._queue) + last_end(self._store, self._queue) if self._told and not told else None


def nobody(queue: str) -> str:
    """That no worker serves the queue, and what to do about it."""
    return f"no worker serves queue {queue!r} now; start one with `textmill up` or `textmill worker`"


def last_end(store: "Store", queue: str) -> str:
    """Why the last worker of a queue ended, if it was lately and not as told; else nothing."""
    ended = next((worker for worker in store.workers.ended(LATELY_S) if queue in worker.queues), None)
    return f"; the last one {ended.state}" if ended else ""


def census(store: "Store") -> str:
    """The workers that live, and why others ended lately."""
    live = [worker for worker in store.workers.live(LIVE_S) if not _gone(worker)]
    ended = store.workers.ended(LATELY_S)
    parts = [f"{len(live)} live", *(f"{row.id} on {row.device} ({row.state})" for row in live[:MOST])]
    if ended:
        parts.append(
            f"{len(ended)} ended in the last hour, at last {ended[0].id} on {ended[0].device} ({ended[0].state})"
        )
    return "; ".join(parts)


def _gone(worker: "WorkerRow") -> bool:
    """Whether it ran here and has ended: its last report is younger than that."""
    if worker.host != socket.gethostname():
        return False
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False

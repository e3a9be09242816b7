"""The chunks a shift holds at this moment, and the one way to lose one."""

import threading
from collections import Counter, deque
from collections.abc import Callable

from worker.feed import Feed
from worker.held import Held


class InHand:
    """Chunks by id, from claim to the end of their lease. Safe to use from several threads."""

    def __init__(self, feed: Feed, on_change: Callable[[], None]) -> None:
        self.feed = feed
        self.forgotten: deque[Held] = deque()
        """Chunks whose requests the device loop must still take out of their model."""
        self._on_change = on_change
        self._lock = threading.Lock()
        self._held: dict[int, Held] = {}
        self._jobs: Counter[str] = Counter()
        self.items = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: Held) -> None:
        with self._lock:
            self._held[held.claim.chunk_id] = held
            self._jobs[held.claim.job_id] += 1
            self.items += held.claim.seq_hi - held.claim.seq_lo

    def remove(self, held: Held) -> bool:
        """Whether it was still there."""
        with self._lock:
            if self._held.get(held.claim.chunk_id) is not held:
                return False
            del self._held[held.claim.chunk_id]
            self._jobs[held.claim.job_id] -= 1
            if not self._jobs[held.claim.job_id]:
                del self._jobs[held.claim.job_id]
            self.items -= held.claim.seq_hi - held.claim.seq_lo
        self._on_change()
        return True

    def drop(self, held: Held) -> bool:
        """Forget a chunk wherever it is; nothing of it is written any more. Whether it was still there."""
        held.gone = True
        there = self.remove(held)
        self.feed.drop(held)
        held.forsake()
        self.forgotten.append(held)
        self._on_change()
        return there

    def all(self) -> list[Held]:
        with self._lock:
            return list(self._held.values())

    def of_model(self, model: str) -> list[Held]:
        return [held for held in self.all() if held.claim.model == model]

    def of_job(self, job_id: str) -> list[Held]:
        return [held for held in self.all() if held.claim.job_id == job_id]

    def has_job(self, job_id: str) -> bool:
        return job_id in self._jobs

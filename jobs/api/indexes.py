"""The vectors of jobs that were searched lately, so that the next search need not read them again."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.api.problems import HttpProblem
from jobs.search import Index, open_index
from jobs.store.values import Pulse

if TYPE_CHECKING:
    from jobs.store import Store

Version = dict[str, Pulse]
"""How far the job and its retries were: a new result makes a new version."""


@dataclass(frozen=True, slots=True)
class _Kept:
    version: Version
    index: Index


class Indexes:
    """Keeps indexes of at most so many bytes together; the one unused for longest goes first. May be shared by threads.

    While one is read the older ones make room for it, so that there is never more in memory than that, but for what
    searches that still run hold.
    """

    def __init__(self, store: "Store", most_bytes: int) -> None:
        self._store, self._most = store, most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock, self._reading = threading.Lock(), threading.Lock()

    def kept(self, job_id: str) -> Index | None:
        """The job's index, if it is here and as new as its results. Raises UnknownJob, StoreUnavailable."""
        return self._found(*self._now(job_id))

    def read(self, job_id: str) -> Index:
        """The job's index, read from the database unless somebody else just did; one is read at a time.

        Raises HttpProblem for one that is larger than all may be together, and what `open_index` raises.
        """
        with self._reading:
            first, version = self._now(job_id)
            if (found := self._found(first, version)) is not None:
                return found
            index = open_index(self._store, job_id, self._make_room)
            with self._lock:
                self._kept[first] = _Kept(version, index)
            return index

    def _now(self, job_id: str) -> tuple[str, Version]:
        """What the job's index goes by, which is that of all its retries, and the version it has to have."""
        chain = self._store.retries.chain(job_id)
        return chain[0], self._store.jobs.pulses(chain)

    def _found(self, first: str, version: Version) -> Index | None:
        with self._lock:
            kept = self._kept.get(first)
            if kept is None:
                return None
            if kept.version != version:
                del self._kept[first]
                return None
            self._kept.move_to_end(first)
            return kept.index

    def _make_room(self, needed: int) -> None:
        if needed > self._most:
            most = f"{self._most:,} (setting max_index_bytes)"
            raise HttpProblem(422, "index_too_large", f"the job's vectors take {needed:,} bytes; at most {most} may")
        with self._lock:
            while sum(kept.index.size_bytes for kept in self._kept.values()) + needed > self._most:
                self._kept.popitem(last=False)

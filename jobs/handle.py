"""One submitted job: wait for it, read its results, steer it."""

import sys
import time
from bisect import insort
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

from jobs.errors import UsageError
from jobs.intake import Loaded
from jobs.schemas import Job, Result

if TYPE_CHECKING:
    from jobs.store import Store
    from jobs.store.values import ResultRow

Status = Literal["ok", "error"]

FIRST_LOOK_S = 0.02
LAST_LOOK_S = 1.0
"""A waiting program looks at first often, for quick jobs, then once a second."""
PAGE = 1000


class JobHandle:
    """A job of the store. Cheap to make; everything is read when asked for."""

    def __init__(self, store: "Store", job_id: str, loaded: Loaded | None = None, *, seen: Job | None = None) -> None:
        self._store = store
        self.id = job_id
        self._seen = seen
        self.loaded = loaded
        """What this very submit stored and skipped; None when the job was there before."""

    @property
    def job(self) -> Job:
        """As it was seen last."""
        return self._seen or self.refresh()

    def refresh(self) -> Job:
        """The job as it stands now."""
        self._seen = self._store.jobs.get(self.id)
        return self._seen

    def wait(self, timeout: float | None = None, progress: bool = False) -> Job:
        """The job once it is final: completed, failed, expired or cancelled. Raises TimeoutError after `timeout` s.

        `progress`: keep one line on stderr up to date.
        """
        line = _Line() if progress else None
        for job in self._looks(timeout):
            if line is not None:
                line.show(job)
        return job

    def results(self, status: Status | None = None, *, after: int = -1) -> Iterator[Result]:
        """The results there are of the items behind `after`, in their order. Raises UsageError for another status."""
        if status not in (None, *get_args(Status)):
            raise UsageError(f"unknown status {status!r}; known: {', '.join(get_args(Status))}")
        return self._results(status, after)

    def rows(self, status: Status | None = None, *, after: int = -1) -> Iterator["ResultRow"]:
        """The same as they are stored, for export: several times as quick."""
        while page := self._store.results.rows_after(self.id, after=after, limit=PAGE, status=status):
            yield from page
            after = page[-1].seq

    def latest(self) -> Iterator[Result]:
        """The first job's results in order, each replaced by a retry's where that counts: ok before an error, then the
        newest."""
        return self._store.retries.latest(self.id)

    def latest_rows(self) -> Iterator["ResultRow"]:
        """The same as they are stored."""
        return self._store.retries.latest_rows(self.id)

    def stream(self) -> Iterator[Result]:
        """Every result once, as items finish; ends when the job is final."""
        gaps = _Gaps()
        for job in self._looks(None):
            yield from gaps.new(self._store, job)

    def cancel(self) -> Job:
        """Stop the job; results so far are kept. Raises InvalidState from another final state."""
        return self._store.jobs.cancel(self.id)

    def pause(self) -> Job:
        """Let the job rest. Raises InvalidState when it is final."""
        return self._store.jobs.pause(self.id)

    def resume(self) -> Job:
        """Let a paused job go on. Raises InvalidState when it is final."""
        return self._store.jobs.resume(self.id)

    def approve(self) -> Job:
        """Let the rest follow the canary. Raises InvalidState for a job that has none, or has ended."""
        return self._store.supervision.approve(self.id)

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def _results(self, status: Status | None, after: int) -> Iterator[Result]:
        while page := self._store.results.page(self.id, after=after, limit=PAGE, status=status):
            yield from page
            after = page[-1].seq

    def _looks(self, timeout: float | None) -> Iterator[Job]:
        """The job now and again, at last in its final state."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_LOOK_S
        while not (job := self.refresh()).state.final:
            yield job
            left = pause if until is None else until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self.id} is still {job.state} after {timeout:g} s")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, LAST_LOOK_S)
        yield job


class _Gaps:
    """Which items have not been seen: a few ranges, since chunks finish nearly in order. The last one is open."""

    def __init__(self) -> None:
        self._gaps: list[tuple[int, int]] = [(0, sys.maxsize)]

    def new(self, store: "Store", job: Job) -> Iterator[Result]:
        """The results that came since the last call."""
        for lo, hi in list(self._gaps):
            self._gaps.remove((lo, hi))
            for result in _between(store, job.id, lo, hi):
                if result.seq > lo:
                    insort(self._gaps, (lo, result.seq))
                lo = result.seq + 1
                yield result
            if lo < hi:
                insort(self._gaps, (lo, hi))


class _Line:
    """A job's progress on one line of stderr."""

    def show(self, job: Job) -> None:
        counts = job.counts
        done = counts.ok + counts.error
        text = f"{job.id} {job.state}: {done:,}/{counts.total:,} items, {counts.error:,} failed"
        if not job.state.final:
            text += f", {job.rate.items_per_s:,.1f} items/s"
        print(f"\r{text:<100}", end="\n" if job.state.final else "", file=sys.stderr, flush=True)


def _between(store: "Store", job_id: str, lo: int, hi: int) -> Iterator[Result]:
    while lo < hi and (page := store.results.page(job_id, after=lo - 1, limit=min(PAGE, hi - lo))):
        for result in page:
            if result.seq >= hi:
                return
            yield result
        lo = page[-1].seq + 1

"""Watching jobs change: one look into the database serves everybody who waits."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from anyio.to_thread import run_sync

from jobs.errors import StoreUnavailable
from jobs.schemas import Job
from jobs.store.values import Pulse

LOOK_S = 0.25
"""Time between two looks; a change is seen so much later, at most."""
SHARE = 0.2
"""Most of the time that looks may take themselves."""
JOBS_A_LOOK = 1000

Look = Callable[[Sequence[str]], dict[str, Pulse]]
log = logging.getLogger("textmill.api")


def pulse_of(job: Job) -> Pulse:
    """The pulse that the job had when it was read."""
    return Pulse(str(job.state), str(job.control), job.counts.ok + job.counts.error)


class _Watched:
    """A job that somebody waits for."""

    def __init__(self) -> None:
        self.waiting = 0
        self.known = False
        self.pulse: Pulse | None = None
        self.changed = asyncio.Event()

    def turn(self, pulse: Pulse | None) -> None:
        if self.known and self.pulse == pulse:
            return
        self.known, self.pulse = True, pulse
        self.changed.set()
        self.changed = asyncio.Event()


class Watching:
    """Tells coroutines of one event loop when jobs have changed. `look` reads pulses and `read` a job, in threads."""

    def __init__(self, look: Look, read: Callable[[str], Job]) -> None:
        self._look, self._read = look, read
        self._reads: dict[str, asyncio.Task[Job]] = {}
        self._watched: dict[str, _Watched] = {}
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def changed(self, job_id: str, seen: Pulse, timeout_s: float) -> bool:
        """Whether the job was seen to differ from `seen` (or to be gone) within the time."""
        watched = self._watched.setdefault(job_id, _Watched())
        watched.waiting += 1
        self._start()
        try:
            async with asyncio.timeout(timeout_s):
                while not watched.known or watched.pulse == seen:
                    await watched.changed.wait()
            return True
        except TimeoutError:
            return False
        finally:
            watched.waiting -= 1
            if not watched.waiting:
                self._watched.pop(job_id, None)

    async def job(self, job_id: str) -> Job:
        """The job as it is now; all who ask while it is being read share the answer: a thousand wake up at once. Raises
        UnknownJob, StoreUnavailable."""
        task = self._reads.get(job_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(run_sync(self._read, job_id))
            self._reads[job_id] = task
            task.add_done_callback(lambda done: self._reads.pop(job_id, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _start(self) -> None:
        self._wanted.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._go_on(), name="watching")

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            began = loop.time()
            if not self._watched:
                self._wanted.clear()
                continue
            try:
                await self._look_around()
            except StoreUnavailable as error:
                log.warning("jobs cannot be watched: %s", error)
            await asyncio.sleep(max(LOOK_S, (loop.time() - began) / SHARE))

    async def _look_around(self) -> None:
        wanted = list(self._watched)
        for at in range(0, len(wanted), JOBS_A_LOOK):
            part = wanted[at : at + JOBS_A_LOOK]
            found = await run_sync(self._look, part)
            for job_id in part:
                if (watched := self._watched.get(job_id)) is not None:
                    watched.turn(found.get(job_id))

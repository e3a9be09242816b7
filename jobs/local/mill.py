"""The supervisor: broker, worker and upkeep of one home, as children of `textmill run` or `textmill up`."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from jobs.errors import TextmillError, WorkerFailed
from jobs.local import broker
from jobs.local.machine import MachineLock, Owner, Role, owner
from jobs.local.process import WorkerProcess
from jobs.settings import Settings

TICK_S = 0.1
BROKER_CHECK_S = 2.0
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits before the next start of a worker that died; the last one repeats."""
CALM_S = 60.0
"""A worker that lived this long has its earlier deaths forgiven."""
LATE_S = 10.0
"""How long after its grace period a worker that was told to stop is killed."""
FALSE_STARTS = 3
"""Deaths in a row before the worker was ready that mean: it cannot run here."""

Say = Callable[[str], None]
"""Takes one line for people."""


class Upkeep(Protocol):
    """What the mill needs of upkeep: a thread to start and stop."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Mill:
    """The machine of a home. One process has it at a time; the others wait until `try_start` succeeds.

    `ready` tells whether the worker with that process id has announced itself; `upkeep` is made after the broker runs.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        role: Role,
        ready: Callable[[int], bool],
        upkeep: Callable[[], Upkeep],
        say: Say,
        port: int | None = None,
    ) -> None:
        self._settings, self._ready, self._make_upkeep, self._say, self._port = settings, ready, upkeep, say, port
        self._lock = MachineLock(settings.home, role)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._upkeep: Upkeep | None = None
        self._worker: WorkerProcess | None = None
        self._false_starts = self._deaths = 0
        self._was_ready = False
        self.failure: TextmillError | None = None
        """Why it gave up; the machine does nothing any more."""

    @property
    def running(self) -> bool:
        """Whether this process has the machine."""
        return self._thread is not None

    @property
    def home(self) -> Path:
        return self._settings.home

    @property
    def broker_url(self) -> str:
        """Where hints go: the configured Redis, else the embedded broker."""
        return self._settings.redis_url or broker.find(self._settings.home) or ""

    @property
    def worker_pid(self) -> int | None:
        """The worker's process id, if one runs."""
        return self._worker.pid if self._worker is not None else None

    def owner(self) -> Owner | None:
        """The other process that has the machine, if one has it."""
        return None if self.running else owner(self._settings.home)

    def try_start(self) -> bool:
        """Start everything if nobody else has the machine. Whether this process has it now."""
        if self.running:
            return True
        if not self._lock.acquire():
            return False
        try:
            self._start()
        except BaseException:
            self._lock.release()
            raise
        return True

    def stop(self) -> bool:
        """End worker, upkeep and, last, the broker. Safe to repeat; Ctrl-C meanwhile kills the worker.

        False: the worker had to be killed, so its chunks are redone when their leases have run out.
        """
        if self._thread is None:
            return True
        self._stopping.set()
        self._thread.join()
        self._thread = None
        try:
            return self._stop_worker()
        finally:
            self._stop_the_rest()

    def _start(self) -> None:
        if self._settings.redis_url is None:
            broker.start(self._settings.home, port=self._port)
        self._upkeep = self._make_upkeep()
        self._upkeep.start()
        self._stopping.clear()
        self._start_worker()
        self._thread = threading.Thread(target=self._watch, name="mill", daemon=True)
        self._thread.start()

    def _stop_worker(self) -> bool:
        worker, self._worker = self._worker, None
        return worker.stop(self._settings.grace_s + LATE_S) if worker is not None and not worker.died() else True

    def _stop_the_rest(self) -> None:
        if self._upkeep is not None:
            self._upkeep.stop()
        if self._settings.redis_url is None:
            broker.stop(self._settings.home)
        self._lock.release()

    def _watch(self) -> None:
        checked = time.monotonic()
        while not self._stopping.wait(TICK_S) and self.failure is None:
            try:
                self._look_after_worker()
                if time.monotonic() - checked >= BROKER_CHECK_S:
                    checked = time.monotonic()
                    self._look_after_broker()
            except TextmillError as error:
                self.failure = error
            except OSError as error:
                self.failure = WorkerFailed(f"the worker cannot be started: {error}")

    def _look_after_worker(self) -> None:
        worker = self._worker
        if worker is None:
            return
        if not worker.died():
            self._note_progress(worker)
            return
        self._count(worker)
        wait_s = BACKOFF_S[min(self._deaths, len(BACKOFF_S)) - 1]
        self._say(f"the worker ended ({worker.why()}); starting it again in {wait_s:g} s")
        if not self._stopping.wait(wait_s):
            self._start_worker()

    def _note_progress(self, worker: WorkerProcess) -> None:
        if not self._was_ready and self._ready(worker.pid):
            self._was_ready, self._false_starts = True, 0
        if self._deaths and time.monotonic() - worker.started > CALM_S:
            self._deaths = 0

    def _count(self, worker: WorkerProcess) -> None:
        self._deaths += 1
        if self._was_ready or self._ready(worker.pid):
            self._false_starts = 0
            return
        self._false_starts += 1
        if worker.unfit or self._false_starts >= FALSE_STARTS:
            said = worker.last_words() or "(nothing)"
            log = self._settings.home / "logs" / "worker.log"
            raise WorkerFailed(f"the worker does not start ({worker.why()}); its last words, from {log}:\n{said}")

    def _start_worker(self) -> None:
        self._was_ready = False
        self._worker = WorkerProcess(self._settings, ["--restarted"])

    def _look_after_broker(self) -> None:
        if self._settings.redis_url is not None:
            return
        before = broker.find(self._settings.home)
        now = broker.start(self._settings.home).url
        if now != before:
            self._say("the embedded broker had died; it runs again")

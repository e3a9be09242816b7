"""A small deployment for tests: a database, a broker and real worker processes, each ended by its own pid."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.queue import Queue
from jobs.schemas import Job
from jobs.settings import Settings
from jobs.store import Store
from jobs.upkeep import Upkeep

QUICK = {"lease_s": 2.0, "idle_claim_s": 0.5, "upkeep_s": 0.2, "leader_ttl_s": 1.0, "grace_s": 5.0, "log_level": "info"}
"""Seconds where a deployment has minutes."""
NOWHERE = "redis://127.0.0.1:1/0"
sqlite_when_thorough = pytest.mark.parametrize(
    "store_url", [pytest.param("sqlite", marks=pytest.mark.thorough), "postgresql"], indirect=True
)
"""For what takes long and hardly depends on the database: on both only in `make faults`."""
Deploy = Callable[..., "Deployment"]
"""The fixture `deploy`: a deployment on the test's servers; keyword arguments are settings."""


class Worker:
    """One `python -m worker --one` in a session of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "worker", "--one"],
                env=environment,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> int:
        """kill -9, and its exit code."""
        if self.alive:
            self._process.kill()
        return self._process.wait(10)

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 20.0) -> int:
        return self._process.wait(timeout_s)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Deployment:
    """Starts workers, submits hints, waits; ends every process it started."""

    def __init__(self, home: Path, database_url: str, redis_url: str = NOWHERE, **overrides: Any) -> None:
        self.settings = Settings(home=home, database_url=database_url, redis_url=redis_url, **{**QUICK, **overrides})
        home.mkdir(parents=True, exist_ok=True)
        self.store = Store.open(self.settings.effective_database_url, lease_s=self.settings.lease_s)
        self.queue = Queue(self.settings)
        self.workers: list[Worker] = []
        self.upkeep = Upkeep(self.store, self.queue, self.settings, "test")

    def close(self) -> None:
        """End every worker that is left, and every connection."""
        for worker in self.workers:
            worker.kill()
        self.upkeep.stop()
        self.queue.close()
        self.store.close()

    def start(self, **variables: str) -> Worker:
        """A new worker process, once it has reported itself."""
        worker = self.launch(**variables)
        self.until(lambda: self._is_up(worker), what="the worker to report itself", worker=worker)
        return worker

    def launch(self, **variables: str) -> Worker:
        """A new worker process, not waited for."""
        worker = Worker({**self._environment(), **variables}, self.settings.home / f"worker{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def hint(self, n: int = 1) -> None:
        self.queue.hint("default", n)

    def final(self, job_id: str, timeout_s: float = 30.0) -> Job:
        """The job, once it is in a final state."""
        self.until(lambda: self.store.jobs.get(job_id).state.final, timeout_s, what=f"{job_id} to end")
        return self.store.jobs.get(job_id)

    def until(
        self, true: Callable[[], object], timeout_s: float = 30.0, *, what: str = "", worker: Worker | None = None
    ) -> None:
        """Poll. Fails with what the workers said when it takes too long."""
        deadline = time.monotonic() + timeout_s
        while not true():
            dead = worker is not None and not worker.alive
            if dead or time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what or true}:\n{self.said()[-6000:]}")
            time.sleep(0.02)

    def said(self) -> str:
        return "\n".join(f"--- {worker.pid}\n{worker.said()}" for worker in self.workers)

    def _is_up(self, worker: Worker) -> bool:
        return any(row.pid == worker.pid for row in self.store.workers.live(60))

    def _environment(self) -> dict[str, str]:
        given = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
        return {**os.environ, **{f"TEXTMILL_{name.upper()}": str(value) for name, value in given.items()}}

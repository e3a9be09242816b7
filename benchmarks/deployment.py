"""A private deployment to measure: a database, a Valkey server and worker processes that end with it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jobs.settings import Settings
from jobs.store import Store
from tests.servers import Postgres, Valkey

DATABASES = ("sqlite", "postgresql")
START_TIMEOUT_S = 60.0
ALIVE_S = 60.0


@dataclass
class Deployment:
    """Where producers and workers of one measurement meet."""

    settings: Settings
    store: Store
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """A worker process; returns once it has announced itself."""
        before = len(self.store.workers.live(ALIVE_S))
        log = (self.settings.home / f"worker-{len(self.workers)}.log").open("wb")
        command = [sys.executable, "-m", "worker"]
        worker = subprocess.Popen(
            command, env=environment(self.settings), stdout=log, stderr=log, start_new_session=True
        )
        self.workers.append(worker)
        deadline = time.monotonic() + START_TIMEOUT_S
        while len(self.store.workers.live(ALIVE_S)) <= before:
            if worker.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker did not start: {Path(log.name).read_text(errors='replace')[-4000:]}")
            time.sleep(0.02)
        return worker

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(START_TIMEOUT_S)
        self.workers.clear()


@contextmanager
def deployment(database: str, *, durable: bool = True, **overrides: object) -> Iterator[Deployment]:
    """A fresh deployment on `sqlite` or `postgresql`; everything ends with the block.

    `durable`: PostgreSQL waits for the disk at each commit, as it does in earnest; SQLite always does.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textmill-bench-")))
        valkey = stack.enter_context(Valkey()).start()
        url = f"sqlite:///{home / 'textmill.db'}"
        if database == "postgresql":
            url = stack.enter_context(Postgres(durable=durable)).start().create_database()
        settings = Settings(**{"home": home, "database_url": url, "redis_url": valkey.url, **overrides})
        store = Store.open(settings.effective_database_url, lease_s=settings.lease_s)
        stack.callback(store.close)
        store.upgrade()
        running = Deployment(settings, store)
        stack.callback(running.stop_workers)
        yield running


def environment(settings: Settings) -> dict[str, str]:
    """The environment that gives another process these settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEXTMILL_")}
    given = settings.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"queues"})
    return inherited | {f"TEXTMILL_{name.upper()}": str(value) for name, value in given.items()}

"""Runs the `textmill` command as its users do: a real process, a home of its own, real servers behind it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from jobs.local import broker
from jobs.models import ModelSpec
from jobs.store import Store
from jobs.tasks import all_tasks

TEXTMILL = str(Path(sys.executable).with_name("textmill"))
TASKS = tuple(task.name for task in all_tasks())


class Home:
    """A home with an awkward name, and the commands that work in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "Mühle & Söhne"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("TEXTMILL_")}
        self.env |= {"TEXTMILL_HOME": str(self.path), "TEXTMILL_GRACE_S": "2", "TEXTMILL_IDLE_CLAIM_S": "0.3"}

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """A command that goes on; the caller sees to its end."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [TEXTMILL, *arguments], cwd=self.folder, env=self.env, text=True, **{**streams, **options}
        )

    def run(self, *arguments: str, given: str | None = None) -> "subprocess.CompletedProcess[str]":
        """A finished command."""
        return subprocess.run(
            [TEXTMILL, *arguments],
            cwd=self.folder,
            env=self.env,
            input=given or "",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def texts(self, name: str, n: int) -> str:
        """An input of so many texts; its name."""
        (self.folder / name).write_text("".join(f"text number {number}\n" for number in range(n)), encoding="utf-8")
        return name

    def results(self, name: str) -> list[dict[str, Any]]:
        """What an output file holds."""
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]

    def store(self) -> Store:
        """The home's database, seen from outside; the caller closes it."""
        self.path.mkdir(parents=True, exist_ok=True)
        return Store.open(f"sqlite:///{self.path / 'textmill.db'}")

    def slow_model(self, delay_s: float = 0.05, items: int = 4) -> str:
        """Registers a fake model that takes its time for every few items; its name."""
        options = {"delay_s": delay_s, "max_items": items}
        spec = {"name": "slow", "path": "fake", "kind": "any", "tasks": TASKS, "engine": "fake", "head": "classify"}
        store = self.store()
        store.models.put(ModelSpec.model_validate(spec | {"generation": options}))
        store.close()
        return "slow"

    def done(self) -> int:
        """Items that have a result, over all jobs."""
        store = self.store()
        try:
            return sum(job.counts.ok + job.counts.error for job in store.jobs.list())
        finally:
            store.close()

    def cancel_oldest(self) -> None:
        """Cancel the first job that was submitted."""
        store = self.store()
        store.jobs.cancel(store.jobs.list()[-1].id)
        store.close()

    def processes(self) -> list[psutil.Process]:
        """Whatever runs in this home, the broker included."""
        found = []
        for process in psutil.process_iter(["pid"]):
            try:
                if process.environ().get("TEXTMILL_HOME") == str(self.path) and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def worker(self) -> psutil.Process | None:
        """The worker, if one runs."""
        for process in self.processes():
            try:
                if "jobs.local.leash" in process.cmdline():
                    return process
            except psutil.Error:
                continue
        return None

    def close(self) -> None:
        """End everything that is left."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.Error:
                continue
        if self.path.exists():
            broker.stop(self.path)


def interrupt(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Ctrl-C; what it had printed on stdout and stderr."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=30)


def poll(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)

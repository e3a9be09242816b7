"""`textmill worker` as a deployment runs it: a supervisor with its worker, for tests of both."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from jobs.pulse import Seen, pulses
from tests.deployment import Deployment


class Supervised:
    """One `textmill worker` in a session of its own, on a deployment's servers."""

    def __init__(self, mill: Deployment, *arguments: str, **variables: str) -> None:
        self._mill, self.log = mill, mill.settings.home / "supervisor.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from jobs.cli import main; main()", "worker", *arguments],
                env={**environment(mill), **variables},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def __enter__(self) -> "Supervised":
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.children(), psutil.Process(self.pid)] if self.alive else []:
            process.kill()
        self._process.wait(20)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True) if self.alive else []

    def worker(self, *, other_than: int = 0) -> int:
        """The process id of its worker, once that is ready; not one that is known to have died."""
        self.until(lambda: self._ready(other_than), what="a worker to be ready")
        return self._ready(other_than)[0].pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 30.0) -> int:
        return self._process.wait(timeout_s)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, true: Any, timeout_s: float = 30.0, *, what: str) -> None:
        try:
            self._mill.until(true, timeout_s, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- supervisor\n{self.said()[-6000:]}") from None

    def _ready(self, other_than: int) -> list[Seen]:
        return [
            seen
            for seen in pulses(self._mill.settings.home)
            if seen.role == "worker" and seen.pid != other_than and seen.facts["state"] in ("idle", "working")
        ]


def altered(mill: Deployment, code: str) -> dict[str, str]:
    """Variables with which worker processes run a line of code before all else: to break what no input can break."""
    (mill.settings.home / "sitecustomize.py").write_text(f"import sys\nif '--one' in sys.orig_argv:\n    {code}\n")
    return {"PYTHONPATH": os.pathsep.join([str(mill.settings.home), os.environ.get("PYTHONPATH", "")])}


def environment(mill: Deployment) -> dict[str, str]:
    """What a process needs to know of the deployment, and nothing else of Textmill's."""
    return {name: value for name, value in mill._environment().items() if name != "NOTIFY_SOCKET"}


def health(home: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of `textmill health`, and what it says."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from jobs.cli import main; main()", "health", *arguments],
        env={**os.environ, "TEXTMILL_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr

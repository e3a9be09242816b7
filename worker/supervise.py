"""Runs one worker process per GPU and starts each anew when it ends."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from worker.watchdog import UNFIT

log = logging.getLogger("textmill.supervisor")

WAITS_S = (0.0, 1.0, 5.0, 15.0, 60.0)
"""Before the next start of a worker that ended; the last one repeats."""
CALM_S = 120.0
"""A worker that lived this long has its earlier deaths forgiven."""
FALSE_START_S, FALSE_STARTS = 3.0, 5
"""This many deaths in a row, each within so few seconds, mean: it cannot run here."""


class Child:
    """One worker process and its history."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._command, self._environment = list(command), environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._due = 0.0
        self._deaths = self._false_starts = 0
        self.gave_up: int | None = None
        """The exit code with which it cannot run here."""

    def look(self) -> None:
        """Start it if it is due; notice its end."""
        now = time.monotonic()
        if self._process is None:
            if self.gave_up is None and now >= self._due:
                self._start(now)
            return
        code = self._process.poll()
        if code is not None:
            self._process = None
            self._ended(code, now - self._started, now)

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code of its end; 0 when it does not run."""
        return 0 if self._process is None else self._process.wait()

    def _start(self, now: float) -> None:
        self._started = now
        self._process = subprocess.Popen(self._command, env=self._environment)

    def _ended(self, code: int, lived_s: float, now: float) -> None:
        self._deaths = 1 if lived_s > CALM_S else self._deaths + 1
        self._false_starts = self._false_starts + 1 if lived_s < FALSE_START_S else 0
        if code == UNFIT or self._false_starts >= FALSE_STARTS:
            self.gave_up = code
            log.critical("the worker ended with code %d; it cannot run here and is not started again", code)
            return
        wait = WAITS_S[min(self._deaths, len(WAITS_S)) - 1]
        self._due = now + wait
        log.error("the worker ended with code %d after %.0f s; starting it again in %g s", code, lived_s, wait)


def supervise(command: Sequence[str], environments: Sequence[dict[str, str]]) -> int:
    """Keep one child per environment running until SIGTERM or SIGINT; the exit code.

    Not 0 when every child gave up, or when one did not end well after the signal.
    """
    children = [Child(command, environment) for environment in environments]
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(0.1):
        for child in children:
            child.look()
        if all(child.gave_up is not None for child in children):
            return next(child.gave_up for child in children if child.gave_up) or 1
    for child in children:
        child.signal(signal.SIGTERM)
    return max(abs(child.wait()) for child in children)


def environments(gpus: Sequence[str]) -> list[dict[str, str]]:
    """One for each GPU, or the one there is."""
    if not gpus:
        return [dict(os.environ)]
    return [{**os.environ, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]


def command() -> list[str]:
    """This very program, as one process."""
    return [sys.executable, "-P", "-m", "worker", "--one"]

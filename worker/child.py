"""One worker process under the supervisor: its starts, its ends, and when to give it up."""

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

from jobs.endings import DEVICE_LOST, GAVE_UP, OK, UNFIT, explain
from jobs.errors import TextmillError
from jobs.pulse import Seen, pulse_of, remains_of
from jobs.settings import Settings
from worker.devices import boot_id

log = logging.getLogger("textmill.supervisor")

WAITS_S = (0.2, 1.0, 5.0, 15.0, 30.0)
"""Before the next start of a worker that died; the last one repeats."""
CALM_S = 120.0
"""A worker that lived this long, or got any result saved, has its earlier deaths forgiven."""
FALSE_STARTS = 5
"""This many deaths in a row before it was ready mean: it cannot run here."""
LOST_DEVICES = 10
"""This many losses of the device in a row, without a result between them, mean: it needs hands."""
DUMP_S = 2.0
"""How long a hung worker has to write its stacks down."""
LOOK_S = 1.0
LEASH_S = 10.0
"""Beyond the grace period: what a worker may take to end once its supervisor was killed."""


class Child:
    """A worker process and its history. Every method returns at once, but for `look` at a hung one."""

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        self._settings, self._environment = settings, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._due = self._looked = 0.0
        self._deaths = self._false_starts = self._lost = 0
        self._ready = self._worked = self._told = False
        self._killed_for: str | None = None
        self.restarts = -1
        self.final = OK
        """How it ended when it was told to."""
        self.last_end: str | None = None
        """The same in words, if it was not as told."""
        self.gave_up: int | None = None
        """The exit code with which it cannot run here."""

    @property
    def running(self) -> bool:
        return self._process is not None

    def state(self) -> str:
        """Why it does not run, for people."""
        if self.gave_up is not None:
            return f"is given up ({self.last_end})"
        return f"starts again in {max(0.0, self._due - time.monotonic()):.0f} s ({self.last_end})"

    def look(self) -> None:
        """Start it if it is due; notice its end, or that it hangs."""
        if self._process is None:
            if self.gave_up is None and time.monotonic() >= self._due:
                self._start()
            return
        if not self.look_for_end() and time.monotonic() >= self._looked + LOOK_S:
            self._looked = time.monotonic()
            self._look_at_pulse(self._process)

    def look_for_end(self) -> bool:
        """Whether it does not run any more."""
        process = self._process
        code = None if process is None else process.poll()
        if process is None or code is None:
            return process is None
        self._process, self.final = None, code if self._told else OK
        self._note(remains_of(self._settings.home, "worker", process.pid))
        if process.stdin is not None:
            process.stdin.close()
        self._ended(process.pid, code)
        return True

    def signal(self, number: int) -> None:
        """Tell it to end, in one way or another."""
        self._told = True
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self, why: str) -> None:
        """End it at once; its chunks are taken up again when their leases have run out."""
        if self._process is not None:
            self._killed_for = why
            self._process.kill()

    def _start(self) -> None:
        self._started, self._ready, self._worked, self._killed_for = time.monotonic(), False, False, None
        self.restarts += 1
        # On a leash: it ends with this process even if that is killed. In a session of its own: Ctrl-C and signals to
        # our group reach it through us alone, in their right order.
        leash = ["jobs.local.leash", str(self._settings.grace_s + LEASH_S)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", *leash, "worker", "--one"],
            env=self._environment,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def _look_at_pulse(self, process: "subprocess.Popen[bytes]") -> None:
        seen = pulse_of(self._settings.home, "worker", process.pid)
        if seen is None:  # it starts, and ends itself if that takes too long; or its home cannot be written
            return
        self._note(seen)
        if seen.hung:
            self._end_hung(process, f"it was silent for {seen.silent_s():.0f} s{_at(seen.facts.get('doing'))}")

    def _note(self, seen: Seen | None) -> None:
        if seen is not None:
            self._ready = self._ready or seen.facts.get("state") != "starting"
            self._worked = self._worked or bool(seen.facts.get("items"))

    def _end_hung(self, process: "subprocess.Popen[bytes]", why: str) -> None:
        log.critical("worker %d hangs: %s; it is ended", process.pid, why)
        self._killed_for = f"hung: {why}"
        process.send_signal(signal.SIGABRT)  # faulthandler writes every stack down
        with suppress(subprocess.TimeoutExpired):
            process.wait(DUMP_S)
        process.kill()

    # ----- after its end -----

    def _ended(self, pid: int, code: int) -> None:
        why = self._killed_for or explain(code)
        if code == -signal.SIGTERM and self._told and not self._ready:
            code = self.final = OK  # it was told before it could listen, and held nothing yet
        if code == OK:
            if not self._told:
                log.warning("worker %d ended, and not because this supervisor said so; another starts", pid)
            self._due = time.monotonic()
            return
        self.last_end = why
        threading.Thread(target=_note_end, args=(self._settings, pid, why), daemon=True).start()
        if self._told:
            log.error("worker %d ended (%s)", pid, why)
            return
        self._count(code)
        if (verdict := self._verdict(code)) is not None:
            self.gave_up = verdict
            log.critical("worker %d ended (%s); it cannot run here and is not started again", pid, why)
            return
        wait = WAITS_S[min(self._deaths, len(WAITS_S)) - 1]
        self._due = time.monotonic() + wait
        log.error("worker %d ended after %.0f s (%s); another starts in %g s", pid, self._lived_s(), why, wait)

    def _count(self, code: int) -> None:
        calm = self._worked or self._lived_s() > CALM_S
        self._deaths = 1 if calm else self._deaths + 1
        self._false_starts = 0 if self._ready or calm else self._false_starts + 1
        self._lost = (0 if calm else self._lost) + 1 if code == DEVICE_LOST else 0

    def _verdict(self, code: int) -> int | None:
        """The exit code to give up with, if it is time to."""
        if code == UNFIT:
            return UNFIT
        if self._false_starts >= FALSE_STARTS:
            return GAVE_UP
        return DEVICE_LOST if self._lost >= LOST_DEVICES else None

    def _lived_s(self) -> float:
        return time.monotonic() - self._started


def _at(doing: object) -> str:
    return f" in {doing}" if doing else ""


def _note_end(settings: Settings, pid: int, why: str) -> None:
    """Write down where `textmill doctor` and `textmill watch` look why a worker ended that could not say so itself."""
    from jobs.store import Store

    try:
        store = Store.open(settings.effective_database_url)
        try:
            store.workers.note_end(host=socket.gethostname(), pid=pid, boot_id=boot_id(), why=why)
        finally:
            store.close()
    except TextmillError as error:
        log.warning("why worker %d ended could not be written down: %s", pid, error)

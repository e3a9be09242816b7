"""Ends the process when something in it makes no progress; the supervisor starts a new one."""

import contextlib
import faulthandler
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from jobs.endings import HUNG

log = logging.getLogger("textmill.worker")

LOOK_S = 1.0
GIL_GRACE_S = 5.0
"""If the watchdog itself gets no turn for this long past a limit, faulthandler's own thread, which needs no
interpreter lock, ends the process (exit code 1)."""
LAST_WORDS_S = 2.0
"""How long writing down the reason may take."""


class Watchdog:
    """Watches named pieces of work. `tell` writes a reason down where people look; `leave` ends the process.

    `look` is called every second for as long as all is well: whoever hears nothing of it knows that this process hangs.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        leave: Callable[[int], None] = os._exit,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._tell, self._leave, self._look = tell, leave, look
        self._lock = threading.Lock()
        self._watched: dict[object, tuple[str, float]] = {}
        self._armed: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; once is enough."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name="textmill-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    @contextlib.contextmanager
    def watch(self, what: str, limit_s: float) -> Iterator[None]:
        """What runs inside must be over within the limit, or the process ends with `HUNG`."""
        token, until = object(), time.monotonic() + limit_s
        with self._lock:
            self._watched[token] = (what, until)
            # Its own next look may come too late: what runs now may take the interpreter lock and keep it.
            if self._armed is None or until < self._armed:
                self._arm(until)
        try:
            yield
        finally:
            with self._lock:
                del self._watched[token]

    def doing(self) -> tuple[str, float] | None:
        """The piece of work that may take longest, and for how many seconds from now it may; None: there is none."""
        now = time.monotonic()
        with self._lock:
            what, until = max(self._watched.values(), key=lambda each: each[1], default=("", 0.0))
        return (what, until - now) if what else None

    def end(self, code: int, reason: str) -> None:
        """Write the reason down, then end the process at once."""
        log.critical("exit %d: %s", code, reason)
        last_words = threading.Thread(target=self._tell, args=(reason,), daemon=True)
        last_words.start()
        last_words.join(LAST_WORDS_S)
        sys.stderr.flush()
        logging.shutdown()
        self._leave(code)

    def _run(self) -> None:
        looked = -math.inf
        while not self._stop.wait(LOOK_S / 4):
            if time.monotonic() >= looked + LOOK_S:
                looked = time.monotonic()
                self._look()
            late = self._late()
            if late:
                faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
                self.end(HUNG, f"no progress in time: {late}")
                return
            with self._lock:
                self._arm(min((until for _, until in self._watched.values()), default=None))

    def _late(self) -> str | None:
        now = time.monotonic()
        with self._lock:
            return next((what for what, until in self._watched.values() if now > until), None)

    def _arm(self, nearest: float | None) -> None:
        """Set faulthandler's timer past the nearest limit; a thread that keeps the interpreter lock cannot move it."""
        faulthandler.cancel_dump_traceback_later()
        self._armed = nearest
        if nearest is not None and self._leave is os._exit:
            wait = max(0.1, nearest - time.monotonic()) + GIL_GRACE_S
            faulthandler.dump_traceback_later(wait, exit=True, file=sys.__stderr__ or sys.stderr)

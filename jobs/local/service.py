"""Upkeep as a service of its own: waits for its database, shows health checks and systemd how it is, ends when told."""

import logging
import threading
import time

from jobs import systemd, telemetry, tracing
from jobs.endings import OK, UNFIT
from jobs.errors import SchemaOutdated, StoreUnavailable
from jobs.local.embedded import holder
from jobs.pulse import Pulse
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.store import Store
from jobs.upkeep import LONGEST_WAIT_S, Upkeep

log = logging.getLogger("textmill.upkeep")

QUIET_S = 120.0
"""A round that takes longer hangs: every statement and connection has a time limit well below."""
RETRY_S = 1.0


def run_upkeep(settings: Settings, store: Store, stop: threading.Event) -> int:
    """Rounds until `stop` is set; the exit code (`jobs.endings`)."""
    shown = _Shown(settings)
    queue = Queue(settings)
    try:
        if not _wait_for_schema(store, stop, shown):
            return OK
        telemetry.serve(settings.metrics_address)
        tracing.start("upkeep")
        Upkeep(store, queue, settings, holder(), shown=shown).run(stop)
    except SchemaOutdated as error:
        log.critical("upkeep cannot run: %s", error)
        return UNFIT
    finally:
        systemd.notify(systemd.STOPPING)
        queue.close()
        shown.close()
    return OK


def _wait_for_schema(store: Store, stop: threading.Event, shown: "_Shown") -> bool:
    """False: told to stop before the database answered. Raises SchemaOutdated."""
    while not stop.is_set():
        try:
            store.check_schema()
            return True
        except StoreUnavailable as error:
            log.warning("waiting for the database: %s", error)
            shown(str(error))
        stop.wait(RETRY_S)
    return False


class _Shown:
    """Takes what came of each round (None: all is well) to whoever looks after this process."""

    def __init__(self, settings: Settings) -> None:
        self._pulse = Pulse(settings.home, "upkeep")
        self._quiet_s = QUIET_S + max(LONGEST_WAIT_S, settings.upkeep_s)
        self._answered: float | None = None

    def __call__(self, trouble: str | None) -> None:
        if trouble is None:
            self._answered = time.monotonic()
        self._pulse.beat(self._quiet_s, state="working", database_at=self._answered, database=trouble)
        systemd.notify(systemd.READY, systemd.ALIVE, status=trouble or "working")

    def close(self) -> None:
        self._pulse.close()

"""One worker process, wired: store, device, models, and the one shift that runs at a time."""

import logging
import math
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from jobs import systemd, telemetry, tracing
from jobs.endings import OK
from jobs.errors import QueueUnavailable, StoreUnavailable, TextmillError
from jobs.models import Registry
from jobs.pulse import Pulse
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.workers import ENDED, STOPPED
from jobs.upkeep import Upkeep
from worker.backoff import backoff
from worker.devices import boot_id, device
from worker.engines.base import Model
from worker.gauges import Gauges
from worker.meter import Meter
from worker.note import Note, folder
from worker.once import Memory
from worker.residency import Residency
from worker.shift import Shift, Tally
from worker.takeover import take_over
from worker.vitals import Vitals
from worker.watchdog import Watchdog

log = logging.getLogger("textmill.worker")

BEAT_S = 5.0
"""Between two reports of being alive."""
QUIET_S = 30.0
"""A process whose watchdog has shown nothing for so long hangs, unless it is at work that may take longer."""
STUCK_S = 3.0
"""How long after the grace period a step or a load that is under way is waited for."""


class Machine:
    """Runs shifts: `work` when a hint comes, and by itself when none comes for a while."""

    def __init__(
        self, settings: Settings, *, queues: Sequence[str] | None = None, leave: Callable[[int], None] = os._exit
    ) -> None:
        self.settings = settings
        self.queues = tuple(queues or settings.queues)
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.store = Store.open(settings.effective_database_url, lease_s=settings.lease_s)
        self.queue = Queue(settings)
        self._leave = leave
        self.watchdog = Watchdog(self._tell, leave, self._show)
        self._pulse = Pulse(settings.home, "worker")
        self.device = device(settings)
        self._boot_id = boot_id()
        self._notes = folder(settings, self._boot_id)
        self._note = Note(self._notes, self.id)
        self._memory = Memory()
        self.residency = Residency(settings, self.device, Registry(self.store).get, self._note.running)  # type: ignore[arg-type]
        self._vitals = Vitals(settings, self.store, self.queue, self.residency)
        self.ignored = 0
        """Hints for queues this worker does not serve: forged ones, or a misconfigured producer's."""
        self.totals = Tally()
        self.meter = Meter()
        self._gauges = Gauges(self)
        self._upkeep = Upkeep(self.store, self.queue, settings, self.id)
        self._one_at_a_time = threading.Lock()
        self._shift: Shift | None = None
        self._stopping = threading.Event()
        self._grace_s = settings.grace_s
        self._hinted_at = -math.inf  # a new worker looks at once
        self._quiet = False
        self._state = "starting"
        self._threads: list[threading.Thread] = []
        self._shown = False

    def watch(self) -> None:
        """From here on this process shows that it goes on, and ends when it does not."""
        self.watchdog.start()

    def start(self) -> None:
        """Heartbeat, upkeep and idle claims, each in a thread."""
        self._note.open()
        telemetry.REGISTRY.register(self._gauges)
        telemetry.serve(self.settings.metrics_address)
        tracing.start("worker")
        self.watch()
        self._state = "idle"
        self._show()  # a supervisor is to know that it was ready, however soon it dies
        self._upkeep.start()
        for name, target in (("idle", self._look_for_work), ("heartbeat", self._beat_on)):
            thread = threading.Thread(target=target, name=f"textmill-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def work(self, queue: Any) -> Tally | None:
        """Run a shift for a hint; waits for the one that is running. None for a hint that means nothing here."""
        if not isinstance(queue, str) or queue not in self.queues:
            self.ignored += 1
            log.warning("a hint for queue %.100r was ignored; this worker serves %s", queue, ", ".join(self.queues))
            return None
        self._hinted_at = time.monotonic()
        return self._run_shift([queue, *(name for name in self.queues if name != queue)])

    def wake(self) -> None:
        """A hint has arrived while a shift may be running: it looks for work at once."""
        self._hinted_at = time.monotonic()
        shift = self._shift
        if shift is not None:
            shift.wake()

    def stop(self, grace_s: float | None = None) -> None:
        """Claim nothing more, finish what fits the grace period, release the rest, end every thread.

        Safe to call again from another thread with less patience.
        """
        self._grace_s = min(self._grace_s, self.settings.grace_s if grace_s is None else grace_s)
        self._stopping.set()
        shift = self._shift
        if shift is not None:
            shift.stop(self._grace_s)
        systemd.notify(systemd.STOPPING)
        if not self._shift_is_over():
            self._abandon()
        self._state = STOPPED
        for thread in self._threads:
            thread.join()
        self._upkeep.stop()
        with suppress(TextmillError):  # nothing waits for it: a worker that is silent is forgotten too
            self._beat(STOPPED)

    def close(self) -> None:
        """Free the models and the connections."""
        self.watchdog.stop()
        with suppress(KeyError):  # it was never started
            telemetry.REGISTRY.unregister(self._gauges)
        self._note.close()
        self._pulse.close()
        self.residency.close()
        self.queue.close()
        self.store.close()

    def info(self) -> dict[str, Any]:
        """What `celery inspect stats` shows of this worker beside Celery's own."""
        totals = {"chunks": self.totals.chunks, "items": self.totals.items, "errors": self.totals.errors}
        models = {name: model.stats() for name, model in self._models().items()}
        return {
            "id": self.id,
            "device": self.device.name,
            "state": self._state,
            "queues": list(self.queues),
            "hints_ignored": self.ignored,
            "totals": totals,
            "models": models,
        }

    def _models(self) -> dict[str, Model]:
        found = {name: self.residency.get(name) for name in self.residency.names()}
        return {name: model for name, model in found.items() if model is not None}

    # ----- shifts -----

    def _run_shift(self, queues: Sequence[str]) -> Tally | None:
        with self._one_at_a_time:
            if self._stopping.is_set() or self._quiet:
                return None  # a hint that is lost so costs time at most: others look by themselves
            shift = self._shift = self._new_shift(queues)
            self._state = "working"
            if self._stopping.is_set():  # stop() may have looked before the shift was there
                shift.stop(self._grace_s)
            try:
                tally = shift.run()
            finally:
                self._shift, self._state = None, "idle"
        self._count(tally)
        if not tally.ran_dry and not self._stopping.is_set() and not self._quiet:
            self._pass_on(queues)
        return tally

    def _new_shift(self, queues: Sequence[str]) -> Shift:
        return Shift(
            store=self.store,
            settings=self.settings,
            residency=self.residency,
            watchdog=self.watchdog,
            meter=self.meter,
            note=self._note,
            worker_id=self.id,
            queues=queues,
            memory=self._memory,
        )

    def _count(self, tally: Tally) -> None:
        self.totals.chunks += tally.chunks
        self.totals.items += tally.items
        self.totals.errors += tally.errors
        if tally.chunks:
            log.info("shift: %d chunks, %d items, %d of them errors", tally.chunks, tally.items, tally.errors)

    def _pass_on(self, queues: Sequence[str]) -> None:
        """This shift leaves work behind: a hint for whoever is free."""
        try:
            self.queue.hint(queues[0])
        except QueueUnavailable:
            self._hinted_at = 0.0  # nobody will be told: look again at once

    # ----- the end -----

    def _shift_is_over(self) -> bool:
        """Wait for the shift that was told to stop. False: the device does not come back from what it is at."""
        if not self._one_at_a_time.acquire(timeout=self._grace_s + STUCK_S):
            return False
        self._one_at_a_time.release()
        return True

    def _abandon(self) -> None:
        """Leave while a load or a step is still under way; being killed later would count as its chunks' crash."""
        log.warning("the device did not come back within the grace period; what it was at is given back")
        shift = self._shift
        if shift is not None:
            shift.abandon()
        self._upkeep.stop()
        with suppress(TextmillError):
            self._beat(STOPPED)
        self._note.close()
        self._pulse.close()
        logging.shutdown()
        self._leave(OK)

    # ----- threads -----

    def _look_for_work(self) -> None:
        """Idle claims: with Redis gone altogether, jobs still finish."""
        failures = backoff(1.0, 30.0)
        wait = self._idle_wait()
        while not self._stopping.wait(min(wait, 1.0)):
            if self._quiet or self._shift is not None or time.monotonic() < self._hinted_at + wait:
                continue
            wait = self._idle_wait()
            try:
                if self._is_work():
                    self._run_shift(self.queues)
                self._hinted_at = time.monotonic()
                failures = backoff(1.0, 30.0)
            except TextmillError as error:
                log.warning("looking for work: %s", error)
                self._stopping.wait(next(failures))
            except Exception:
                log.exception("an idle shift failed")
                self._stopping.wait(next(failures))

    def _idle_wait(self) -> float:
        return self.settings.idle_claim_s * random.uniform(0.5, 1.5)

    def _is_work(self) -> bool:
        return any(self.store.chunks.ready(queue, 1) for queue in self.queues)

    def _beat_on(self) -> None:
        while True:
            try:
                self._beat(self._state)
                take_over(self.store, self._notes)
            except StoreUnavailable as error:
                log.warning("heartbeat: %s", error)
            except Exception:
                log.exception("the heartbeat failed")
            self._vitals.look()
            if self._stopping.wait(min(BEAT_S, self.settings.lease_s)):
                return

    def _beat(self, state: str) -> None:
        quiet = self.store.workers.beat(
            self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            boot_id=self._boot_id,
            device=self.device.name,
            models=self.residency.names(),
            state=state,
            queues=self.queues,
            load=self.meter.load(self.residency.worked()),
            memory_bytes=self.device.memory_bytes,
            models_bytes=sum(self.residency.sizes().values()),
        )
        self._hush(quiet)

    def _hush(self, quiet: bool) -> None:
        """Claim nothing more as long as somebody wishes so; what is held is finished."""
        if quiet != self._quiet:
            log.info("this worker was told to be quiet" if quiet else "this worker was told to go on")
        self._quiet, shift = quiet, self._shift
        if quiet and shift is not None:
            shift.quiet()

    def _tell(self, reason: str) -> None:
        """The watchdog's last words, where `textmill doctor` and the dashboard find them."""
        self._state = ENDED + reason[:500]  # the heartbeat may speak once more
        self._beat(self._state)

    def _show(self) -> None:
        """That this process goes on, where health checks and the supervisor see it."""
        doing, shift = self.watchdog.doing(), self._shift
        self._pulse.beat(
            self._quiet_s(doing[1] if doing else 0.0),
            state="stopping" if self._stopping.is_set() else self._state,
            doing=doing and doing[0],
            items=self.totals.items + (shift.items if shift is not None else 0),
            **self._vitals.facts(),
        )
        if not self._shown:
            self._shown = True
            systemd.notify(systemd.READY)
        systemd.notify(systemd.ALIVE, status=self._state)

    def _quiet_s(self, doing_s: float) -> float:
        """How long nothing need be heard of this process: work that keeps the interpreter lock ends by its own limit,
        and may begin before the watchdog has shown what it is."""
        if self._stopping.is_set():
            return QUIET_S + self._grace_s
        own = self.settings.step_timeout_s if self._shift is not None else 0.0
        return QUIET_S + max(doing_s, own)

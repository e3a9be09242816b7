"""One shift: claim -> prepare -> step -> save, until there is no work, the time is over, or someone says stop."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.endings import DEVICE_LOST
from jobs.errors import DeviceLost, ModelFailed, StoreUnavailable, UsageError
from jobs.settings import Settings
from jobs.store import Store
from worker.engines.base import Model
from worker.feed import Feed
from worker.held import Held
from worker.inhand import InHand
from worker.leases import Leases
from worker.meter import Meter
from worker.note import Note
from worker.once import Memory, Once
from worker.reader import Reader
from worker.residency import Residency
from worker.watchdog import Watchdog
from worker.writer import Writer

log = logging.getLogger("textmill.worker")

IDLE_S = 0.05
"""Longest sleep of the device loop; it is woken by work."""
STUCK_S = 2.0
"""How long an abandoned shift waits for its reader."""
LOAD_LIMIT_S = 1800.0
"""Loading and warming up a large model takes longer than any step."""


@dataclass(slots=True)
class Tally:
    """What a shift did."""

    chunks: int = 0
    items: int = 0
    errors: int = 0
    ran_dry: bool = True
    """False: it ended for another reason, and there may be work left."""


class Shift:
    """Reader, device loop and writer over the same chunks. Used once."""

    def __init__(
        self,
        *,
        store: Store,
        settings: Settings,
        residency: Residency,
        watchdog: Watchdog,
        meter: Meter,
        note: Note,
        worker_id: str,
        queues: Sequence[str],
        memory: Memory | None = None,
    ) -> None:
        """`memory`: outputs that were needed before, for shifts of one process to share."""
        self._meter, self._note = meter, note
        self._store, self._settings, self._residency, self._watchdog = store, settings, residency, watchdog
        self._tally = Tally()
        self._woken = threading.Event()
        self._deadline: float | None = None
        self._owed: dict[str, int] = {}
        """Outcomes that each model still owes, as far as the device loop has counted."""
        feed = self._feed = Feed(self._woken.set)
        self._in_hand = InHand(feed, self._changed)
        self._writer = Writer(store, self._in_hand, on_saved=self._saved)
        self._once: Once | None = None
        if settings.dedup or settings.cache_bytes:
            self._once = Once(store, settings, memory or Memory(), self._writer.equals)
        self._leases = Leases(store, worker_id, settings.lease_s, self._in_hand, self._writer)
        self._reader = Reader(
            store=store,
            settings=settings,
            residency=residency,
            watchdog=watchdog,
            worker_id=worker_id,
            queues=queues,
            in_hand=self._in_hand,
            writer=self._writer,
            note=note,
            once=self._once,
        )

    def run(self) -> Tally:
        """Work; returns when nothing is in hand any more. Does not raise for a database that does not answer."""
        for thread in (self._writer, self._leases, self._reader):
            thread.start()
        try:
            with self._meter.shift():
                self._drive()
        finally:
            self._hand_back()
        self._tally.chunks, self._tally.ran_dry = self._reader.claimed, self._reader.ran_dry
        for broken in (self._reader.broken, self._writer.broken, self._leases.broken):
            if broken is not None:
                raise RuntimeError("a thread of the shift broke") from broken
        return self._tally

    def wake(self) -> None:
        """A hint has come: look for work at once."""
        self._reader.wake()

    def stop(self, grace_s: float) -> None:
        """Claim nothing more; what is not done within `grace_s` is given back without blame."""
        deadline = time.monotonic() + grace_s
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self._reader.stop()
        self._woken.set()

    def quiet(self) -> None:
        """Claim nothing more; what is held is finished."""
        self._reader.stop()
        self._woken.set()

    def abandon(self) -> None:
        """Give everything back without blame while the device loop is stuck in a step or a load. Ends the shift for
        good: what the device still answers is dropped, and the process should leave."""
        self._reader.stop()
        self._reader.join(STUCK_S)
        for held in self._in_hand.all():
            self._writer.give_back(held)
        self._writer.close(hurry=True)

    @property
    def items(self) -> int:
        """Results saved so far."""
        return self._tally.items

    # ----- the device loop -----

    def _drive(self) -> None:
        while not self._over():
            self._forget()
            busy = False
            for name in dict.fromkeys([*self._feed.models(), *self._residency.names()]):
                busy = self._work(name) or busy
            if not busy:
                self._woken.wait(IDLE_S)
                self._woken.clear()

    def _over(self) -> bool:
        if self._reader.broken or self._writer.broken or self._leases.broken:
            return True
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return True
        return self._reader.ended.is_set() and not self._in_hand

    def _work(self, name: str) -> bool:
        """Give a model what it wants and take one step with it; whether there was anything to do."""
        model = self._loaded(name) if name in self._feed.models() else self._residency.get(name)
        if model is None:
            return False
        self._fill(name, model)
        if not model.pending():
            return False
        outcomes = self._step(name, model)
        if outcomes:
            self._writer.answers(outcomes)  # type: ignore[arg-type]
        self._owed[name] = self._owed.get(name, 0) - len(outcomes)
        if not model.pending():
            self._settle(name)
        return True

    def _loaded(self, name: str) -> Model | None:
        """The model, loaded if need be; None when it cannot be had (now)."""
        try:
            with self._watchdog.watch(f"loading model {name}", max(LOAD_LIMIT_S, self._settings.step_timeout_s)):
                return self._residency.model(name)
        except (ModelFailed, UsageError) as error:
            for job_id in {held.claim.job_id for held in self._in_hand.of_model(name)}:
                self._writer.job_fails(job_id, str(error))
            self._drain(name)
        except StoreUnavailable as error:
            log.warning("the registry cannot be read: %s", error)
        except DeviceLost as error:
            self._device_lost(error)
        return None

    def _drain(self, name: str) -> None:
        """Empty the feed of a model that cannot run; its chunks are already on their way out."""
        while self._feed.take(name, 1 << 40):
            pass

    def _fill(self, name: str, model: Model) -> None:
        wanted = model.wants()
        lots = self._feed.take(name, wanted) if wanted > 0 else []
        works = []
        for held, some, _ in lots:
            if not held.gone:
                held.sent += len(some)
                works += some
                self._record(held, model)
        if works:
            model.add(works)
            self._owed[name] = self._owed.get(name, 0) + len(works)

    def _record(self, held: Held, model: Model) -> None:
        """What the job runs with: its codec's word, and the mode that the loaded model is really in."""
        if held.in_force is not None:
            mode = model.stats().get("mode")
            self._writer.record(held.claim.job_id, {**held.in_force, **({"mode": mode} if mode else {})})
            held.in_force = None

    def _step(self, name: str, model: Model) -> Sequence[tuple[object, object]]:
        try:
            limit = self._settings.step_timeout_s
            with self._watchdog.watch(f"a step of model {name}", limit), self._meter.step():
                outcomes = model.step()
            self._note.ran()
            return outcomes
        except DeviceLost as error:
            self._device_lost(error)
            return []

    def _settle(self, name: str) -> None:
        """The model has nothing left: if it answered less than it took, the chunks that miss it must not wait."""
        if self._owed.get(name, 0) > 0:
            log.error("model %s gave %d outcomes too few", name, self._owed[name])
            self._writer.settle(name)
        self._owed[name] = 0

    def _forget(self) -> None:
        """Take what was cancelled, lost or given back out of the models."""
        while self._in_hand.forgotten:
            held = self._in_hand.forgotten.popleft()
            model = self._residency.get(held.claim.model)
            if model is not None and held.sent:
                before = model.pending()
                model.cancel(held.keys())
                name = held.claim.model
                self._owed[name] = self._owed.get(name, 0) - (before - model.pending())

    def _device_lost(self, error: DeviceLost) -> None:
        """Chunks the device has not seen go back without blame; the others count as crashed."""
        for held in self._in_hand.all():
            if not held.sent:
                self._writer.give_back(held)
        self._writer.close(hurry=True)
        self._watchdog.end(DEVICE_LOST, f"device lost: {error}")
        raise error

    # ----- the end -----

    def _hand_back(self) -> None:
        """What is still in hand goes back without blame, and every thread ends."""
        self._reader.stop()
        self._reader.join()
        for held in self._in_hand.all():
            self._writer.give_back(held)
        self._writer.close(hurry=self._deadline is not None and time.monotonic() >= self._deadline)
        self._leases.close()
        self._forget()

    def _changed(self) -> None:
        self._woken.set()
        self._reader.wake()

    def _saved(self, items: int, errors: int) -> None:
        self._tally.items += items
        self._tally.errors += errors
        if self._once is not None:
            self._once.keep()

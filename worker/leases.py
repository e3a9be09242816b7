"""The leases thread of a shift: renews what is held, and carries cancel, pause and lost leases to it."""

import logging
import threading
import time

from jobs import telemetry
from jobs.errors import StoreUnavailable
from jobs.states import Control
from jobs.store import Store
from worker.held import FENCE, Held, about
from worker.inhand import InHand
from worker.writer import Writer

log = logging.getLogger("textmill.worker")

RENEWALS = 3
"""Renewals in the time of one lease."""
LOOKS = 12
"""Looks at the clock in the time of one lease: how late a chunk may be fenced."""


class Leases:
    """Keeps the leases of a shift's chunks alive from a thread of its own."""

    def __init__(self, store: Store, worker_id: str, lease_s: float, in_hand: InHand, writer: Writer) -> None:
        self._store, self._worker_id, self._lease_s = store, worker_id, lease_s
        self._in_hand, self._writer = in_hand, writer
        self._stop = threading.Event()
        self.broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="textmill-leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._renew_on()
        except BaseException as error:
            log.exception("leases are not renewed any more")
            self.broken = error

    def _renew_on(self) -> None:
        due = time.monotonic() + self._lease_s / RENEWALS
        while not self._stop.wait(self._lease_s / LOOKS):
            if time.monotonic() >= due and self._renewed():
                due = time.monotonic() + self._lease_s / RENEWALS
            self._fence()

    def _renewed(self) -> bool:
        held = {each.claim.chunk_id: each for each in self._in_hand.all()}
        if not held:
            return True
        asked_at = time.monotonic()
        try:
            tokens = {chunk_id: each.claim.token for chunk_id, each in held.items()}
            renewals, skipped = self._store.chunks.renew(self._worker_id, tokens, self._lease_s)
        except StoreUnavailable as error:
            log.warning("leases could not be renewed: %s", error)
            return False
        for renewal in renewals:
            held[renewal.chunk_id].fence_at = asked_at + FENCE * self._lease_s
            self._obey(held.pop(renewal.chunk_id), renewal.control)
        for chunk_id in held.keys() - skipped:
            if self._in_hand.drop(held[chunk_id]):
                telemetry.LEASE_LOSSES.labels("taken").inc()
                told = "chunk %s is not held any more: cancelled, or taken over"
                log.info(told, chunk_id, extra=about(held[chunk_id].claim))
        return True

    def _obey(self, held: Held, control: Control) -> None:
        if control is Control.CANCEL:
            self._in_hand.drop(held)
        elif control is Control.PAUSE:
            self._writer.give_back(held)

    def _fence(self) -> None:
        """Another worker may have these by the time the database answers again: stop working on them."""
        now = time.monotonic()
        for held in self._in_hand.all():
            if now >= held.fence_at and self._in_hand.drop(held):
                self._writer.late(held)

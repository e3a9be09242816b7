"""The reader thread of a shift: claims chunks ahead of the device and prepares them."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from jobs.errors import (
    InvalidParams,
    ModelFailed,
    ModelMismatch,
    StoreUnavailable,
    UnknownModel,
    UnknownTask,
)
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.values import Claim
from worker.backoff import backoff
from worker.engines.base import Work
from worker.feed import Lot, lot
from worker.held import FENCE, Held, about
from worker.inhand import InHand
from worker.note import Note
from worker.once import Once
from worker.prepare import Lines, Plans, Sift, ask, read
from worker.residency import Residency
from worker.suspects import apart, ordered
from worker.watchdog import Watchdog
from worker.writer import Writer

log = logging.getLogger("textmill.worker")

REFILL = 0.5
"""Claim again when less than this share of the look-ahead waits: then a claim is worth its transaction."""
HELD_LOOKAHEADS = 4
"""Look-aheads of items held at most, those included that wait to be saved: a slow database must not fill the memory."""
FEED_ITEMS = 256
"""Chunks of few items go to the device together."""
LINGER_S = 0.2
"""How long a shift that ran out of work looks for more."""
FIRST_LOOK_S, LAST_LOOK_S = 0.005, 0.1
"""Waits between looks at an empty queue, doubled each time."""
LINGER_LOOK_S = 0.01
"""The longest of these waits while the device is idle: Celery delivers no hint before the shift ends."""
SUSPECT_LOOK_S = 0.005
"""Between looks whether a suspect was answered: there may be hundreds, one behind the other."""
CANNOT_RUN = (UnknownTask, UnknownModel, ModelMismatch, ModelFailed, InvalidParams)
"""What fails a whole job: it would be the same for each of its chunks."""


class Reader:
    """Keeps the feed filled until the queues are empty, the time is over or someone says stop."""

    def __init__(
        self,
        *,
        store: Store,
        settings: Settings,
        residency: Residency,
        watchdog: Watchdog,
        worker_id: str,
        queues: Sequence[str],
        in_hand: InHand,
        writer: Writer,
        note: Note,
        once: Once | None = None,
    ) -> None:
        """`once`: runs equal items once."""
        self._once = once
        self._store, self._settings, self._residency, self._watchdog = store, settings, residency, watchdog
        self._worker_id, self._queues = worker_id, deque(queues)
        self._in_hand, self._feed, self._writer = in_hand, in_hand.feed, writer
        self._lines, self._plans, self._note = Lines(), Plans(), note
        self._stop, self._awake = threading.Event(), threading.Event()
        self._until = time.monotonic() + settings.shift_s
        self._thread = threading.Thread(target=self._run, name="textmill-reader", daemon=True)
        self.ended = threading.Event()
        self.ran_dry = False
        """Whether it ended because there was no work left."""
        self.claimed = 0
        self.broken: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something has changed: there is work, or room for it."""
        self._awake.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stop.set()
        self._awake.set()

    def join(self, timeout_s: float | None = None) -> None:
        self._thread.join(timeout_s)

    # ----- the thread -----

    def _run(self) -> None:
        try:
            while not self._over():
                if not self._has_room():
                    self._sleep(LAST_LOOK_S)
                elif not self._read_some() and not self._wait_for_work():
                    self.ran_dry = True
                    break
        except BaseException as error:
            log.exception("the reader broke")
            self.broken = error
        finally:
            self.ended.set()
            self._feed.put("", [])  # wakes the device loop

    def _over(self) -> bool:
        return self._stop.is_set() or time.monotonic() >= self._until

    def _has_room(self) -> bool:
        items, tokens = self._settings.lookahead_items, self._settings.lookahead_tokens
        hungry = self._feed.items < items * REFILL and self._feed.tokens < tokens * REFILL
        return hungry and self._in_hand.items < items * HELD_LOOKAHEADS

    def _sleep(self, seconds: float) -> None:
        self._awake.wait(seconds)
        self._awake.clear()

    def _wait_for_work(self) -> bool:
        """Look again, for as long as something is in hand and a little longer. False: there was nothing."""
        dry_at = time.monotonic() if self.claimed else 0.0
        wait = FIRST_LOOK_S
        while not self._over():
            self._sleep(wait)
            if self._is_work() and self._read_some():
                return True
            if self._in_hand:
                dry_at = time.monotonic()
            elif time.monotonic() >= dry_at + LINGER_S:
                return False
            wait = min(LAST_LOOK_S if self._in_hand else LINGER_LOOK_S, wait * 2)
        return True

    def _is_work(self) -> bool:
        """A look that takes no lock: on SQLite a claim would stand in the way of the writer."""
        with suppress(StoreUnavailable):
            return any(self._store.chunks.ready(queue, 1) for queue in self._queues)
        return False

    def _read_some(self) -> bool:
        """Claim once and prepare what came; whether anything did."""
        claims, fence_at = self._claim()
        if not claims:
            return False
        self.claimed += len(claims)
        if claims[0].crashes:
            self._alone(claims[0], fence_at)
        else:
            self._prepare_all([self._take(claim, fence_at) for claim in claims])
        return True

    def _claim(self) -> tuple[list[Claim], float]:
        """The next chunks of the first queue that has any, and when they must be given up unless renewed."""
        for _ in range(len(self._queues)):
            asked_at = time.monotonic()
            claims = self._claim_from(self._queues[0])
            if claims:
                return claims, asked_at + FENCE * self._settings.lease_s
            self._queues.rotate(-1)
        return [], 0.0

    def _claim_from(self, queue: str) -> list[Claim]:
        for wait in backoff():
            with suppress(StoreUnavailable):
                return self._store.chunks.claim(
                    worker_id=self._worker_id,
                    queue=queue,
                    cost=max(1, self._settings.lookahead_tokens - self._feed.tokens),
                    items=max(1, self._settings.lookahead_items - self._feed.items),
                    loaded=self._residency.names(),
                    lease_s=self._settings.lease_s,
                )
            log.warning("the database does not answer; trying again in %.1f s", wait)
            if self._stop.wait(wait) or self._over():
                break
        return []

    def _alone(self, suspect: Claim, fence_at: float) -> None:
        """A chunk that crashed a worker runs with nothing else in flight: a crash then has one culprit.

        It is not kept waiting in hand either, or a neighbour's crash would be blamed on it.
        """
        if self._in_hand:
            self._writer.give_back(self._take(suspect, fence_at))  # who has patience with a database that is away
            while self._in_hand and not self._stop.is_set():
                self._sleep(LAST_LOOK_S)
            return
        told = "chunk %s crashed %d worker(s); it runs alone"
        log.warning(told, suspect.chunk_id, suspect.crashes, extra=about(suspect))
        held = self._take(suspect, fence_at)
        if suspect.suspects:
            self._one_by_one(held)
        else:
            self._prepare_all([held])
        while self._in_hand and not self._stop.is_set():
            self._sleep(LAST_LOOK_S)

    def _one_by_one(self, held: Held) -> None:
        """The items that were not in flight when a worker died, then each of the others by itself."""
        works = self._prepared(held) if self._fetch([held.claim]) else []
        for some in apart(works, ordered(held)):
            self._feed.put(held.claim.model, [lot(held, some)])
            while not held.gone and any(held.asked[work.key[1]] is not None for work in some):  # type: ignore[index]
                if self._stop.is_set():
                    self._writer.give_back(held)
                    return
                self._sleep(SUSPECT_LOOK_S)

    def _take(self, claim: Claim, fence_at: float) -> Held:
        held = Held(claim, fence_at)
        self._in_hand.add(held)
        return held

    # ----- preparing -----

    def _prepare_all(self, chunks: Sequence[Held]) -> None:
        """Chunks of one model; the first of them are on the device while the last are still being prepared."""
        if not self._fetch([held.claim for held in chunks]):
            for held in chunks:
                self._writer.give_back(held)
            return
        ready: list[Lot] = []
        for held in chunks:
            if held.gone:
                continue
            if works := self._prepared(held):
                ready.append(lot(held, works))
            if ready and sum(len(each.works) for each in ready) >= FEED_ITEMS:
                self._feed.put(held.claim.model, ready)
                ready = []
        if ready:
            self._feed.put(chunks[0].claim.model, ready)
        self._lines.trim()

    def _fetch(self, claims: Sequence[Claim]) -> bool:
        """Have the blocks of these claims at hand. False: the shift was told to stop first."""
        missing = self._lines.missing(claims)
        for wait in backoff():
            if not missing:
                break
            try:
                self._lines.add(self._store.chunks.blocks(missing))
                break
            except StoreUnavailable as error:
                log.warning("reading items: %s", error)
            if self._stop.wait(wait):
                return False
        return True

    def _prepared(self, held: Held) -> list[Work]:
        claim = held.claim
        limit = self._settings.step_timeout_s
        try:
            with self._watchdog.watch(f"preparing chunk {claim.chunk_id} of {claim.job_id}", limit):
                works = self._ask(held)
        except StoreUnavailable:
            self._writer.give_back(held)
            return []
        except CANNOT_RUN as error:
            self._writer.job_fails(claim.job_id, str(error))
            return []
        except Exception as error:
            log.exception("chunk %s cannot be prepared", claim.chunk_id, extra=about(claim))
            held.start_over()
            self._writer.chunk_failed(held, f"preparing: {type(error).__name__}: {error}")
            return []
        if held.done or held.rows:
            self._writer.touch(held)
        if self._once is not None and held.waits:
            self._once.attach(held)  # last: from here on the chunk is the writer's
        return works

    def _ask(self, held: Held) -> list[Work]:
        claim = held.claim
        spec, codec = self._residency.spec(claim.model), self._residency.codec(claim.model)
        task, params = self._plans.of(claim)
        if task.name not in spec.tasks:
            known = ", ".join(spec.tasks) or "none"
            raise ModelMismatch(f"model {spec.name!r} does not serve {task.name!r}; it serves: {known}")
        held.asks(task, params, codec)
        if claim.seq_lo == 0:
            prompt = codec.prompts.get(task.name)
            wording = {"prompt_version": prompt.version} if prompt is not None else {}
            precision = spec.dtype or self._settings.dtype
            held.in_force = {"engine": spec.engine, "dtype": precision, **wording, **codec.in_force}
        again = claim.attempt > 1 or claim.crashes or claim.errors
        held.have = self._store.results.have(claim.job_id, claim.seq_lo, claim.seq_hi) if again else frozenset()
        with self._note.preparing(held):
            read(held, self._lines.of(claim), held.have)
            suspects = ordered(held)
            works = ask(held, [index for index in range(len(held.items)) if index not in suspects], self._sift(held))
        for index in suspects:
            with self._note.preparing(held, [held.seqs[index]]):
                works += ask(held, [index])
        return works

    def _sift(self, held: Held) -> Sift | None:
        """How a chunk's items are told that need not be run. A suspect's all are: whose fault it is must show."""
        if self._once is None or held.claim.crashes or held.claim.suspects:
            return None
        held.equals = self._once
        return partial(self._once.sift, held, self._residency.spec(held.claim.model))

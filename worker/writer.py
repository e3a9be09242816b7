"""The writer thread of a shift: outcomes become results, results are saved, chunks and jobs come to their end."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from jobs import telemetry, tracing
from jobs.errors import ItemErrorCode, StoreUnavailable, TextmillError
from jobs.store import Store
from jobs.store.values import ResultRow, Save
from jobs.tasks.base import Outcome
from worker.backoff import backoff
from worker.engines.base import Work
from worker.feed import lot
from worker.held import Fate, Held, Key, about, spoilt
from worker.inhand import InHand
from worker.once import Waiting
from worker.prepare import encoded

log = logging.getLogger("textmill.worker")

SAVE_ROWS = 4096
"""Rows of one transaction: enough to make its cost small, little enough that a lease outlives it."""
SAVE_EVERY_S = 2.0
"""A chunk that takes long saves what it has this often."""
MOST_ERRORS = 5
"""Retriable errors after which a chunk's open items get `chunk_error` results."""
RETRY_AFTER_S = 1.0
"""Wait before a chunk that failed is tried again, times its errors so far."""
TICK_S = 0.5


class Writer:
    """Takes orders from the other threads, in the order they were given; one thread carries them out."""

    def __init__(self, store: Store, in_hand: InHand, *, on_saved: Callable[[int, int], None]) -> None:
        self._store, self._in_hand, self._on_saved = store, in_hand, on_saved
        self._orders: queue.SimpleQueue[tuple[Callable[[Any], None], Any] | None] = queue.SimpleQueue()
        self._touched: dict[int, Held] = {}
        self._unsaved = 0
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="textmill-writer", daemon=True)
        self.broken: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    # ----- orders -----

    def answers(self, outcomes: Sequence[tuple[Key, Outcome]]) -> None:
        """What a model answered."""
        self._orders.put((self._take_answers, outcomes))

    def touch(self, held: Held) -> None:
        """The chunk may be done without any answer."""
        self._orders.put((self._take_touch, held))

    def equals(self, known: Sequence[tuple[Waiting, Fate]], alone: Sequence[Waiting]) -> None:
        """Items with the fate of equal ones, and items that are asked now since the equal ones have none."""
        self._orders.put((self._take_equals, (known, alone)))

    def give_back(self, held: Held) -> None:
        """Save what the chunk has, then let others have the rest; nobody is blamed."""
        self._orders.put((self._take_give_back, held))

    def late(self, held: Held) -> None:
        """The chunk was given up because its lease was not renewed in time. Its worker lives, so nobody is to blame."""
        telemetry.LEASE_LOSSES.labels("late").inc()
        told = "chunk %s: the lease was not renewed in time; given up"
        log.warning(told, held.claim.chunk_id, extra=about(held.claim))
        self._orders.put((self._release, held))

    def chunk_failed(self, held: Held, reason: str) -> None:
        """Something that may go better next time kept the chunk from being worked."""
        self._orders.put((self._take_failed, (held, reason)))

    def job_fails(self, job_id: str, reason: str) -> None:
        """The job cannot run at all."""
        self._orders.put((self._take_job_fails, (job_id, reason)))

    def record(self, job_id: str, in_force: dict[str, Any]) -> None:
        """What the job runs with."""
        self._orders.put((self._take_record, (job_id, in_force)))

    def settle(self, model: str) -> None:
        """The model says it has answered everything: chunks that still wait for it have failed."""
        self._orders.put((self._take_settle, model))

    def close(self, *, hurry: bool = False) -> None:
        """Carry out what was ordered, then end. `hurry`: a database that does not answer is not waited for."""
        if hurry:
            self._hurry.set()
        self._orders.put(None)
        self._thread.join()

    # ----- the thread -----

    def _run(self) -> None:
        try:
            while self._carry_out(self._next(TICK_S)):
                while self._unsaved < SAVE_ROWS and not self._orders.empty():
                    if not self._carry_out(self._next(0)):
                        self._flush()
                        return
                self._flush()
            self._flush()
        except BaseException as error:
            log.exception("the writer broke")
            self.broken = error

    def _next(self, timeout: float) -> tuple[Callable[[Any], None], Any] | None:
        try:
            return self._orders.get(timeout=timeout) if timeout else self._orders.get_nowait()
        except queue.Empty:
            return (_nothing, None)

    def _carry_out(self, order: tuple[Callable[[Any], None], Any] | None) -> bool:
        if order is None:
            return False
        order[0](order[1])
        return True

    def _take_answers(self, outcomes: Sequence[tuple[Key, Outcome]]) -> None:
        touched = set()
        for (held, index, part), outcome in outcomes:
            held.answered += 1
            if not held.gone:
                touched.add(held)
                if more := held.answer(index, part, outcome):
                    self._feed(held, more)
        self._touched.update((held.claim.chunk_id, held) for held in touched)
        self._unsaved += len(outcomes)

    def _take_touch(self, held: Held) -> None:
        self._touched[held.claim.chunk_id] = held
        self._unsaved += len(held.rows)

    def _take_equals(self, order: tuple[Sequence[tuple[Waiting, Fate]], Sequence[Waiting]]) -> None:
        known, alone = order
        for (held, index), fate in known:
            if not held.gone and held.asked[index] is not None:
                held.take(index, fate)
                self._touched[held.claim.chunk_id] = held
        self._unsaved += len(known)
        by_chunk: dict[Held, list[int]] = {}
        for held, index in alone:
            if not held.gone and held.asked[index] is not None:
                by_chunk.setdefault(held, []).append(index)
        for held, indexes in by_chunk.items():
            self._ask_alone(held, indexes)

    def _ask_alone(self, held: Held, indexes: Sequence[int]) -> None:
        try:
            if works := encoded(held, indexes):
                self._in_hand.feed.put(held.claim.model, [lot(held, works)])
        except Exception as error:
            log.exception("chunk %s cannot be prepared", held.claim.chunk_id, extra=about(held.claim))
            self._take_failed((held, f"preparing: {type(error).__name__}: {error}"))
        self._touched[held.claim.chunk_id] = held

    def _take_give_back(self, held: Held) -> None:
        if held.gone:
            return
        self._save([held])
        if not held.gone and self._in_hand.drop(held):
            self._release(held)

    def _take_failed(self, failure: tuple[Held, str]) -> None:
        held, reason = failure
        if held.gone:
            return
        telemetry.CHUNK_FAILURES.inc()
        told = "chunk %s of %s failed: %s"
        log.warning(told, held.claim.chunk_id, held.claim.job_id, reason, extra=about(held.claim))
        if held.claim.errors + 1 >= MOST_ERRORS and held.asked:
            held.fail_rest(ItemErrorCode.CHUNK_ERROR, f"its chunk failed {MOST_ERRORS} times, at last: {reason}")
            self._in_hand.feed.drop(held)
            self._in_hand.forgotten.append(held)
            self._touched[held.claim.chunk_id] = held
            return
        self._save([held])
        if not held.gone and self._in_hand.drop(held):
            self._release(held, error=reason)

    def _take_job_fails(self, failure: tuple[str, str]) -> None:
        job_id, reason = failure
        log.error("%s fails: %s", job_id, reason, extra={"job": job_id})
        for held in self._in_hand.of_job(job_id):
            self._in_hand.drop(held)
        self._patiently(lambda: self._store.jobs.fail(job_id, reason), "failing a job")

    def _take_record(self, record: tuple[str, dict[str, Any]]) -> None:
        with suppress(TextmillError):  # worth no second try
            self._store.jobs.record(*record)

    def _take_settle(self, model: str) -> None:
        for held in self._in_hand.of_model(model):
            missing = held.sent - held.answered
            if missing > 0 and not held.done:
                self._take_failed((held, f"the model gave no outcome for {missing} requests"))

    def _feed(self, held: Held, works: Sequence[Work]) -> None:
        self._in_hand.feed.put(held.claim.model, [lot(held, list(works))], first=True)

    # ----- saving -----

    def _flush(self) -> None:
        """Save the chunks that are done, and of the others those that have waited long enough."""
        old = time.monotonic() - SAVE_EVERY_S
        due = [
            held
            for held in self._touched.values()
            if held.done or held.rows_since <= old or held.gone or _may_end(held)
        ]
        self._save(due)
        self._unsaved = sum([len(held.rows) for held in self._touched.values()])

    def _save(self, chunks: Iterable[Held]) -> None:
        chunks = [held for held in chunks if self._still_mine(held)]
        if not chunks:
            return
        counts = {held.claim.chunk_id: _Counts.of(held.rows) for held in chunks}
        saves = [Save(held.claim.chunk_id, held.claim.token, held.take_rows(), held.done) for held in chunks]
        accepted = self._saved(saves, {held.claim.chunk_id: held for held in chunks})
        for held in chunks:
            self._after(held, held.claim.chunk_id in accepted, counts[held.claim.chunk_id])
        self._finish([held for held in chunks if held.done and not held.gone])

    def _still_mine(self, held: Held) -> bool:
        if not held.gone and time.monotonic() >= held.fence_at and self._in_hand.drop(held):
            self.late(held)
        if held.gone:
            self._touched.pop(held.claim.chunk_id, None)
        return not held.gone

    def _saved(self, saves: list[Save], chunks: dict[int, Held]) -> set[int]:
        for wait in backoff():
            try:
                return self._store.chunks.save(saves)
            except StoreUnavailable as error:
                log.warning("saving results: %s", error)
            except TextmillError as error:
                return self._saved_singly(saves, chunks, error)
            if self._hurry.wait(wait):
                return set()
            saves = [self._unsaved_part(save, chunks) for save in saves if self._still_mine(chunks[save.chunk_id])]
            if not saves:
                return set()
        return set()

    def _saved_singly(self, saves: list[Save], chunks: dict[int, Held], error: TextmillError) -> set[int]:
        """One chunk's rows were refused: find it, so that it alone fails. Its last try saves errors in their place."""
        if len(saves) > 1:
            return set().union(*(self._saved([save], chunks) for save in saves))
        (save,) = saves
        held = chunks[save.chunk_id]
        if held.claim.errors + 1 >= MOST_ERRORS:
            reason = f"its results were refused {MOST_ERRORS} times, at last: {error}"
            try:
                return self._store.chunks.save([save._replace(rows=spoilt(save.rows, reason))])
            except StoreUnavailable as away:
                log.warning("saving results: %s", away)
            except TextmillError:
                self._take_job_fails((held.claim.job_id, f"results cannot be saved: {error}"))
                return set()
        if self._in_hand.drop(held):
            self._release(held, error=f"saving: {error}")
        return set()

    def _unsaved_part(self, save: Save, chunks: dict[int, Held]) -> Save:
        """Without the rows that a lost answer had saved after all: only a chunk that goes on can have such."""
        if save.done:
            return save
        claim = chunks[save.chunk_id].claim
        try:
            have = self._store.results.have(claim.job_id, claim.seq_lo, claim.seq_hi)
        except StoreUnavailable:
            return save
        return save._replace(rows=[row for row in save.rows if row.seq not in have])

    def _after(self, held: Held, accepted: bool, counts: "_Counts") -> None:
        if not accepted:
            if self._in_hand.drop(held):
                telemetry.LEASE_LOSSES.labels("taken").inc()
                told = "chunk %s is not held any more; its results are dropped"
                log.warning(told, held.claim.chunk_id, extra=about(held.claim))
            self._touched.pop(held.claim.chunk_id, None)
            return
        self._on_saved(counts.items, counts.errors)
        counts.tell(held.claim.task, held.claim.model)
        if held.done:
            counts.trace(held)
            self._touched.pop(held.claim.chunk_id, None)
            self._in_hand.remove(held)

    def _finish(self, ended: Sequence[Held]) -> None:
        """Finishing is a later transaction: two last chunks that commit together each see the other as running."""
        for job_id in dict.fromkeys(held.claim.job_id for held in ended):
            if not self._in_hand.has_job(job_id):
                try:
                    if (job := self._store.jobs.finish(job_id)) is not None:
                        telemetry.job_done(job)
                except TextmillError as error:
                    log.warning("%s is left to upkeep: %s", job_id, error, extra={"job": job_id})

    def _release(self, held: Held, error: str | None = None) -> None:
        tokens = {held.claim.chunk_id: held.claim.token}
        delay = RETRY_AFTER_S * (held.claim.errors + 1) if error else 0.0
        self._patiently(lambda: self._store.chunks.release(tokens, error=error, delay_s=delay), "releasing a chunk")

    def _patiently(self, call: Callable[[], object], what: str) -> None:
        """Until the database answers; a lease that ends in the meantime does the same in the end."""
        for wait in backoff():
            try:
                call()
                return
            except StoreUnavailable as error:
                log.warning("%s: %s", what, error)
            except TextmillError as error:
                log.warning("%s: %s", what, error)
                return
            if self._hurry.wait(wait):
                return


def _may_end(held: Held) -> bool:
    """Whether the next item may well end the process: what it has is saved at once."""
    return bool(held.claim.suspects and held.rows)


class _Counts(NamedTuple):
    """What rows add up to."""

    items: int
    errors: int
    tokens_in: int
    tokens_out: int

    @classmethod
    def of(cls, rows: Sequence[ResultRow]) -> Self:
        errors = [row.status for row in rows].count("error")
        return cls(len(rows), errors, sum([row.tokens_in for row in rows]), sum([row.tokens_out for row in rows]))

    def tell(self, task: str, model: str) -> None:
        """Count them for Prometheus."""
        telemetry.ITEMS.labels(task, model, "ok").inc(self.items - self.errors)
        telemetry.ITEMS.labels(task, model, "error").inc(self.errors)
        telemetry.TOKENS.labels(model, "in").inc(self.tokens_in)
        telemetry.TOKENS.labels(model, "out").inc(self.tokens_out)

    def trace(self, held: Held) -> None:
        """The chunk's span, from its claim to its last results; counts are those of its last save."""
        claim = held.claim
        told = {**about(claim), "items": claim.seq_hi - claim.seq_lo, **self._asdict()}
        told.pop("trace_id", None)
        tracing.record("textmill.chunk", claim.traceparent, held.claimed_at, datetime.now(UTC), told)


def _nothing(_: object) -> None:
    """The order of a quiet moment."""

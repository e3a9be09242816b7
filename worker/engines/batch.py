"""The model behind the port for heads that answer in one forward pass: look-ahead, sort, pack, halve."""

import math
import time
from array import array
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple, cast

from jobs.errors import DeviceLost, ItemErrorCode
from jobs.tasks.base import (
    Answered,
    Classified,
    Compared,
    Embedded,
    Failed,
    Filled,
    Generated,
    Labelled,
    Outcome,
    Scored,
)
from worker.engines.base import BeforeBatch, Encoded, Key, OutOfMemory, Work
from worker.packing import PADDED, Packing

STEP_S = 0.25
"""How long one step goes on taking batches."""
LOOKAHEAD_BATCHES = 32
"""Full batches of work a model keeps, so that sorting finds neighbours of like length."""
PATIENCE, MOST_PATIENCE = 16, 1024
"""Good batches before a shrunk budget grows again; doubled with every batch that did not fit."""

Forward = Callable[[Sequence[Work]], Sequence[Outcome]]
"""Runs one batch: an outcome per work, in order. Raises OutOfMemory, DeviceLost, or anything else for a bad batch."""


length_of: Callable[[Encoded], int] = attrgetter("length")
"""The cost of a request that is read once: its tokens."""


def kind_of(encoded: Encoded) -> Hashable:
    """Requests of one kind share a batch."""
    return cast(Hashable, type(encoded.request))


_KEY: Callable[[Work], Key] = attrgetter("key")
_ENCODED: Callable[[Work], Encoded] = attrgetter("encoded")
_LENGTH = length_of


class BatchModel:
    """Keeps the promises of `Model` around a `forward` that knows nothing of queues.

    `cost` is how many tokens of a batch a request occupies, `packing` what several occupy together, `group` says which
    requests may share a batch. Batches stay within `max_batch_tokens`; one that does not fit the device lowers that
    budget, which grows back after a while. A request that fails alone becomes its own Failed.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        max_batch_tokens: int,
        cost: Callable[[Encoded], int] = length_of,
        group: Callable[[Encoded], Hashable] = kind_of,
        max_items: int | None = None,
        packing: Packing = PADDED,
        reclaim: Callable[[], None] = lambda: None,
    ) -> None:
        self._forward, self._cost, self._group, self._reclaim = forward, cost, group, reclaim
        self._max_items, self._packing = max_items, packing
        self._lookahead = LOOKAHEAD_BATCHES * max_batch_tokens
        self._budget = _Budget(max_batch_tokens)
        self._before: BeforeBatch = lambda keys: None
        self._live: set[Key] = set()
        self._waiting: list[Work] = []
        self._planned: list[_Batch] = []
        self._alone: dict[Key, Work] = {}
        self._tokens = 0
        self._stats: dict[str, Any] = {"steps": 0, "batches": 0, "items": 0, "tokens": 0, "padded_tokens": 0}
        self._stats |= {"out_of_memory": 0, "failed_batches": 0, "failed": 0, "memory_bytes": 0}

    def wants(self) -> int:
        return max(0, self._lookahead - self._tokens)

    def add(self, work: Sequence[Work]) -> None:
        self._live.update(map(_KEY, work))
        self._waiting.extend(work)
        self._tokens += sum(self._costs(work))

    def before_batch(self, call: BeforeBatch) -> None:
        self._before = call

    def step(self) -> list[tuple[Key, Outcome]]:
        self._stats["steps"] += 1
        done: list[tuple[Key, Outcome]] = []
        until = time.monotonic() + STEP_S
        while batch := self._next_batch():
            done.extend(self._answered(batch))
            if time.monotonic() >= until:
                break
        return done

    def cancel(self, keys: Sequence[Key]) -> None:
        gone = self._live.intersection(keys)
        if gone:
            planned = [item for batch in reversed(self._planned) for item in batch.work]
            self._live -= gone
            self._waiting = [item for item in (*planned, *self._waiting) if item.key not in gone]
            self._planned = []
            self._alone = {key: item for key, item in self._alone.items() if key not in gone}
            self._waiting = [item for item in self._waiting if item.key not in self._alone]
            self._tokens = sum(self._costs(self._waiting)) + sum(self._costs(list(self._alone.values())))

    def pending(self) -> int:
        return len(self._live)

    def stats(self) -> dict[str, Any]:
        return {**self._stats, "pending": len(self._live), "budget": self._budget.tokens}

    def close(self) -> None:
        self.cancel(list(self._live))
        self._reclaim()

    def _costs(self, work: Sequence[Work]) -> list[int]:
        return list(map(self._cost, map(_ENCODED, work)))

    # ----- planning -----

    def _next_batch(self) -> "_Batch | None":
        """The next batch, longest first within each group. Work that is waiting is planned only when the last plan is
        used up, so that nothing is overtaken for long."""
        if not self._planned:
            self._planned = [self._batch([item]) for item in self._alone.values()] or self._plan()
        if not self._planned:
            return None
        batch = self._planned.pop()
        self._tokens -= sum(batch.costs)
        return batch

    def _batch(self, work: list[Work]) -> "_Batch":
        costs = self._costs(work)
        return _Batch(work, costs, self._packing.tokens(costs))

    def _plan(self) -> "list[_Batch]":
        groups: dict[Hashable, list[Work]] = {}
        for group, item in zip(map(self._group, map(_ENCODED, self._waiting)), self._waiting, strict=True):
            groups.setdefault(group, []).append(item)
        self._waiting = []
        batches = [batch for members in groups.values() for batch in self._packed(members)]
        batches.reverse()
        return batches

    def _packed(self, members: list[Work]) -> "list[_Batch]":
        batches = self._packing.batches(self._costs(members), self._budget.tokens, max_items=self._max_items)
        return [self._batch([members[at] for at in batch]) for batch in batches]

    def _put_back(self, *batches: "_Batch") -> None:
        """Next in line, in this order."""
        self._planned.extend(reversed(batches))
        self._tokens += sum(sum(batch.costs) for batch in batches)

    def _replan(self) -> None:
        """Everything planned is cut anew, to the budget as it is now."""
        planned = [item for batch in reversed(self._planned) for item in batch.work]
        self._waiting = planned + self._waiting
        self._planned = self._plan()

    # ----- running -----

    def _answered(self, batch: "_Batch") -> list[tuple[Key, Outcome]]:
        self._stats["batches"] += 1
        outcomes = self._run(batch)
        if isinstance(outcomes, (OutOfMemory, MemoryError)):
            return self._did_not_fit(batch)
        if isinstance(outcomes, Exception):
            return self._went_wrong(batch, outcomes)
        self._budget.good(batch.padded)
        return self._finished(batch, outcomes)

    def _run(self, batch: "_Batch") -> Sequence[Outcome] | Exception:
        """The outcomes, or the error without its traceback and context, whose frames would hold the batch's tensors."""
        self._before(list(map(_KEY, batch.work)))
        try:
            return _checked(self._forward(batch.work), len(batch.work))
        except DeviceLost:
            raise
        except Exception as error:
            error.__context__ = error.__cause__ = None
            return error.with_traceback(None)

    def _did_not_fit(self, batch: "_Batch") -> list[tuple[Key, Outcome]]:
        self._stats["out_of_memory"] += 1
        self._reclaim()
        if len(batch.work) == 1:
            return self._lone_did_not_fit(batch)
        self._budget.too_much(batch.padded)
        self._put_back(batch)
        self._replan()
        return []

    def _lone_did_not_fit(self, batch: "_Batch") -> list[tuple[Key, Outcome]]:
        """A neighbour on the device may have held the memory: it is tried once more, after the others."""
        item = batch.work[0]
        if item.key not in self._alone:
            self._alone[item.key] = item
            self._tokens += sum(batch.costs)
            return []
        self._budget.was_not_to_blame()
        text = f"out of memory with this item alone ({item.encoded.length} tokens)"
        return self._failed(batch, ItemErrorCode.TOO_LONG, text)

    def _went_wrong(self, batch: "_Batch", error: Exception) -> list[tuple[Key, Outcome]]:
        self._stats["failed_batches"] += 1
        if len(batch.work) == 1:
            return self._failed(batch, ItemErrorCode.MODEL_ERROR, f"{type(error).__name__}: {error}"[:2000])
        middle = len(batch.work) // 2
        self._put_back(self._batch(batch.work[:middle]), self._batch(batch.work[middle:]))
        return []

    def _failed(self, batch: "_Batch", code: ItemErrorCode, text: str) -> list[tuple[Key, Outcome]]:
        return self._finished(batch, [Failed(code, text, input_tokens=batch.work[0].encoded.length)])

    def _finished(self, batch: "_Batch", outcomes: Sequence[Outcome]) -> list[tuple[Key, Outcome]]:
        keys = list(map(_KEY, batch.work))
        self._live.difference_update(keys)
        if self._alone:
            self._alone.pop(keys[0], None)  # one that stands alone is a batch of its own
        stats = self._stats
        stats["items"] += len(keys)
        stats["tokens"] += sum(map(_LENGTH, map(_ENCODED, batch.work)))
        stats["padded_tokens"] += batch.padded
        stats["failed"] += list(map(type, outcomes)).count(Failed)
        return list(zip(keys, outcomes, strict=True))


class _Batch(NamedTuple):
    """Work that goes through the model together, the costliest first."""

    work: list[Work]
    costs: list[int]
    padded: int
    """Tokens that it takes of a pass, padding included."""


class _Budget:
    """Tokens a batch may take: halved by one that did not fit, doubled again after a run of good ones."""

    def __init__(self, limit: int) -> None:
        self.tokens = self._limit = limit
        self._proven = 0
        self._good, self._patience = 0, PATIENCE

    def good(self, padded: int) -> None:
        self._proven = max(self._proven, padded)
        self._good += 1
        if self.tokens < self._limit and self._good >= self._patience:
            self.tokens, self._good = min(self._limit, self.tokens * 2), 0

    def too_much(self, padded: int) -> None:
        self.tokens = max(1, min(self.tokens, padded) // 2)
        self._good, self._patience = 0, min(self._patience * 2, MOST_PATIENCE)

    def was_not_to_blame(self) -> None:
        """One item turned out to be the culprit: what has worked before will work again."""
        self.tokens = min(self._limit, max(self.tokens, self._proven))


_NUMBERS: dict[type, Callable[[Any], Sequence[float]]] = {
    Classified: attrgetter("logits"),
    Compared: attrgetter("similarities"),
    Scored: attrgetter("logprobs"),
    Embedded: lambda outcome: array("f", outcome.vector),
    Labelled: lambda outcome: array("f", outcome.logits),
    Answered: lambda outcome: array("f", outcome.logits),
    Filled: lambda outcome: [each.score for mask in outcome.masks for each in mask],
    Generated: lambda outcome: (),
    Failed: lambda outcome: (),
}


def _checked(outcomes: Sequence[Outcome], expected: int) -> Sequence[Outcome]:
    """The outcomes, NaN replaced by Failed. Misaligned rows are worse than none: too few outcomes, or things that are
    no outcomes, make the whole batch a bad one."""
    if len(outcomes) != expected:
        raise RuntimeError(f"the model returned {len(outcomes)} outcomes for {expected} requests")
    kinds = set(map(type, outcomes))
    if strange := kinds - _NUMBERS.keys():
        raise TypeError(f"the model returned {strange.pop().__name__} instead of an outcome")
    numbers = map(_NUMBERS[kinds.pop()], outcomes) if len(kinds) == 1 else map(_numbers, outcomes)
    sound = not math.isnan(sum(chain.from_iterable(numbers)))
    return outcomes if sound else [sane(outcome) for outcome in outcomes]


def _numbers(outcome: Outcome) -> Sequence[float]:
    return _NUMBERS[type(outcome)](outcome)


def sane(outcome: Outcome) -> Outcome:
    """The outcome, or Failed for one whose numbers are none."""
    if not math.isnan(sum(_numbers(outcome))):
        return outcome
    counts = {"input_tokens": outcome.input_tokens, "output_tokens": outcome.output_tokens}
    return Failed(ItemErrorCode.MODEL_ERROR, "the model returned NaN", **counts)

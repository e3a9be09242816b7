"""The model behind the port for generation: a loop whose rows leave when they are done, others taking their place."""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from jobs.errors import DeviceLost, ItemErrorCode
from jobs.tasks.base import Failed, Outcome
from worker.engines.base import BeforeBatch, Encoded, Key, OutOfMemory, Work
from worker.engines.batch import LOOKAHEAD_BATCHES, STEP_S, length_of, sane

PATIENCE, MOST_PATIENCE = 64, 4096
"""Good passes before a loop that shrank grows again; doubled each time that memory was short."""


Starting = Callable[[Sequence[Work]], None]


class Loop(Protocol):
    """What differs between kinds of generation. Knows rows and tokens, nothing of queues, blame or retries.

    `admit` and `advance` may raise OutOfMemory, DeviceLost, or anything else for an item that the model cannot take.
    `running` and `drop` work afterwards: all who run are dropped and tried again.
    """

    def refusal(self, encoded: Encoded) -> str | None:
        """Why a request would not fit even if nothing else ran; None: it does. What is refused is never admitted."""
        ...

    def admit(self, waiting: Sequence[Work], starting: Starting) -> int:
        """Start as many of the first ones as fit now; how many that were. The rest is a look at what comes next.

        A loop whose device works already to start them tells `starting` whom, before it does."""
        ...

    def advance(self) -> list[tuple[Key, Outcome]]:
        """One forward pass over the rows that run; the outcomes of those it finished, which run no longer."""
        ...

    def running(self) -> list[Work]:
        """Work that was started and has neither finished nor been dropped, in the order of admission."""
        ...

    def drop(self, keys: Collection[Key]) -> None:
        """Give the rows of these keys up; unknown ones are ignored."""
        ...

    def shrink(self) -> bool:
        """Halve the rows and tokens of a pass, and give back what memory is free; False when they are as few as can be:
        one item at a time. Nothing runs then."""
        ...

    def grow(self) -> None:
        """Double them again, up to where they began."""
        ...

    def stats(self) -> dict[str, Any]:
        """Counters since load: `tokens` that went through the model and meant something, `padded_tokens` with those
        that did not, `decode_rows` that decoded out of `decode_slots` that could have while work remained,
        `shared_tokens` of prompts that were not computed again, `budget`, `memory_bytes` of weights, `cache_bytes`
        that keys and values may take beside them, `mode`."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


class LoopModel:
    """Keeps the promises of `Model` around a `Loop`: the queue, the order, blame, memory that is short.

    Work starts in the order it came. When a pass runs out of memory, its items wait again at the front and the loop
    shrinks, to grow back after a run of good passes. When one raises, halves of its items run by themselves until the
    culprit stands alone.
    """

    def __init__(self, loop: Loop, *, max_batch_tokens: int, cost: Callable[[Encoded], int] = length_of) -> None:
        self._loop, self._cost = loop, cost
        self._lookahead = LOOKAHEAD_BATCHES * max_batch_tokens
        self._memory = _Memory(loop)
        self._live: set[Key] = set()
        self._waiting: list[Work] = []
        self._suspects: list[list[Work]] = []
        """Groups that run by themselves, the last one first."""
        self._last: list[Work] = []
        """Items for which memory was short although nothing else ran: tried once more when the others are done."""
        self._spared: set[Key] = set()
        self._before: BeforeBatch = lambda keys: None
        self._told: list[Key] = []
        self._refused: list[tuple[Key, Outcome]] = []
        """To be returned by the next step."""
        self._stats = {"steps": 0, "batches": 0, "items": 0, "failed": 0, "failed_batches": 0, "out_of_memory": 0}

    def wants(self) -> int:
        return max(0, self._lookahead - sum(self._cost(item.encoded) for item in self._waiting))

    def add(self, work: Sequence[Work]) -> None:
        self._live.update(item.key for item in work)
        for item in work:
            if text := self._loop.refusal(item.encoded):
                self._refused.append((item.key, _too_long(item, text)))
            else:
                self._waiting.append(item)

    def before_batch(self, call: BeforeBatch) -> None:
        self._before = call

    def step(self) -> list[tuple[Key, Outcome]]:
        self._stats["steps"] += 1
        self._told = []  # what was told for the last step is no longer noted
        done = self._finished(self._refused)
        self._refused = []
        until = time.monotonic() + STEP_S
        while self._live:
            done.extend(self._pass())
            if time.monotonic() >= until:
                break
        return done

    def cancel(self, keys: Sequence[Key]) -> None:
        if gone := self._live.intersection(keys):
            self._live -= gone
            self._spared -= gone
            self._refused = [(key, outcome) for key, outcome in self._refused if key not in gone]
            self._take_out(gone)

    def pending(self) -> int:
        return len(self._live)

    def stats(self) -> dict[str, Any]:
        return {**self._loop.stats(), **self._stats, "pending": len(self._live)}

    def close(self) -> None:
        self.cancel(list(self._live))
        self._loop.close()

    # ----- running -----

    def _pass(self) -> list[tuple[Key, Outcome]]:
        self._stats["batches"] += 1
        try:
            self._refill()
            self._tell(())
            outcomes = self._loop.advance()
        except DeviceLost:
            raise
        except (OutOfMemory, MemoryError):
            return self._did_not_fit()
        except Exception as error:
            return self._went_wrong(f"{type(error).__name__}: {error}"[:2000])
        self._memory.good()
        return self._finished(outcomes)

    def _refill(self) -> None:
        queue = self._queue()
        if queue:
            del queue[: self._loop.admit(queue, self._tell)]

    def _tell(self, starting: Sequence[Work]) -> None:
        """Before the device works: who runs, and who starts."""
        keys = [item.key for item in (*self._loop.running(), *starting)]
        if keys != self._told:
            self._told = keys
            self._before(keys)

    def _queue(self) -> list[Work]:
        """Whose turn it is: suspects, then those who wait, then, one at a time, those for whom memory was short."""
        if not self._loop.running():
            self._suspects = [group for group in self._suspects if group]
            if self._last and not self._suspects and not self._waiting:
                self._suspects.append([self._last.pop(0)])
        return self._suspects[-1] if self._suspects else self._waiting

    def _finished(self, outcomes: Sequence[tuple[Key, Outcome]]) -> list[tuple[Key, Outcome]]:
        done = [(key, sane(outcome)) for key, outcome in outcomes]
        keys = [key for key, _ in done]
        self._live.difference_update(keys)
        self._spared.difference_update(keys)
        self._stats["items"] += len(done)
        self._stats["failed"] += sum(isinstance(outcome, Failed) for _, outcome in done)
        return done

    # ----- trouble -----

    def _did_not_fit(self) -> list[tuple[Key, Outcome]]:
        self._stats["out_of_memory"] += 1
        concerned = self._interrupted()
        if self._memory.short():
            self._first(concerned)
            return []
        return self._lone_did_not_fit(concerned[0]) if len(concerned) == 1 else self._halved(concerned)

    def _lone_did_not_fit(self, item: Work) -> list[tuple[Key, Outcome]]:
        """A neighbour on the device may have held the memory: it is tried once more, after the others."""
        self._memory.was_not_to_blame()
        if item.key not in self._spared:
            self._spared.add(item.key)
            self._last.append(item)
            return []
        text = f"out of memory with this item alone ({item.encoded.length} tokens)"
        return self._finished([(item.key, _too_long(item, text))])

    def _went_wrong(self, text: str) -> list[tuple[Key, Outcome]]:
        self._stats["failed_batches"] += 1
        concerned = self._interrupted()
        if len(concerned) != 1:
            return self._halved(concerned)
        failed = Failed(ItemErrorCode.MODEL_ERROR, text, input_tokens=concerned[0].encoded.length)
        return self._finished([(concerned[0].key, failed)])

    def _halved(self, work: list[Work]) -> list[tuple[Key, Outcome]]:
        middle = len(work) // 2
        self._suspects += [work[middle:], work[:middle]]
        return []

    def _interrupted(self) -> list[Work]:
        """Who ran, or could not even start; they neither run nor wait any longer."""
        concerned = self._loop.running() or self._queue()[:1]
        self._take_out({item.key for item in concerned})
        return concerned

    def _first(self, work: list[Work]) -> None:
        """Next in line, in this order."""
        (self._suspects[-1] if self._suspects else self._waiting)[:0] = work

    def _take_out(self, keys: set[Key]) -> None:
        self._loop.drop(keys)
        self._waiting = _without(self._waiting, keys)
        self._suspects = [_without(group, keys) for group in self._suspects]
        self._last = _without(self._last, keys)


class _Memory:
    """Shrinks a loop when memory is short, and lets it grow again."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._shrunk = self._hunt = self._good = 0
        self._patience = PATIENCE

    def good(self) -> None:
        self._good += 1
        if self._shrunk and self._good >= self._patience:
            self._loop.grow()
            self._shrunk -= 1
            self._good = self._hunt = 0

    def short(self) -> bool:
        """Whether there was anything left to shrink."""
        self._good, self._patience = 0, min(self._patience * 2, MOST_PATIENCE)
        shrunk = self._loop.shrink()
        self._shrunk += shrunk
        self._hunt += shrunk
        return shrunk

    def was_not_to_blame(self) -> None:
        """One item turned out to be the culprit: what was shrunk in search of it grows back."""
        for _ in range(self._hunt):
            self._loop.grow()
        self._shrunk -= self._hunt
        self._hunt = 0


def _too_long(item: Work, text: str) -> Failed:
    return Failed(ItemErrorCode.TOO_LONG, text, input_tokens=item.encoded.length)


def _without(work: list[Work], keys: set[Key]) -> list[Work]:
    return [item for item in work if item.key not in keys]

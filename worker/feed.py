"""Work that is ready for the device, by model: filled by the reader, emptied by the device loop."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from worker.engines.base import Work
from worker.held import Held


class Lot(NamedTuple):
    """Requests of one chunk that go to the device in their order."""

    held: Held
    works: list[Work]
    tokens: int


class Feed:
    """Queues of lots, one per model. Safe to use from several threads."""

    def __init__(self, on_put: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._lots: dict[str, deque[Lot]] = {}
        self._on_put = on_put
        self.items = 0
        self.tokens = 0

    def put(self, model: str, lots: Sequence[Lot], *, first: bool = False) -> None:
        """Queue lots of a model; `first` for further rounds of items that have begun."""
        with self._lock:
            queue = self._lots.setdefault(model, deque())
            queue.extendleft(reversed(lots)) if first else queue.extend(lots)
            self._count(lots, 1)
        self._on_put()

    def take(self, model: str, tokens: int) -> list[Lot]:
        """Lots worth about `tokens`, at least one request; the last lot may be cut."""
        taken: list[Lot] = []
        with self._lock:
            queue = self._lots.get(model, ())
            while queue and tokens > 0:
                lot = queue.popleft()
                if lot.tokens > tokens:
                    lot, rest = _cut(lot, tokens)
                    if rest.works:
                        queue.appendleft(rest)
                tokens -= max(1, lot.tokens)
                taken.append(lot)
            self._count(taken, -1)
        return taken

    def drop(self, held: Held) -> None:
        """Forget what is queued of a chunk."""
        with self._lock:
            for model, queue in self._lots.items():
                mine = [lot for lot in queue if lot.held is held]
                if mine:
                    self._lots[model] = deque(lot for lot in queue if lot.held is not held)
                    self._count(mine, -1)

    def models(self) -> list[str]:
        """Models with work, the one that has waited longest first."""
        with self._lock:
            return [model for model, queue in self._lots.items() if queue]

    def _count(self, lots: Sequence[Lot], sign: int) -> None:
        for lot in lots:
            self.items += sign * len(lot.works)
            self.tokens += sign * lot.tokens


def lot(held: Held, works: list[Work]) -> Lot:
    """The lot of these requests."""
    return Lot(held, works, sum([work.encoded.length for work in works]))


def _cut(whole: Lot, tokens: int) -> tuple[Lot, Lot]:
    """The first requests up to `tokens`, at least one, and the rest."""
    at = total = 0
    while at < len(whole.works) and total < tokens:
        total += whole.works[at].encoded.length
        at += 1
    return Lot(whole.held, whole.works[:at], total), Lot(whole.held, whole.works[at:], whole.tokens - total)

"""Two ways of running one model behind the port: each request takes the one that can answer it."""

from collections.abc import Callable, Sequence
from typing import Any

from jobs.tasks.base import Outcome
from worker.engines.base import BeforeBatch, Encoded, Key, Model, Work

SUMMED = (
    "steps",
    "batches",
    "items",
    "tokens",
    "padded_tokens",
    "out_of_memory",
    "failed_batches",
    "failed",
    "pending",
)
"""Counters that both ways have; other figures are the first one's."""


class RoutedModel:
    """Keeps the promises of `Model` over two of them, which take turns while both have work."""

    def __init__(self, first: Model, second: Model, *, takes: Callable[[Encoded], bool]) -> None:
        """`takes`: whether the first can answer a request; the second answers every one."""
        self.first, self.second, self._takes = first, second, takes
        self._turn = False

    def wants(self) -> int:
        return min(self.first.wants(), self.second.wants())

    def add(self, work: Sequence[Work]) -> None:
        taken = [self._takes(item.encoded) for item in work]
        self.first.add([item for item, mine in zip(work, taken, strict=True) if mine])
        self.second.add([item for item, mine in zip(work, taken, strict=True) if not mine])

    def before_batch(self, call: BeforeBatch) -> None:
        self.first.before_batch(call)
        self.second.before_batch(call)

    def step(self) -> list[tuple[Key, Outcome]]:
        busy = [model for model in (self.first, self.second) if model.pending()]
        self._turn = not self._turn
        return (busy[self._turn % len(busy)] if busy else self.first).step()

    def cancel(self, keys: Sequence[Key]) -> None:
        self.first.cancel(keys)
        self.second.cancel(keys)

    def pending(self) -> int:
        return self.first.pending() + self.second.pending()

    def stats(self) -> dict[str, Any]:
        """Both together; `mode` is that of the way that promises less, once it was taken."""
        first, second = self.first.stats(), self.second.stats()
        found = {**second, **first, **{name: first[name] + second[name] for name in SUMMED}}
        return {**found, "mode": second["mode"] if second["items"] else first["mode"]}

    def close(self) -> None:
        self.first.close()
        self.second.close()

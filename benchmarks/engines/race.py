"""Several ways of doing the same work, in turns: medians, ratios, and how far their outputs are apart."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

ROUNDS = 3
QUIET_S = 1.0
"""Between two ways: the idle threads of some libraries go on spinning for a while, and would slow down the next."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way. `run` does all the work and gives its outputs in the order of the inputs."""

    name: str
    run: Callable[[], Sequence[Any]]
    peer: bool = True
    """Whether a user could have chosen it instead: gates compare with the best of these."""


@dataclass(frozen=True, slots=True)
class Finish:
    """How a way did."""

    way: Way
    seconds: float
    outputs: Sequence[Any]


def race(ways: Sequence[Way], *, rounds: int = ROUNDS) -> dict[str, Finish]:
    """Each way `rounds` times, all of them once a round and in another order, after one round that does not count."""
    outputs = {way.name: way.run() for way in ways}
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in (*ways[number % len(ways) :], *ways[: number % len(ways)]):
            gc.collect()
            time.sleep(QUIET_S)
            start = time.perf_counter()
            way.run()
            seconds[way.name].append(time.perf_counter() - start)
    return {way.name: Finish(way, statistics.median(seconds[way.name]), outputs[way.name]) for way in ways}


def best_peer(finishes: dict[str, Finish]) -> Finish:
    """The fastest of the ways that a user could have chosen instead."""
    return min((each for each in finishes.values() if each.way.peer), key=lambda each: each.seconds)


@dataclass(frozen=True, slots=True)
class Gate:
    """A promise: what was measured, and what it has to reach."""

    name: str
    measured: float
    wanted: float

    def row(self) -> dict[str, object]:
        return {
            "gate": self.name,
            "measured": self.measured,
            "wanted": self.wanted,
            "met": "yes" if self.measured >= self.wanted else "NO",
        }

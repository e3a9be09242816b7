"""Several ways of doing the same work, in turns: medians, ratios, and how far their outputs are apart.

Each way has a process of its own, as a user who had chosen it would: libraries that share one take each other's threads
and caches, and an engine beside four others was measured at a third less than alone.
"""

import gc
import multiprocessing
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

ROUNDS = 3
QUIET_S = 1.0
"""Between two ways: the idle threads of some libraries go on spinning for a while, and would slow down the next."""

Run = Callable[[], Sequence[Any]]
"""Does all the work once and gives its outputs in the order of the inputs."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way. `make` loads what it needs; it is called in the way's own process, so it has to be picklable."""

    name: str
    make: Callable[[], Run]
    peer: bool = True
    """Whether a user could have chosen it instead: gates compare with the best of these."""


@dataclass(frozen=True, slots=True)
class Finish:
    """How a way did."""

    way: Way
    seconds: float
    outputs: Sequence[Any]


class WayFailed(RuntimeError):
    """A way could not be made or run; the traceback is its own process's."""


def race(ways: Sequence[Way], *, threads: int, rounds: int = ROUNDS) -> dict[str, Finish]:
    """Each way `rounds` times, all of them once a round and in another order, after one round that does not count.

    A peer that fails is left out, and said to be; raises WayFailed when one that is no peer does."""
    with ExitStack() as running:
        lanes: dict[str, _Lane] = {}
        outputs: dict[str, Sequence[Any]] = {}
        for way in ways:
            try:
                lane = running.enter_context(_lane(way, threads))
                outputs[way.name] = lane.run()[1]
                lanes[way.name] = lane
            except WayFailed as failure:
                if not way.peer:
                    raise
                print(f"left out: {way.name}: {str(failure).strip().splitlines()[-1]}", file=sys.stderr)
        seconds: dict[str, list[float]] = {name: [] for name in lanes}
        names = list(lanes)
        for number in range(rounds):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                time.sleep(QUIET_S)
                seconds[name].append(lanes[name].run()[0])
    found = {way.name: way for way in ways if way.name in lanes}
    return {name: Finish(way, statistics.median(seconds[name]), outputs[name]) for name, way in found.items()}


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


class _Lane:
    """A way at work in its process."""

    def __init__(self, way: Way, pipe: Connection) -> None:
        self._way, self._pipe = way, pipe

    def run(self) -> tuple[float, Sequence[Any]]:
        """Seconds of one run, and its outputs. Raises WayFailed."""
        self._pipe.send("run")
        return self._answer()  # type: ignore[no-any-return]

    def ready(self) -> None:
        """Wait until it is made. Raises WayFailed."""
        self._answer()

    def _answer(self) -> Any:
        try:
            worked, found = self._pipe.recv()
        except EOFError:
            raise WayFailed(f"{self._way.name} ended without an answer") from None
        if not worked:
            raise WayFailed(f"{self._way.name}:\n{found}")
        return found


@contextmanager
def _lane(way: Way, threads: int) -> Iterator[_Lane]:
    fresh = multiprocessing.get_context("spawn")
    ours, theirs = fresh.Pipe()
    process = fresh.Process(target=_work, args=(way.make, threads, theirs), name=way.name, daemon=True)
    process.start()
    theirs.close()
    try:
        lane = _Lane(way, ours)
        lane.ready()
        yield lane
    finally:
        ours.close()
        process.join()


def _work(make: Callable[[], Run], threads: int, pipe: Connection) -> None:
    """Make it, then run it whenever asked, until nobody asks any more."""
    import torch

    be_quiet()
    torch.set_num_threads(threads)
    try:
        run = make()
        pipe.send((True, None))
        while True:
            pipe.recv()
            pipe.send((True, _timed(run)))
    except (EOFError, BrokenPipeError):  # the race has ended
        return
    except Exception:
        pipe.send((False, traceback.format_exc()))


def _timed(run: Run) -> tuple[float, Sequence[Any]]:
    gc.collect()
    start = time.perf_counter()
    outputs = run()
    return time.perf_counter() - start, outputs


def be_quiet() -> None:
    """Exporters talk a lot, and none of it is about the figures."""
    import transformers

    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

"""What the device does with its time, between one report and the next."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

COUNTERS = ("tokens", "padded_tokens", "batches", "decode_rows", "decode_slots")
"""What of the models' statistics is summed up; a model that does not count something counts 0."""


class Meter:
    """Measures one device. `shift` and `step` are entered by the device loop, `load` is read by the heartbeat."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds = {"shift": 0.0, "step": 0.0}
        self._since: dict[str, float] = {}
        self._before: dict[str, float] = dict.fromkeys((*self._seconds, *COUNTERS), 0.0)

    @contextmanager
    def shift(self) -> Iterator[None]:
        """While there is work."""
        with self._during("shift"):
            yield

    @contextmanager
    def step(self) -> Iterator[None]:
        """While the device computes."""
        with self._during("step"):
            yield

    def load(self, stats: Iterable[Mapping[str, Any]]) -> dict[str, float] | None:
        """Since the last call: `busy`, the share of its working time that the device computed; `padding`, the share of
        tokens that were none; `occupancy`, of decoding rows that were in use; `tokens_per_s` that were useful, and
        `batch_tokens`, so many of them in one pass. What did not occur is left out; None when there was no work at
        all. The counters never fall (`Residency.worked`)."""
        now = self.totals(stats)
        grown = {name: now[name] - self._before[name] for name in now}
        self._before = now
        if grown["shift"] <= 0:
            return None
        ratios = {
            "busy": (grown["step"], grown["shift"]),
            "padding": (grown["padded_tokens"] - grown["tokens"], grown["padded_tokens"]),
            "occupancy": (grown["decode_rows"], grown["decode_slots"]),
            "tokens_per_s": (grown["tokens"], grown["shift"]),
            "batch_tokens": (grown["tokens"], grown["batches"]),
        }
        return {name: round(part / whole, 4) for name, (part, whole) in ratios.items() if whole > 0}

    @contextmanager
    def _during(self, what: str) -> Iterator[None]:
        with self._lock:
            self._since[what] = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[what] += self._clock() - self._since.pop(what)

    def totals(self, stats: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """Seconds of `shift` and `step` so far, and what the models have counted (COUNTERS)."""
        with self._lock:
            now = self._clock()
            totals = {name: spent + (now - self._since.get(name, now)) for name, spent in self._seconds.items()}
        counted = list(stats)
        return totals | {name: float(sum(each.get(name, 0) for each in counted)) for name in COUNTERS}

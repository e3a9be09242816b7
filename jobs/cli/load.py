"""What the devices of a queue's workers are doing, in a few words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.store import Store
    from jobs.store.values import WorkerRow

RECENT_S = 20.0
"""A worker that has been silent for longer has nothing to say of the present."""


def load_of(store: "Store", queue: str) -> str:
    """Of all devices that serve the queue and had work; empty when there is none."""
    return in_words([worker for worker in store.workers.live(RECENT_S) if queue in worker.queues])


def in_words(workers: Sequence["WorkerRow"]) -> str:
    """`device 93 % busy, 2 % padding, 88 % of decode rows in use, 4,100 useful tokens/s`; shares are means."""
    loads = [worker.load for worker in workers if worker.load]
    if not loads:
        return ""
    parts = [
        f"{_mean([load[name] for load in loads if name in load]):.0%} {words}".replace("%", " %")
        for name, words in (("busy", "busy"), ("padding", "padding"), ("occupancy", "of decode rows in use"))
        if any(name in load for load in loads)
    ]
    parts.append(f"{sum(load.get('tokens_per_s', 0.0) for load in loads):,.0f} useful tokens/s")
    return ("device " if len(loads) == 1 else f"{len(loads)} devices ") + ", ".join(parts)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

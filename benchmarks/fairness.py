"""Who gets the worker when several want it: equal jobs, a weight of 3, a flood of small jobs beside a big one."""

import argparse
import statistics
import threading
import time
from collections.abc import Callable

from benchmarks.deployment import DATABASES, Deployment, deployment
from benchmarks.latency import sleeper
from benchmarks.report import show
from benchmarks.texts import lines
from jobs import Client
from jobs.client import JobHandle
from jobs.schemas import Job

ITEMS = 12_000
CHARACTERS = 50
"""About ten words, so ten tokens of the fake engine."""
TOKEN_S = 1 / 30_000
"""The model then does about 3,000 items a second."""
TIMEOUT_S = 300.0
FLOOD_S = 6.0
FLOOD_PER_S = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    show("fairness", [measure(database) for database in parser.parse_args().databases])


def measure(database: str) -> dict[str, object]:
    # A small look-ahead: what is claimed is out of the scheduler's hands, and these jobs last seconds, not hours.
    with deployment(database, lookahead_items=1024, lookahead_tokens=16_384, shift_s=5.0) as running:
        running.store.models.put(sleeper("steady", delay_token_s=TOKEN_S))
        client = Client(running.settings)
        return {
            "database": database,
            "two equal jobs: ends apart, %": equal(running, client) * 100,
            "weight 3 beside 1: work ratio": weighted(running, client),
            **flooded(client),
        }


def equal(running: Deployment, client: Client) -> float:
    """How far apart two equal jobs end, as a share of the time both took."""
    first, second = (_ended(handle) for handle in together(running, client, (1, 1)))
    start = min(first.started_at, second.started_at)
    last = max(first.finished_at, second.finished_at)
    return abs((first.finished_at - second.finished_at).total_seconds()) / (last - start).total_seconds()


def weighted(running: Deployment, client: Client) -> float:
    """Items done of a job of weight 3 for each of a job of weight 1, when the first is three quarters through."""
    heavy, light = together(running, client, (3, 1))
    while heavy.refresh().progress < 0.75:
        time.sleep(0.05)
    ratio = heavy.refresh().counts.ok / max(1, light.refresh().counts.ok)
    for handle in (heavy, light):
        handle.cancel()
    return ratio


def together(running: Deployment, client: Client, weights: tuple[float, ...]) -> list[JobHandle]:
    """Jobs that all waited before the worker started."""
    running.stop_workers()
    handles = [submit(client, ITEMS, weight=weight) for weight in weights]
    running.start_worker()
    return handles


def flooded(client: Client) -> dict[str, object]:
    """A big job alone and beside a flood of jobs of one item; how long the flood's jobs take alone and beside it."""
    alone = _rate(client)
    waits_alone = during_flood(client, lambda: time.sleep(FLOOD_S))
    beside: list[float] = []
    waits_beside = during_flood(client, lambda: beside.append(_rate(client)))
    return {
        "big job beside the flood, share of its rate": beside[0] / alone,
        "small jobs alone, median s": waits_alone,
        "small jobs beside the big one, median s": waits_beside,
    }


def during_flood(client: Client, action: Callable[[], object]) -> float:
    """Do `action` while small jobs are submitted at a steady pace; their median seconds from submit to end."""
    stop, handles = threading.Event(), list[JobHandle]()

    def send() -> None:
        while not stop.wait(1 / FLOOD_PER_S):
            handles.append(submit(client, 1))

    thread = threading.Thread(target=send)
    thread.start()
    action()
    stop.set()
    thread.join()
    ended = map(_ended, handles)
    return statistics.median((job.finished_at - job.created_at).total_seconds() for job in ended)


def submit(client: Client, n: int, *, weight: float = 1.0) -> JobHandle:
    return client.submit("classify", lines(n, characters=CHARACTERS), model="steady", weight=weight)


def _rate(client: Client) -> float:
    job = _ended(submit(client, ITEMS))
    return job.counts.ok / (job.finished_at - job.started_at).total_seconds()


def _ended(handle: JobHandle) -> "_Ended":
    job = handle.wait(timeout=TIMEOUT_S)
    if job.counts.ok != job.counts.total:
        raise RuntimeError(f"the job ended otherwise: {job}")
    return _Ended(job)


class _Ended:
    """A job that has all its times."""

    def __init__(self, job: Job) -> None:
        if job.started_at is None or job.finished_at is None:
            raise RuntimeError(f"the job has not run: {job}")
        self.counts, self.created_at = job.counts, job.created_at
        self.started_at, self.finished_at = job.started_at, job.finished_at


if __name__ == "__main__":
    main()

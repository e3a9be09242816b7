"""How quickly small jobs come back: one item on a warm, idle worker, and 200 jobs of one item at once."""

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from benchmarks.deployment import DATABASES, Deployment, deployment
from benchmarks.report import percentile, show
from jobs import Client
from jobs.models import ModelSpec

MODEL_S = 0.02
"""What one batch of the model takes in the first measurement."""
STEP_S = 0.5
"""And in the second: long enough that the time taken counts the batches."""
ROUNDS = 60
JOBS = 200
TIMEOUT_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    show("latency", [measure(database) for database in parser.parse_args().databases])


def measure(database: str) -> dict[str, object]:
    with deployment(database) as running:
        for name, seconds in (("quick", MODEL_S), ("slow", STEP_S)):
            running.store.models.put(sleeper(name, delay_s=seconds))
        running.start_worker()
        client = Client(running.settings)
        one(client, "quick")
        submits, alone = zip(*(one(client, "quick") for _ in range(ROUNDS)), strict=True)
        one(client, "slow")
        batches = at_once(running, client)
    return {
        "database": database,
        "one item, median ms": statistics.median(alone) * 1e3,
        "of which submit, median ms": statistics.median(submits) * 1e3,
        "over the model, median ms": (statistics.median(alone) - MODEL_S) * 1e3,
        "over the model, p95 ms": (percentile(alone, 0.95) - MODEL_S) * 1e3,
        f"batches of {JOBS} jobs": batches,
    }


def sleeper(name: str, **generation: float) -> ModelSpec:
    """The fake engine under another name, with a speed."""
    return ModelSpec(
        name=name, path="fake", kind="any", tasks=("classify",), engine="fake", head="classify", generation=generation
    )


def one(client: Client, model: str) -> tuple[float, float]:
    """Seconds from the call of submit to its return and to the job's end; the database's clock is this machine's."""
    start = datetime.now(UTC)
    handle = client.submit("classify", ["a text that is here to be classified"], model=model)
    submitted = datetime.now(UTC)
    job = handle.wait(timeout=TIMEOUT_S)
    if job.counts.ok != 1 or job.finished_at is None:
        raise RuntimeError(f"the job ended otherwise: {job}")
    time.sleep(0.05)  # the worker is idle again before the next one
    return (submitted - start).total_seconds(), (job.finished_at - start).total_seconds()


def at_once(running: Deployment, client: Client) -> int:
    """Batches that JOBS jobs of one item took: their time, in units of a batch's."""
    start = datetime.now(UTC)
    with ThreadPoolExecutor(4) as threads:
        handles = list(threads.map(lambda n: client.submit("classify", [f"text {n}"], model="slow"), range(JOBS)))
    ends = [handle.wait(timeout=TIMEOUT_S).finished_at for handle in handles]
    return int((max(end for end in ends if end) - start).total_seconds() / STEP_S)


if __name__ == "__main__":
    main()

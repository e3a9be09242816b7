"""What leases cost: the same job under one that is renewed all the time, the usual one, and one that never is.

A lease is renewed every third of it, so one of a second is renewed twenty times as often as that of `textmill run`, and
one of an hour never. Medians of interleaved rounds; the worker's CPU time tells what a busy machine hides.
"""

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.deployment import DATABASES
from benchmarks.orchestration import Run, prepared, run
from benchmarks.report import show

LEASES_S = (3600.0, 20.0, 1.0)
"""The first is what the others are compared with."""
ITEMS, ROUNDS = 100_000, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    asked = parser.parse_args()
    rows = [row for name in asked.databases for row in measure(name, asked.items, asked.rounds)]
    show("leases", rows, note=f"fake engine, {asked.items:,} items, medians of {asked.rounds}")


def measure(database: str, items: int, rounds: int) -> list[dict[str, object]]:
    """A row for each lease."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textmill-bench-")))
        settings = prepared(database, folder, stack)
        runs: dict[float, list[Run]] = {lease_s: [] for lease_s in LEASES_S}
        run(settings, folder, 1)
        for _ in range(rounds):
            for lease_s in LEASES_S:
                runs[lease_s].append(run(settings.model_copy(update={"lease_s": lease_s}), folder, items))
    base = _seconds(runs[LEASES_S[0]]), _cpu(runs[LEASES_S[0]])
    return [_row(database, lease_s, runs[lease_s], items, *base) for lease_s in LEASES_S]


def _row(
    database: str, lease_s: float, runs: list[Run], items: int, base_s: float, base_cpu: float
) -> dict[str, object]:
    return {
        "database": database,
        "lease, s": lease_s,
        "items/s": round(items / _seconds(runs)),
        "run over the first, %": round(100 * (_seconds(runs) / base_s - 1), 1),
        "worker CPU over the first, %": round(100 * (_cpu(runs) / base_cpu - 1), 1),
    }


def _seconds(runs: list[Run]) -> float:
    return statistics.median(each.seconds for each in runs)


def _cpu(runs: list[Run]) -> float:
    return statistics.median(each.worker.cpu_s for each in runs)


if __name__ == "__main__":
    main()

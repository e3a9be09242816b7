"""What schedules cost: 10,000 of them that are not due, on both databases, and how late those that are due begin."""

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.deployment import Deployment, deployment
from benchmarks.report import percentile, show
from jobs.client import Client
from jobs.queue import Queue
from jobs.schedules.firing import Scheduler
from jobs.schemas import ScheduleSpec
from jobs.states import RunState
from jobs.upkeep import Upkeep

DATABASES = ("sqlite", "postgresql")
SCHEDULES, ROUNDS, FIRED = 10_000, 50, 100
AHEAD_S = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=SCHEDULES)
    asked = parser.parse_args()
    rows = [row for dialect in DATABASES for row in _measured(dialect, asked.schedules)]
    show("schedules", rows, note=f"{asked.schedules:,} schedules that are not due; rounds are a second apart")


def _measured(dialect: str, count: int) -> Iterator[dict[str, object]]:
    with deployment(dialect) as running, TemporaryDirectory(prefix="textmill-bench-") as folder:
        path = Path(folder) / "corpus.txt"
        path.write_text("one\ntwo\n", encoding="utf-8")
        far = datetime.now(UTC) + timedelta(days=1)
        for number in range(count):
            running.store.schedules.create("default", f"far-{number}", _spec(path), far)
        client = Client(running.settings, store=running.store, queue=Queue(running.settings))
        scheduler = Scheduler(running.store, client, running.settings)
        before = time.process_time()
        for _ in range(ROUNDS):
            scheduler.round()
        spent = (time.process_time() - before) / ROUNDS
        yield _row(f"{dialect}: share of a core", spent / running.settings.upkeep_s, 0.01)
        late = sorted(_late(running, path))
        yield _row(f"{dialect}: {FIRED} due at once, the last one has its job after, s", late[-1], 2.0)
        yield _row(f"{dialect}: the median one", percentile(late, 0.5), None)


def _late(running: Deployment, path: Path) -> list[float]:
    """How long after its due time each of some schedules had its job, with upkeep at work."""
    due = datetime.now(UTC) + timedelta(seconds=AHEAD_S)
    ids = [running.store.schedules.create("default", f"due-{n}", _spec(path), due).id for n in range(FIRED)]
    upkeep = Upkeep(running.store, Queue(running.settings), running.settings, "benchmark")
    upkeep.start()
    try:
        ended: dict[str, float] = {}
        deadline = time.monotonic() + 60
        while len(ended) < FIRED and time.monotonic() < deadline:
            for schedule_id in ids:
                for run in running.store.schedules.runs(schedule_id) if schedule_id not in ended else ():
                    if run.state is RunState.SUBMITTED and run.ended_at is not None:
                        ended[schedule_id] = (run.ended_at - due).total_seconds()
            time.sleep(0.1)
    finally:
        upkeep.stop()
    return [*ended.values()] + [60.0] * (FIRED - len(ended))


def _spec(path: Path) -> ScheduleSpec:
    return ScheduleSpec(
        task="classify", model="fake", params={"labels": ["a", "b"]}, inputs=(str(path),), every_s=86_400
    )


def _row(what: str, measured: float, target: float | None) -> dict[str, object]:
    return {"what": what, "measured": round(measured, 4), "target": "" if target is None else target}


if __name__ == "__main__":
    main()

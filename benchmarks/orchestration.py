"""Everything but the model: a file in, a file out, through `textmill run` and its worker process, with the fake engine.

"items/s" is of the whole run, from the command to its exit. "us a further item" is what the items beyond the next
smaller size cost (the smallest: beyond a run of one item), which leaves start and stop out and says whether the cost is
flat. Memory is each process's own peak; CPU time tells what a busy machine hides.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.deployment import DATABASES, environment
from benchmarks.report import show
from benchmarks.texts import write_jsonl
from jobs.settings import Settings
from tests.servers import Postgres

SIZES = (10_000, 100_000, 1_000_000)
ROUNDS, FEW = 3, 10_000
POLL_S = 0.05
TEXTMILL = str(Path(sys.executable).parent / "textmill")


class Use(NamedTuple):
    """What one process took."""

    cpu_s: float
    peak_mb: float


class Run(NamedTuple):
    """One whole run."""

    seconds: float
    producer: Use
    worker: Use


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    asked = parser.parse_args()
    rows = [row for database in asked.databases for row in measure(database, asked.sizes)]
    show("orchestration", rows, note="fake engine, items of 200 bytes")


def measure(database: str, sizes: list[int]) -> list[dict[str, object]]:
    """A row per size, all on one database."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textmill-bench-")))
        settings = prepared(database, folder, stack)
        run(settings, folder, 1)
        runs = {size: _of_size(settings, folder, size) for size in (1, *sizes)}
        return [_row(database, size, runs[size], before, runs[before]) for before, size in pairwise(runs)]


def prepared(database: str, folder: Path, stack: ExitStack) -> Settings:
    """The settings of a home in this folder, on a database that lives as long as the stack."""
    url = stack.enter_context(Postgres(durable=True)).start().create_database() if database != "sqlite" else None
    settings = Settings(home=folder / "home", database_url=url)
    if url:
        command = [TEXTMILL, "db", "upgrade"]
        subprocess.run(command, env=environment(settings), check=True, stdout=subprocess.DEVNULL)
    return settings


def run(settings: Settings, folder: Path, n: int) -> Run:
    """One whole `textmill run` over `n` items, checked."""
    source, out = folder / f"in-{n}.jsonl", folder / f"out-{time.monotonic_ns()}.jsonl"
    if not source.exists():
        write_jsonl(source, n)
    start = time.perf_counter()
    command = [TEXTMILL, "run", "classify", str(source), "-o", str(out), "--model", "fake"]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, env=environment(settings), stdout=stderr, stderr=stderr)
        used = _watch(process)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError((folder / "stderr").read_text(errors="replace")[-4000:])
    _check(out, n)
    out.unlink()
    return Run(seconds, *used)


def _of_size(settings: Settings, folder: Path, n: int) -> Run:
    """Small jobs are over in less than what a start varies by, so they run several times."""
    return _median([run(settings, folder, n) for _ in range(ROUNDS if n <= FEW else 1)])


def _median(runs: list[Run]) -> Run:
    return sorted(runs)[len(runs) // 2]


def _watch(process: "subprocess.Popen[bytes]") -> tuple[Use, Use]:
    """Wait for the end; what the producer and its Python child, the worker, used."""
    uses = {"producer": Use(0, 0), "worker": Use(0, 0)}
    while process.poll() is None:
        for role, each in _processes(process.pid):
            uses[role] = _use(each) or uses[role]
        time.sleep(POLL_S)
    return uses["producer"], uses["worker"]


def _processes(pid: int) -> list[tuple[str, psutil.Process]]:
    try:
        producer = psutil.Process(pid)
        children = [child for child in producer.children(recursive=True) if "python" in child.name().lower()]
    except psutil.Error:
        return []
    return [("producer", producer), *(("worker", child) for child in children)]


def _use(process: psutil.Process) -> Use | None:
    """CPU time and peak resident memory so far; None when it is gone."""
    try:
        times = process.cpu_times()
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except (psutil.Error, OSError):
        return None
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
    return Use(times.user + times.system, int(peak.split()[1]) * 1024 / 1e6) if peak else None


def _check(out: Path, n: int) -> None:
    """Every item came out once, in order, answered."""
    with out.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            result = json.loads(line)
            if result["custom_id"] != f"item-{number}" or result["status"] != "ok":
                raise RuntimeError(f"line {number + 1} of the output is wrong: {line}")
    if number + 1 != n:
        raise RuntimeError(f"{number + 1} lines came out of {n}")


def _row(database: str, n: int, whole: Run, fewer: int, smaller: Run) -> dict[str, object]:
    further = (n - fewer) / 1e6
    return {
        "database": database,
        "items": n,
        "run, s": round(whole.seconds, 2),
        "items/s": round(n / whole.seconds),
        "us a further item": round((whole.seconds - smaller.seconds) / further, 1),
        "producer CPU, us": round((whole.producer.cpu_s - smaller.producer.cpu_s) / further, 1),
        "worker CPU, us": round((whole.worker.cpu_s - smaller.worker.cpu_s) / further, 1),
        "producer peak, MB": round(whole.producer.peak_mb),
        "worker peak, MB": round(whole.worker.peak_mb),
    }


if __name__ == "__main__":
    main()

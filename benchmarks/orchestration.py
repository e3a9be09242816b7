"""Everything but the model: a file in, a file out, through `textmill run` and its worker process, with the fake engine.

The fixed cost (a job of one item: start, connect, load, stop) is taken off, so that the rates of small and large jobs
compare. Memory is each process's own peak.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.deployment import DATABASES, environment
from benchmarks.report import show
from benchmarks.texts import write_jsonl
from jobs.settings import Settings
from tests.servers import Postgres

SIZES = (10_000, 100_000, 1_000_000)
POLL_S = 0.05
TEXTMILL = str(Path(sys.executable).parent / "textmill")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    asked = parser.parse_args()
    rows = [row for database in asked.databases for row in measure(database, asked.sizes)]
    show("orchestration", rows, note="fake engine, items of 200 bytes, fixed cost taken off")


def measure(database: str, sizes: list[int]) -> list[dict[str, object]]:
    """A row per size, all on one database."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textmill-bench-")))
        url = stack.enter_context(Postgres(durable=True)).start().create_database() if database != "sqlite" else None
        settings = Settings(home=folder / "home", database_url=url)
        if url:
            _textmill(settings, "db", "upgrade")
        run(settings, folder, 1)
        fixed, _ = run(settings, folder, 1)
        return [_row(database, size, fixed, *run(settings, folder, size)) for size in sizes]


def run(settings: Settings, folder: Path, n: int) -> tuple[float, dict[str, float]]:
    """Seconds of one whole `textmill run` over `n` items, and the peak memory of its processes in MB."""
    source, out = folder / f"in-{n}.jsonl", folder / f"out-{n}-{time.monotonic_ns()}.jsonl"
    write_jsonl(source, n)
    start = time.perf_counter()
    command = [TEXTMILL, "run", "classify", str(source), "-o", str(out), "--model", "fake"]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, env=environment(settings), stdout=stderr, stderr=stderr)
        peaks = _peaks(process)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError((folder / "stderr").read_text(errors="replace")[-4000:])
    _check(out, n)
    return seconds, peaks


def _peaks(process: "subprocess.Popen[bytes]") -> dict[str, float]:
    """Wait for the end; the peak resident memory of the producer and of the worker meanwhile, in MB."""
    peaks = {"producer": 0.0, "worker": 0.0}
    while process.poll() is None:
        for each in [psutil.Process(process.pid), *_children(process.pid)]:
            role = "producer" if each.pid == process.pid else "worker"
            peaks[role] = max(peaks[role], _peak_mb(each.pid))
        time.sleep(POLL_S)
    return peaks


def _children(pid: int) -> list[psutil.Process]:
    """Its Python children: the worker, not the broker."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [child for child in children if "python" in child.name().lower()]
    except psutil.Error:
        return []


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024 / 1e6


def _check(out: Path, n: int) -> None:
    """Every item came out once, in order, answered."""
    with out.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            result = json.loads(line)
            if result["custom_id"] != f"item-{number}" or result["status"] != "ok":
                raise RuntimeError(f"line {number + 1} of the output is wrong: {line}")
    if number + 1 != n:
        raise RuntimeError(f"{number + 1} lines came out of {n}")


def _row(database: str, n: int, fixed: float, seconds: float, peaks: dict[str, float]) -> dict[str, object]:
    net = max(seconds - fixed, 1e-9)
    return {
        "database": database,
        "items": n,
        "whole run, s": round(seconds, 2),
        "fixed cost, s": round(fixed, 2),
        "items/s": round(n / net),
        "us an item": round(net / n * 1e6, 1),
        "producer peak, MB": round(peaks["producer"]),
        "worker peak, MB": round(peaks["worker"]),
    }


def _textmill(settings: Settings, *arguments: str) -> None:
    subprocess.run([TEXTMILL, *arguments], env=environment(settings), check=True)


if __name__ == "__main__":
    main()

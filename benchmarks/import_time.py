"""How long `import jobs` takes in a fresh process, and which heavy packages it loads."""

import json
import statistics
import subprocess
import sys
import time

from benchmarks.report import show

ROUNDS = 11
HEAVY = ("torch", "transformers", "numpy", "celery", "kombu", "redis", "sqlalchemy", "alembic", "worker")
LOADED = "import jobs, sys, json; print(json.dumps([n for n in sys.modules]))"


def main() -> None:
    empty, full = [], []
    for _ in range(ROUNDS):
        empty.append(_seconds("pass"))
        full.append(_seconds("import jobs"))
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True).stdout))
    rows = [
        {
            "import jobs, s": statistics.median(full) - statistics.median(empty),
            "whole process, s": statistics.median(full),
            "bare python, s": statistics.median(empty),
            "heavy packages loaded": ", ".join(name for name in HEAVY if name in loaded) or "none",
        }
    ]
    show("import_time", rows, note=f"median of {ROUNDS}")


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

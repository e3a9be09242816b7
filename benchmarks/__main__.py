"""Runs every benchmark, one after the other, each in a process of its own."""

import subprocess
import sys

ALL = (
    "import_time",
    "install_size",
    "claims",
    "latency",
    "fairness",
    "orchestration",
    "overhead",
    "leases",
    "optional_engines",
    "search",
    "api",
    "schedules",
    "dashboard",
    "corpora",
)

if __name__ == "__main__":
    failed = [
        name for name in ALL if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
    ]
    if failed:
        sys.exit(f"these ended with an error: {', '.join(failed)}")

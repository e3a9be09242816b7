"""What a benchmark prints: the machine, a table for people, one JSON line for machines."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jobs.cli.table import table


def show(name: str, rows: Sequence[Mapping[str, Any]], *, note: str = "") -> None:
    """Print `rows`, which share their keys, as a table, and all of it again as one JSON line."""
    cells = [[_cell(value) for value in row.values()] for row in rows]
    print(f"{name}{f' ({note})' if note else ''}\n\n{table(list(rows[0]), cells)}\n\n{_words(machine())}")
    print(json.dumps({"benchmark": name, "machine": machine(), "rows": rows}), flush=True)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "celery", "sqlalchemy")},
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed."""
    return sorted(values)[max(0, -(-len(values) * round(share * 1000) // 1000) - 1)]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _words(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"

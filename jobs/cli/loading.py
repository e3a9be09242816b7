"""What is said of an input once its items are stored: lines left out, fields that nobody has."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import orjson

from jobs.errors import Problem
from jobs.refusals import report_of

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.cli.inputs import FingerprintedOnce
    from jobs.handle import JobHandle
    from jobs.settings import Settings

SHOWN = 10
"""Skipped lines that are shown one by one."""


def left_out(handle: "JobHandle", settings: "Settings") -> Iterator[str]:
    """The notes; of a job that was there before, those of the lines it was begun without."""
    loaded = handle.loaded
    if loaded is None:
        yield from _from_report(report_of(settings.home / "reports", handle.id))
        return
    if loaded.skipped:
        yield _skipped(loaded.skipped, loaded.problems, loaded.report)
    if loaded.unchanged or loaded.vanished:
        gone = f"; {loaded.vanished:,} have vanished since (`textmill seen NAME --vanished`)" if loaded.vanished else ""
        yield f"{loaded.unchanged:,} items are as they were and are left out{gone}"
    for name in loaded.never_seen:
        yield f"no item has the field {name!r}, which was to be kept"


def filtered(source: "FingerprintedOnce") -> Iterator[str]:
    """What is to be said of rows that the filter has left out, as far as the input was read."""
    if source.filtered:
        yield f"the filter leaves out {source.filtered:,} row(s)"


def _from_report(report: "Path") -> Iterator[str]:
    try:
        with report.open("rb") as lines:
            first = [Problem(**orjson.loads(line)) for line, _ in zip(lines, range(SHOWN), strict=False)]
            lines.seek(0)
            count = sum(1 for _ in lines)
    except (OSError, ValueError, TypeError):
        return
    yield _skipped(count, first, str(report))


def _skipped(count: int, problems: Sequence[Problem], report: str | None) -> str:
    lines = [f"{count:,} line(s) cannot be items and were skipped:"]
    lines += [f"  {problem}" for problem in problems[:SHOWN]]
    if count > SHOWN:
        lines.append(f"  ... all of them: {report}")
    return "\n".join(lines)

"""A job's figures with their confidence intervals: in all, by label and by length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.evaluate.cases import Case
from jobs.evaluate.chance import RESAMPLES, interval, resampled
from jobs.evaluate.measured import Measure, Measured

BUCKETS = (16, 64, 256, 1024)
"""Tokens up to which an item belongs to each bucket; the last has the rest."""


@dataclass(frozen=True)
class Report:
    """How good a job's results are."""

    task: str
    items: int
    errors: int
    """Items that ended as an error, which count as wrong answers."""
    main: str
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """95 % of each figure, by bootstrap over items."""
    by_label: dict[str, dict[str, float]]
    by_length: dict[str, dict[str, float]]
    labels: tuple[str, ...]
    confusion: list[list[int]] | None
    """[gold, found], in the order of `labels`; the last row and column are for none."""

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "task": self.task,
            "items": self.items,
            "errors": self.errors,
            "figures": {
                name: {"value": value, "interval_95": list(self.intervals[name]) if name in self.intervals else None}
                for name, value in self.figures.items()
            },
            "by_label": self.by_label,
            "by_length": self.by_length,
            "labels": list(self.labels),
            "confusion": self.confusion,
        }


def evaluated(
    task: str, some: Sequence[Case], measure: Measure, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Report, Measured]:
    """The report, and what was counted for each of the cases. Raises InvalidInput for gold that cannot be compared."""
    measured = measure(some)
    sums = measured.counts.sum(0)
    chance = resampled(measured.counts, measured.scores, seed=seed, resamples=resamples)
    report = Report(
        task=task,
        items=len(some),
        errors=sum(case.output is None for case in some),
        main=measured.main,
        figures={**measured.scores(sums), **measured.whole},
        intervals={name: interval(values) for name, values in chance.items()},
        by_label=measured.by_label(sums),
        by_length=_by_length(some, measured),
        labels=measured.labels,
        confusion=None if measured.confusion is None else measured.confusion.tolist(),
    )
    return report, measured


def _by_length(some: Sequence[Case], measured: Measured) -> dict[str, dict[str, float]]:
    """The figures of the items of each length in tokens."""
    found: dict[str, dict[str, float]] = {}
    low = 0
    for high in (*BUCKETS, None):
        inside = [at for at, case in enumerate(some) if case.tokens >= low and (high is None or case.tokens <= high)]
        if inside:
            name = f"{low}-{high}" if high else f"{low} and more"
            found[name] = {"items": len(inside), **measured.scores(measured.counts[inside].sum(0))}
        low = high + 1 if high else low
    return found

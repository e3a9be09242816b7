"""A job judged by gold values, and beside another one: what the command line and the HTTP API both answer with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.errors import InvalidInput
from jobs.evaluate.cases import Case, cases
from jobs.evaluate.chance import RESAMPLES
from jobs.evaluate.comparing import Comparison, compared
from jobs.evaluate.measures import RANKS, THRESHOLD, measure_for
from jobs.evaluate.report import Report, evaluated

if TYPE_CHECKING:
    from jobs.handle import JobHandle


@dataclass(frozen=True)
class Judgement:
    """How good a job's results are."""

    report: Report
    against: Comparison | None
    """None: there was no other job to compare it with."""
    notes: tuple[str, ...]
    """What whoever reads the figures should know: results without gold, a job that still runs."""

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        other = {} if self.against is None else {"against": self.against.as_json()}
        return {**self.report.as_json(), "notes": list(self.notes), **other}


def judged(
    job: "JobHandle",
    against: "JobHandle | None" = None,
    *,
    field: str = "gold",
    golds: Mapping[str, Any] | None = None,
    threshold: float = THRESHOLD,
    ranks: int = RANKS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Judgement:
    """The results there are, beside gold values: `golds` by `custom_id`, else what was kept as `field`. All of them are
    held in memory. Raises MissingGold, InvalidInput for what cannot be judged or compared, StoreUnavailable.
    """
    task, some, notes = _read(job, field, golds)
    measure = measure_for(task, threshold=threshold, ranks=ranks)
    report, _ = evaluated(task, some, measure, seed=seed, resamples=resamples)
    if against is None:
        return Judgement(report, None, notes)
    other_task, others, more = _read(against, field, golds or {case.custom_id: case.gold for case in some})
    if other_task != task:
        raise InvalidInput(f"the jobs are of two tasks: {task} and {other_task}")
    comparison = compared(some, others, measure, seed=seed, resamples=resamples)
    return Judgement(report, comparison, notes + more)


def _read(job: "JobHandle", field: str, golds: Mapping[str, Any] | None) -> tuple[str, list[Case], tuple[str, ...]]:
    """The job's task, its items with gold, and what should be said about them."""
    found = job.refresh()
    some = cases(job.latest(), field, golds)
    notes = [] if found.state.final else [f"{found.id} is {found.state}; these are the results so far"]
    done = found.counts.ok + found.counts.error
    if len(some) < done:
        notes.append(f"{done - len(some):,} of {done:,} results of {found.id} have no gold value and do not count")
    return found.task, some, tuple(notes)

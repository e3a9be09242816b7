"""What `textmill evaluate` does: a job's results beside gold values, and beside another job's."""

import json
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from jobs.api.access import Caller
from jobs.api.problems import documented
from jobs.api.service import Reader, Serves, Service
from jobs.errors import MissingGold, NotInstalled
from jobs.handle import JobHandle
from jobs.schemas import CustomId, Frozen, Name

MOST_RESAMPLES = 10_000

router = APIRouter(tags=["results"])
Interval = tuple[float, float]


class Judging(BaseModel):
    """How results are judged."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    gold: Name = "gold"
    """The field with the right answer: of what was kept with the items, or of `gold_rows`."""
    gold_rows: dict[CustomId, dict[Name, Any]] | None = None
    """Rows with the right answers by `custom_id`, instead of what was kept. Items without one do not count."""
    against: str | None = None
    """The id of a job over the same items, to be compared with."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Score from which a label counts as given, where items may have several."""
    top: int = Field(default=10, ge=1, le=10_000)
    """Ranks that count, for rerank."""
    resamples: int = Field(default=1000, ge=100, le=MOST_RESAMPLES)
    """Of the bootstrap."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Of the bootstrap: the same one gives the same intervals."""
    partial: bool = False
    """Whether a job that still runs is judged by the results it has; without, it is refused."""


class Figure(Frozen):
    value: float
    interval_95: Interval | None
    """By bootstrap over items; null: there is none for this figure."""


class Difference(Frozen):
    """A figure of the other job less this one's."""

    first: float
    second: float
    difference: float
    interval_95: Interval
    p: float
    """How likely a difference as large is by chance alone."""


class Against(Frozen):
    """The two jobs, item by item: this one is the first."""

    items: int
    """Items that both have."""
    agreement: float
    """Share of items with equal outputs."""
    only_first_right: int
    only_second_right: int
    mcnemar_p: float | None
    """Null: answers are not simply right or wrong."""
    figures: dict[str, Difference]


class Evaluation(Frozen):
    """As `textmill evaluate --json` prints it."""

    task: str
    items: int
    """Items with a gold value."""
    errors: int
    """Those of them that ended as an error, which counts as a wrong answer."""
    figures: dict[str, Figure]
    by_label: dict[str, dict[str, float]]
    by_length: dict[str, dict[str, float]]
    """By tokens of the input."""
    labels: list[str]
    confusion: list[list[int]] | None
    """[gold, found], in the order of `labels`; the last row and column are for none."""
    notes: list[str]
    """What else should be known: results without a gold value, a job that still runs."""
    against: Against | None = None
    """Only where another job was named."""


@router.post(
    "/jobs/{job_id}/evaluate",
    response_model=Evaluation,
    responses=documented(404, 409, 501),
    summary="Judge results by gold values, and compare two jobs",
)
async def evaluate(job_id: str, wanted: Judging, service: Serves, caller: Reader) -> Response:
    """Figures for the job's task with their intervals: accuracy and F1 for labels, ROUGE for summaries, and so on. All
    results of the job are read for it, those of its retries laid over them."""
    named = [job_id] if wanted.against is None else [job_id, wanted.against]
    jobs = [await run_sync(_handle, service, caller, each, wanted) for each in named]
    return await run_sync(_judged, jobs, wanted, limiter=service.readers)


def _handle(service: Service, caller: Caller, job_id: str, wanted: Judging) -> JobHandle:
    return JobHandle(service.store, service.readable(caller, job_id, partial=wanted.partial).id)


def _judged(jobs: list[JobHandle], wanted: Judging) -> Response:
    try:
        from jobs.evaluate import judged
        from jobs.evaluate.cases import golds_in
    except ImportError as error:
        raise NotInstalled(f"the server lacks {error.name}: pip install 'textmill[evaluate]'") from None
    try:
        found = judged(
            *jobs,
            field=wanted.gold,
            golds=golds_in(wanted.gold_rows, wanted.gold) if wanted.gold_rows is not None else None,
            threshold=wanted.threshold,
            ranks=wanted.top,
            resamples=wanted.resamples,
            seed=wanted.seed,
        )
    except MissingGold as error:
        hint = f'submit with "keep": ["{wanted.gold}"], or send gold_rows'
        raise MissingGold(f"{error} ({hint})") from None
    return Response(json.dumps(found.as_json()), media_type="application/json")

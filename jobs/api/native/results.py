"""Results: pages by cursor while the job runs, or all of them as lines."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from jobs.api.native.shapes import MOST_RESULTS
from jobs.api.problems import documented
from jobs.api.service import Reader, Serves, Service
from jobs.schemas import Frozen, Job, Result
from jobs.states import JobState
from jobs.store.encoding import result_line
from jobs.store.values import ResultRow

LINES = "application/x-ndjson"
PAGE = 1000

router = APIRouter(tags=["results"])
Status = Annotated[Literal["ok", "error"] | None, Query(description="Only these.")]


class ResultPage(Frozen):
    data: list[Result]
    """In the order of the items."""
    next: int
    """To be given as `after` for the next page."""
    complete: bool
    """Whether these are the last ones: there will be no more."""
    state: JobState
    """The job's."""


@router.get(
    "/jobs/{job_id}/results",
    response_model=ResultPage,
    responses={200: {"content": {LINES: {"schema": {"type": "string"}}}}, **documented(404)},
    summary="Results by cursor, while the job runs or later",
)
def page(
    job_id: str,
    service: Serves,
    caller: Reader,
    after: Annotated[int, Query(ge=-1, le=2**62, description="`next` of the page before.")] = -1,
    limit: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = PAGE,
    status: Status = None,
    accept: Annotated[str, Header(description=f"`{LINES}`: all results behind `after`, a line each.")] = "",
) -> Response:
    """In the order of the items. While the job runs a page ends where the next item has no result yet, so that whoever
    follows `next` gets every result once."""
    job = service.job(caller, job_id)
    if LINES in accept:
        return StreamingResponse(_lines(service, job, after, status), media_type=LINES)
    rows, last = _page(service, job, after, limit, status)
    complete = job.state.final and len(rows) < limit
    # Put together from stored JSON: results by the million are not parsed to be written again.
    head = b'{"data":[' + b",".join(map(result_line, rows)) + b"]"
    tail = f',"next":{last},"complete":{str(complete).lower()},"state":"{job.state}"}}'
    return Response(head + tail.encode(), media_type="application/json")


def _page(service: Service, job: Job, after: int, limit: int, status: str | None) -> tuple[list[ResultRow], int]:
    """The rows of a page, and the last item that it covers."""
    if job.state.final:
        rows = service.store.results.rows_after(job.id, after=after, limit=limit, status=status)
        return rows, rows[-1].seq if rows else after
    found = service.store.results.rows_after(job.id, after=after, limit=limit)
    whole = [row for _, row in takewhile(lambda pair: pair[0] == pair[1].seq, enumerate(found, after + 1))]
    last = whole[-1].seq if whole else after
    return [row for row in whole if status is None or row.status == status], last


def _lines(service: Service, job: Job, after: int, status: str | None) -> Iterator[bytes]:
    """Those there are by now, a line each, in pieces of a page."""
    while True:
        rows, last = _page(service, job, after, PAGE, status)
        if rows:
            yield b"\n".join(map(result_line, rows)) + b"\n"
        if last == after:
            return
        after = last

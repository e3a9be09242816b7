"""Jobs: submitted, listed, looked at, steered, deleted."""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import StringConstraints

from jobs import connections
from jobs.api.access import Caller
from jobs.api.native.shapes import MOST_JOBS, Estimation, JobPage, Submission, Submitted, Wanted, submitted
from jobs.api.problems import HttpProblem, code_of, documented
from jobs.api.service import Reader, Serves, Service, Submitter
from jobs.api.watching import pulse_of
from jobs.connections import PREFIX
from jobs.corpus import Fields, Source, stored_source
from jobs.errors import UnknownFile
from jobs.schemas import MOST_LABELS, Estimate, Job
from jobs.states import JobState
from jobs.tasks import find

LONGEST_WAIT_S = 60.0
VOLATILE = {"rate", "eta_at", "eta_early_at", "eta_late_at", "late_by_s"}
"""Changes with every look, and is no change of the job."""

router = APIRouter(tags=["jobs"])
IdempotencyKey = Annotated[
    str | None,
    Header(max_length=256, description="The same key and request give the same job, however often they are sent."),
]


Labels = Annotated[
    list[Annotated[str, StringConstraints(pattern=r"^[^:]+:", max_length=1281)]] | None,
    Query(max_length=MOST_LABELS, description="`name:value`; several: all of them."),
]


@router.post("/jobs", status_code=201, responses=documented(409, 413), summary="Submit a job with its items")
def create(
    wanted: Submission,
    service: Serves,
    caller: Submitter,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Submitted:
    """All items are checked first: a wrong one refuses the job (or is left out), and every wrong one is listed."""
    job = submit(service, caller, wanted, _items(service, caller, wanted), idempotency_key)
    response.headers["Location"] = request.app.url_path_for("look", job_id=job.id)
    return job


@router.post("/jobs/estimate", responses=documented(413), summary="What these items would be as a job; nothing is run")
def estimate(wanted: Estimation, service: Serves, caller: Submitter) -> Estimate:
    """Lines that cannot be items are listed and not counted."""
    return service.client.estimate(
        wanted.task,
        _items(service, caller, wanted),
        model=wanted.model,
        params=wanted.params,
        keep=wanted.keep,
        tenant=caller.tenant,
    )


@router.get("/jobs", summary="List jobs, newest first")
def index(
    service: Serves,
    caller: Reader,
    state: Annotated[list[JobState] | None, Query(description="Of these states.")] = None,
    task: Annotated[str | None, Query(max_length=256)] = None,
    model: Annotated[str | None, Query(max_length=256)] = None,
    label: Labels = None,
    limit: Annotated[int, Query(ge=1, le=MOST_JOBS)] = 20,
    before: Annotated[
        str | None, Query(pattern=r"^job_[0-9a-f]{32}$", description="`next` of the page before.")
    ] = None,
) -> JobPage:
    found = service.store.jobs.list(
        states=state,
        tenant=caller.tenant,
        task=task,
        model=model,
        labels=named(label),
        limit=limit + 1,
        before=before,
    )
    return JobPage(data=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


@router.get("/jobs/{job_id}", responses={304: {"description": "Not changed"}, **documented(404)}, response_model=Job)
async def look(
    job_id: str,
    service: Serves,
    caller: Reader,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for a change.")] = 0,
    if_none_match: Annotated[str | None, Header(description="The ETag that is known: waits until it differs.")] = None,
) -> Response:
    """The job. With `wait`: as soon as it differs from the ETag given, or without one, as soon as it has ended."""
    until = asyncio.get_running_loop().time() + wait
    job = await run_sync(service.job, caller, job_id)
    while True:
        tag = etag(job)
        left = until - asyncio.get_running_loop().time()
        new = tag not in _tags(if_none_match) if if_none_match else job.state.final
        if new or left <= 0:
            break
        if job.state.final or not await service.watching.changed(job_id, pulse_of(job), left):
            until = 0.0  # nothing changes any more, or not in time: one last look
        job = await service.watching.job(job_id)
    headers = {"ETag": tag}
    if if_none_match and not new:
        return Response(status_code=304, headers=headers)
    return JSONResponse(job.model_dump(mode="json"), headers=headers)


@router.post("/jobs/{job_id}/cancel", responses=documented(404, 409), summary="Stop a job; its results are kept")
def cancel(job_id: str, service: Serves, caller: Submitter) -> Job:
    return service.client.cancel(service.job(caller, job_id).id)


@router.post("/jobs/{job_id}/pause", responses=documented(404, 409), summary="Let a job rest")
def pause(job_id: str, service: Serves, caller: Submitter) -> Job:
    return service.client.pause(service.job(caller, job_id).id)


@router.post("/jobs/{job_id}/resume", responses=documented(404, 409), summary="Let a paused job go on")
def resume(job_id: str, service: Serves, caller: Submitter) -> Job:
    return service.client.resume(service.job(caller, job_id).id)


@router.post(
    "/jobs/{job_id}/approve", responses=documented(404, 409), summary="Let the rest of a job follow its canary"
)
def approve(job_id: str, service: Serves, caller: Submitter) -> Job:
    return service.client.approve(service.job(caller, job_id).id)


@router.post(
    "/jobs/{job_id}/retry", status_code=201, responses=documented(404, 409), summary="A new job of the failed items"
)
def retry(job_id: str, service: Serves, caller: Submitter) -> Submitted:
    handle = service.client.retry(service.job(caller, job_id).id)
    return submitted(handle.job, handle.loaded)


@router.delete("/jobs/{job_id}", status_code=204, responses=documented(404, 409), summary="Delete a job that has ended")
def delete(job_id: str, service: Serves, caller: Submitter) -> None:
    service.store.jobs.delete(service.job(caller, job_id).id)


def submit(
    service: Service, caller: Caller, wanted: Wanted, items: list[Any] | Source, idempotency_key: str | None
) -> Submitted:
    """Submit in the caller's name. Raises what `Client.submit` raises, HttpProblem."""
    if wanted.priority > 0:
        caller.need("admin")
    handle = service.client.submit(
        wanted.task,
        items,
        model=wanted.model,
        params=wanted.params,
        priority=wanted.priority,
        queue=wanted.queue,
        labels=wanted.labels,
        keep=wanted.keep,
        idempotency_key=idempotency_key,
        deadline_at=wanted.deadline_at,
        on_invalid=wanted.on_invalid,
        webhook=wanted.webhook,
        sink=None if wanted.sink is None else PREFIX + wanted.sink,
        canary=wanted.canary,
        go_on=wanted.go_on,
        max_error_share=wanted.max_error_share,
        errors_after=wanted.errors_after,
        on_errors=wanted.on_errors,
        tenant=caller.tenant,
    )
    return submitted(handle.job, handle.loaded)


def etag(job: Job) -> str:
    """Differs whenever something of the job has changed."""
    content: Mapping[str, Any] = job.model_dump(mode="json", exclude=VOLATILE)
    return f'"{sha256(repr(content).encode()).hexdigest()[:20]}"'


def _items(service: Service, caller: Caller, wanted: Submission | Estimation) -> list[Any] | Source:
    if wanted.source is not None:
        fields = Fields.of(wanted, find(wanted.task).main_field)
        return connections.source(service.settings, wanted.source, caller.tenant, fields)
    return _in_file(service, caller, wanted, wanted.file) if wanted.file is not None else wanted.items or []


def _in_file(service: Service, caller: Caller, wanted: Submission | Estimation, file_id: str) -> Source:
    """The items of an uploaded file. Raises HttpProblem (422) where there is none, UnknownTask, InvalidInput."""
    try:
        file = service.store.files.get(file_id, caller.tenant)
    except UnknownFile as error:
        raise HttpProblem(422, code_of(error), str(error)) from error
    return stored_source(
        lambda: service.storage.open(file.names),
        form=wanted.format or "jsonl",
        shown="the file",
        fields=Fields.of(wanted, find(wanted.task).main_field),
        max_line_bytes=service.settings.max_line_bytes,
    )


def _tags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in header.split(",")]


def named(labels: Sequence[str] | None) -> dict[str, str]:
    """Labels given as `name:value`."""
    return dict(each.split(":", 1) for each in labels or ())

"""Batches: created, looked at, listed, cancelled; their output and error files."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from jobs import tracing
from jobs.api.access import Caller
from jobs.api.openai.endpoints import endpoint
from jobs.api.openai.errors import BadRequest
from jobs.api.openai.lines import error_lines, output_lines
from jobs.api.openai.paging import page
from jobs.api.service import Reader, Serves, Service, Submitter
from jobs.errors import UnknownFile, UnknownJob
from jobs.schemas import Job
from jobs.states import JobState
from jobs.store.batches import BatchRow

WINDOW = re.compile(r"([1-9]\d{0,5})([mhd])")
SECONDS = {"m": 60, "h": 3600, "d": 86_400}
REPEATED_S = 600.0
"""A create that the SDK tries again, because no answer came, is the one before if that is no older."""
OUTPUT_ID = re.compile(r"file-([0-9a-f]{32})-(output|errors)")
_STATUS = {
    JobState.LOADING: "validating",
    JobState.QUEUED: "in_progress",
    JobState.RUNNING: "in_progress",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.EXPIRED: "expired",
    JobState.CANCELLED: "cancelled",
}

router = APIRouter(prefix="/batches")


class ExpiresAfter(BaseModel):
    """How long the output is kept after the batch's end."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class BatchWanted(BaseModel):
    """What a batch is created with. `priority` rides on the SDK's `extra_body`."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: str = Field(min_length=1, max_length=100)
    endpoint: str = Field(min_length=1, max_length=100)
    completion_window: str = Field(max_length=16)
    metadata: (
        dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]] | None
    ) = Field(default=None, max_length=16)
    output_expires_after: ExpiresAfter | None = None
    priority: int = Field(default=0, ge=-100, le=100)


class Output(NamedTuple):
    """A file that is not stored: it is the results of a batch's job."""

    file_id: str
    kind: str
    batch: BatchRow
    job: Job
    service: Service

    def lines(self) -> Iterator[bytes]:
        """Its content, as it is read."""
        if self.kind == "output":
            return output_lines(self.service.store, self.job, endpoint(self.batch.endpoint))
        return error_lines(self.service.store, self.job)


@router.post("")
def create(
    wanted: BatchWanted,
    service: Serves,
    caller: Submitter,
    retried: Annotated[int, Header(alias="x-stainless-retry-count", ge=0)] = 0,
) -> dict[str, Any]:
    if wanted.priority > 0:
        caller.need("admin")
    endpoint(wanted.endpoint)
    window = WINDOW.fullmatch(wanted.completion_window)
    if window is None:
        raise BadRequest("'completion_window' is a number of m, h or d: 24h", "completion_window")
    try:
        service.store.files.get(wanted.input_file_id, caller.tenant)
    except UnknownFile as error:
        raise BadRequest(str(error), "input_file_id") from error
    digest = sha256(orjson.dumps(wanted.model_dump(), option=orjson.OPT_SORT_KEYS)).digest()
    if retried and (before := service.store.batches.repeated(caller.tenant, digest, REPEATED_S)) is not None:
        return _shown(service, before)
    made = service.store.batches.create(
        caller.tenant,
        request_hash=digest,
        endpoint=wanted.endpoint,
        input_file_id=wanted.input_file_id,
        completion_window=wanted.completion_window,
        window_s=int(window[1]) * SECONDS[window[2]],
        metadata=wanted.metadata,
        priority=wanted.priority,
        output_keep_s=None if wanted.output_expires_after is None else wanted.output_expires_after.seconds,
        traceparent=tracing.current(),
    )
    service.batching.tell()
    return _shown(service, made)


@router.get("")
def index(
    service: Serves,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> dict[str, Any]:
    rows = service.store.batches.list(caller.tenant, limit=limit + 1, after=after)
    return page([_shown(service, row) for row in rows[:limit]], more=len(rows) > limit)


@router.get("/{batch_id}")
def retrieve(batch_id: str, service: Serves, caller: Reader) -> dict[str, Any]:
    return _shown(service, service.store.batches.get(batch_id, caller.tenant))


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, service: Serves, caller: Submitter) -> dict[str, Any]:
    batch = service.store.batches.get(batch_id, caller.tenant)
    if batch.job_id is None and not service.store.batches.cancel(batch_id):
        batch = service.store.batches.get(batch_id)
    if batch.job_id is not None:
        service.store.jobs.cancel(batch.job_id)
    return _shown(service, service.store.batches.get(batch_id))


def output_file(service: Service, caller: Caller, file_id: str) -> Output | None:
    """The output or error file of a batch; None for an id of another kind. Raises UnknownBatch, UnknownFile."""
    found = OUTPUT_ID.fullmatch(file_id)
    if found is None:
        return None
    batch = service.store.batches.get(f"batch_{found[1]}", caller.tenant)
    job = _job(service, batch)
    if job is None or file_id not in _files(batch, job).values():
        raise UnknownFile(f"no file {file_id!r}")
    return Output(file_id, found[2], batch, job, service)


def _job(service: Service, batch: BatchRow) -> Job | None:
    try:
        return service.store.jobs.get(batch.job_id) if batch.job_id is not None else None
    except UnknownJob:
        return None if batch.ended_as is None else Job.model_validate(batch.ended_as)


def _files(batch: BatchRow, job: Job | None) -> dict[Literal["output", "errors"], str | None]:
    """The ids of those that there are: of a job that has ended, what is not empty."""
    stem = f"file-{batch.id.removeprefix('batch_')}"
    gone_at = output_expires_at(batch, job)
    ended = job is not None and job.state.final and (gone_at is None or datetime.now(UTC) < gone_at)
    ok = job is not None and ended and job.counts.ok > 0
    wrong = job is not None and ended and job.counts.error + job.counts.pending > 0
    return {"output": f"{stem}-output" if ok else None, "errors": f"{stem}-errors" if wrong else None}


def output_expires_at(batch: BatchRow, job: Job | None) -> datetime | None:
    """When the output is gone; None: not by itself."""
    if job is None or job.finished_at is None or batch.output_keep_s is None:
        return None
    return job.finished_at + timedelta(seconds=batch.output_keep_s)


def _shown(service: Service, batch: BatchRow) -> dict[str, Any]:
    job = _job(service, batch)
    status, files = _status(batch, job), _files(batch, job)
    ended = job.finished_at if job is not None else None
    at: dict[str, datetime | None] = {
        "created_at": batch.created_at,
        "in_progress_at": job.sealed_at if job is not None else None,
        "expires_at": batch.expires_at,
        "finalizing_at": ended if status == "completed" else None,
        "completed_at": ended if status == "completed" else None,
        "failed_at": batch.failed_at or (ended if status == "failed" else None),
        "expired_at": ended if status == "expired" else None,
        "cancelling_at": batch.cancelled_at or (ended if status == "cancelled" else None),
        "cancelled_at": batch.cancelled_at or (ended if status == "cancelled" else None),
    }
    listed = batch.errors
    if listed is None and status == "failed" and job is not None:
        listed = [{"code": "job_failed", "message": job.error or "", "param": None, "line": None}]
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": job.model if job is not None else None,
        "errors": {"object": "list", "data": listed} if listed is not None else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": status,
        "output_file_id": files["output"],
        "error_file_id": files["errors"],
        **{name: None if moment is None else int(moment.timestamp()) for name, moment in at.items()},
        "request_counts": _counts(job),
        "usage": _usage(job),
        "metadata": batch.metadata,
        "job_id": batch.job_id,
    }


def _status(batch: BatchRow, job: Job | None) -> str:
    if batch.failed_at is not None:
        return "failed"
    if batch.cancelled_at is not None:
        return "cancelled"
    if job is None:
        return "validating" if batch.job_id is None else "completed"
    return _STATUS[job.state]


def _counts(job: Job | None) -> Mapping[str, int]:
    if job is None:
        return {"total": 0, "completed": 0, "failed": 0}
    return {"total": job.counts.total, "completed": job.counts.ok, "failed": job.counts.error}


def _usage(job: Job | None) -> Mapping[str, Any]:
    read, written = (job.usage.input_tokens, job.usage.output_tokens) if job is not None else (0, 0)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }

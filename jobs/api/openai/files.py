"""Files: uploaded, listed, read, deleted; and those that a batch's results are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import StreamingResponse

from jobs.api.openai.batches import Output, output_expires_at, output_file
from jobs.api.openai.errors import BadRequest
from jobs.api.openai.paging import page
from jobs.api.service import Reader, Serves, Service, Submitter
from jobs.store.files import LEAST_KEPT_S, MOST_KEPT_S, FileRow, new_file_id

MOST_FILES = 10_000
COPY_BYTES = 2**20

router = APIRouter(prefix="/files")


@router.post("")
def create(
    service: Serves,
    caller: Submitter,
    file: UploadFile,
    purpose: Annotated[str, Form(min_length=1, max_length=64)],
    anchor: Annotated[str | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=LEAST_KEPT_S, le=MOST_KEPT_S)] = None,
) -> dict[str, Any]:
    if (anchor is None) != (seconds is None) or anchor not in (None, "created_at"):
        raise BadRequest("'expires_after' is an anchor, created_at, and seconds", "expires_after")
    if file.size is not None and file.size > service.settings.max_job_bytes:
        most = f"{service.settings.max_job_bytes:,} bytes (setting max_job_bytes)"
        raise BadRequest(f"the file has more than {most}", "file")
    file_id = new_file_id()
    size = service.storage.write(file_id, file.file)
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds) if seconds is not None else None
    row = service.store.files.add(
        file_id, caller.tenant, purpose=purpose, filename=tidy(file.filename), size=size, expires_at=expires_at
    )
    return shown(row)


@router.get("")
def index(
    service: Serves,
    caller: Reader,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_FILES)] = MOST_FILES,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> dict[str, Any]:
    rows = service.store.files.list(
        caller.tenant, purpose=purpose, limit=limit + 1, after=after, newest_first=order == "desc"
    )
    return page([shown(row) for row in rows[:limit]], more=len(rows) > limit)


@router.get("/{file_id}")
def retrieve(file_id: str, service: Serves, caller: Reader) -> dict[str, Any]:
    output = output_file(service, caller, file_id)
    if output is None:
        return shown(service.store.files.get(file_id, caller.tenant))
    return _output(output)


@router.get("/{file_id}/content")
def content(file_id: str, service: Serves, caller: Reader) -> StreamingResponse:
    output = output_file(service, caller, file_id)
    if output is not None:
        return StreamingResponse(output.lines(), media_type="application/jsonl")
    row = service.store.files.get(file_id, caller.tenant)
    headers = {"Content-Length": str(row.bytes)}
    return StreamingResponse(_pieces(service, row), media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}")
def delete(file_id: str, service: Serves, caller: Submitter) -> dict[str, Any]:
    if output_file(service, caller, file_id) is not None:
        raise BadRequest("a batch's own files are its job's results: delete the job (DELETE /api/v1/jobs/...)")
    names = service.store.files.get(file_id, caller.tenant).names
    service.store.files.delete(file_id, caller.tenant)
    service.storage.delete(names)
    return {"id": file_id, "object": "file", "deleted": True}


def tidy(filename: str | None) -> str:
    """A file's name as it is kept."""
    return (filename or "file").replace("\0", "")[:512]


def shown(row: FileRow) -> dict[str, Any]:
    """The file as the SDK reads it."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created_at.timestamp()),
        "expires_at": None if row.expires_at is None else int(row.expires_at.timestamp()),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
    }


def _pieces(service: Service, row: FileRow) -> Iterator[bytes]:
    with service.storage.open(row.names) as stream:
        while piece := stream.read(COPY_BYTES):
            yield piece


def _output(output: Output) -> dict[str, Any]:
    expires_at = output_expires_at(output.batch, output.job)
    return {
        "id": output.file_id,
        "object": "file",
        "bytes": sum(map(len, output.lines())),
        "created_at": int((output.job.finished_at or output.job.created_at).timestamp()),
        "expires_at": None if expires_at is None else int(expires_at.timestamp()),
        "filename": f"{output.batch.id}_{output.kind}.jsonl",
        "purpose": "batch_output",
        "status": "processed",
        "status_details": None,
    }

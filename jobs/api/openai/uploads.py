"""Uploads: files that come in parts, which are told by their ids when all are there."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from jobs.api.openai.errors import BadRequest
from jobs.api.openai.files import COPY_BYTES, shown, tidy
from jobs.api.service import Serves, Service, Submitter
from jobs.errors import UnknownFile, UsageError
from jobs.store.files import LEAST_KEPT_S, MOST_KEPT_S
from jobs.store.uploads import MOST_PARTS, UploadRow, new_part_id

router = APIRouter(prefix="/uploads")


class ExpiresAfter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=LEAST_KEPT_S, le=MOST_KEPT_S)


class UploadWanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=0)
    filename: str = Field(min_length=1, max_length=512)
    mime_type: str = Field(max_length=256)
    purpose: str = Field(min_length=1, max_length=64)
    expires_after: ExpiresAfter | None = None
    """How long the file is kept once it is complete."""


class Complete(BaseModel):
    model_config = ConfigDict(extra="forbid")

    part_ids: list[str] = Field(max_length=MOST_PARTS)
    """In the order of the file."""
    md5: str | None = None
    """Of the whole file, in hex."""


@router.post("")
def create(wanted: UploadWanted, service: Serves, caller: Submitter) -> dict[str, Any]:
    if wanted.bytes > service.settings.max_job_bytes:
        most = f"{service.settings.max_job_bytes:,} bytes (setting max_job_bytes)"
        raise BadRequest(f"the file has more than {most}", "bytes")
    made = service.store.uploads.create(
        caller.tenant,
        purpose=wanted.purpose,
        filename=tidy(wanted.filename),
        size=wanted.bytes,
        live_s=service.settings.upload_timeout_s,
        keep_s=None if wanted.expires_after is None else wanted.expires_after.seconds,
    )
    return _shown(service, made)


@router.post("/{upload_id}/parts")
def add(upload_id: str, data: UploadFile, service: Serves, caller: Submitter) -> dict[str, Any]:
    service.store.uploads.get(upload_id, caller.tenant).check_pending()
    if not data.size:
        raise BadRequest("the part is empty", "data")
    part_id, most = new_part_id(), service.settings.max_job_bytes
    size = service.storage.write(part_id, data.file)
    try:
        part = service.store.uploads.add(upload_id, part_id, size, most=most, live_s=service.settings.upload_timeout_s)
    except UsageError:
        service.storage.delete([part_id])
        raise
    return {
        "id": part.id,
        "object": "upload.part",
        "created_at": int(part.created_at.timestamp()),
        "upload_id": part.upload_id,
    }


@router.post("/{upload_id}/complete")
def complete(
    upload_id: str,
    wanted: Complete,
    service: Serves,
    caller: Submitter,
    retried: Annotated[int, Header(alias="x-stainless-retry-count", ge=0)] = 0,
) -> dict[str, Any]:
    """Parts that are not named are thrown away."""
    upload = service.store.uploads.get(upload_id, caller.tenant)
    if not retried or upload.state != "completed":  # else an answer was lost, and the same parts give it again
        _check(service, upload, wanted)
    return _shown(service, service.store.uploads.complete(upload_id, wanted.part_ids))


@router.post("/{upload_id}/cancel")
def cancel(upload_id: str, service: Serves, caller: Submitter) -> dict[str, Any]:
    upload = service.store.uploads.get(upload_id, caller.tenant)
    return _shown(service, service.store.uploads.cancel(upload.id))


def _check(service: Service, upload: UploadRow, wanted: Complete) -> None:
    """Raises BadRequest unless the parts are the file that was announced, InvalidState when it is too late for it."""
    upload.check_pending()
    sizes = service.store.uploads.parts(upload.id)
    unknown = next((each for each in wanted.part_ids if each not in sizes), None)
    if unknown is not None:
        raise BadRequest(f"upload {upload.id} has no part {unknown[:100]!r}", "part_ids")
    if len({*wanted.part_ids}) < len(wanted.part_ids):
        raise BadRequest("a part is named twice", "part_ids")
    size = sum(sizes[each] for each in wanted.part_ids)
    if size != upload.bytes:
        raise BadRequest(f"the parts have {size:,} bytes together; {upload.bytes:,} were announced", "part_ids")
    if wanted.md5 is not None and (found := _md5(service, wanted.part_ids)) != wanted.md5.lower():
        raise BadRequest(f"the parts have the MD5 {found}, not {wanted.md5[:100]!r}", "md5")


def _md5(service: Service, part_ids: Sequence[str]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with service.storage.open(part_ids) as stream:
        while piece := stream.read(COPY_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _shown(service: Service, upload: UploadRow) -> dict[str, Any]:
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": int(upload.created_at.timestamp()),
        "expires_at": int(upload.expires_at.timestamp()),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.state,
        "file": _file(service, upload),
    }


def _file(service: Service, upload: UploadRow) -> dict[str, Any] | None:
    if upload.file_id is None:
        return None
    try:
        return shown(service.store.files.get(upload.file_id, upload.tenant))
    except UnknownFile:  # deleted meanwhile
        return None

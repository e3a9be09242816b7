"""Resumable uploads: the core of tus 1.0 with creation, expiration and termination. The last byte makes a file."""

from email.utils import format_datetime
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Request, Response
from starlette.requests import ClientDisconnect

from jobs.api.access import Caller
from jobs.api.native.receiving import Receiving, too_long
from jobs.api.native.tus import CONTENT_TYPE, EXTENSIONS, VERSION, read_metadata
from jobs.api.openai.files import tidy
from jobs.api.problems import HttpProblem, documented
from jobs.api.service import Reader, Serves, Service, Submitter
from jobs.store.files import LEAST_KEPT_S, MOST_KEPT_S
from jobs.store.uploads import UploadRow, check_offset

PURPOSE = "batch"
"""Of files that are uploaded here: they may be a batch's input as well."""

router = APIRouter(prefix="/uploads", tags=["uploads"])
_BODY: Any = {"content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}}, "required": True}
_HERE: Any = {"status_code": 204, "response_class": Response}


@router.options("", summary="What of tus is spoken here", **_HERE)
@router.options("/{upload_id}", summary="What of tus is spoken here", include_in_schema=False, **_HERE)
def options(service: Serves) -> Response:
    most = str(service.settings.max_job_bytes)
    return Response(
        status_code=204, headers={"Tus-Version": VERSION, "Tus-Extension": EXTENSIONS, "Tus-Max-Size": most}
    )


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses=documented(412, 413),
    summary="Begin an upload; Location says where its bytes go",
)
def create(
    request: Request,
    service: Serves,
    caller: Submitter,
    upload_length: Annotated[int, Header(ge=0, description="Bytes of the whole file.")],
    upload_metadata: Annotated[
        str | None,
        Header(max_length=4096, description="Keys with Base64 values: `filename`, `expires_after` (s), any others."),
    ] = None,
) -> Response:
    if upload_length > service.settings.max_job_bytes:
        most = f"{service.settings.max_job_bytes:,} bytes (setting max_job_bytes)"
        raise HttpProblem(413, "too_large", f"the file has more than {most}")
    told = read_metadata(upload_metadata)
    upload = service.store.uploads.create(
        caller.tenant,
        purpose=PURPOSE,
        filename=tidy(told.get("filename")),
        size=upload_length,
        live_s=service.settings.upload_timeout_s,
        metadata=upload_metadata,
        keep_s=_keep_s(told.get("expires_after")),
    )
    if upload.bytes == 0:
        upload = service.store.uploads.complete(upload.id, ())
    location = request.app.url_path_for("append", upload_id=upload.id)
    return Response(status_code=201, headers={"Location": location, **_headers(upload)})


@router.head(
    "/{upload_id}", response_class=Response, responses=documented(404, 410, 412), summary="What is there of it"
)
def look(upload_id: str, service: Serves, caller: Reader) -> Response:
    upload = _found(service, caller, upload_id)
    told = {"Upload-Metadata": upload.metadata} if upload.metadata else {}
    headers = {"Upload-Length": str(upload.bytes), "Cache-Control": "no-store", **told, **_headers(upload)}
    return Response(headers=headers)


@router.patch(
    "/{upload_id}",
    responses=documented(404, 409, 410, 412, 413, 415),
    openapi_extra={"requestBody": _BODY},
    summary="Send bytes, from where it stopped",
    **_HERE,
)
async def append(
    upload_id: str,
    request: Request,
    service: Serves,
    caller: Submitter,
    upload_offset: Annotated[int, Header(ge=0, description="Where the first byte belongs: where it goes on.")],
) -> Response:
    """However the request ends, what has arrived is kept."""
    if request.headers.get("content-type", "").lower() != CONTENT_TYPE:
        raise HttpProblem(415, "unsupported_media_type", f"the Content-Type is {CONTENT_TYPE}")
    upload = await run_sync(_found, service, caller, upload_id)
    check_offset(upload, upload_offset)
    if int(request.headers.get("content-length", 0)) > upload.bytes - upload.offset:
        raise too_long(upload)
    receiving = Receiving(service, upload)
    try:
        async for piece in request.stream():
            if piece:
                await run_sync(receiving.take, piece)
    except ClientDisconnect as error:
        raise HttpProblem(400, "incomplete", "the body ended before its end") from error
    finally:
        await run_sync(receiving.keep)
    return Response(status_code=204, headers=_headers(receiving.upload))


@router.delete(
    "/{upload_id}", responses=documented(404, 410, 412), summary="Give it up, with the file it may be", **_HERE
)
def delete(upload_id: str, service: Serves, caller: Submitter) -> Response:
    service.store.uploads.withdraw(_found(service, caller, upload_id).id)
    return Response(status_code=204)


def _found(service: Service, caller: Caller, upload_id: str) -> UploadRow:
    """Raises UnknownUpload, HttpProblem (410) for one that will never be a file."""
    upload = service.store.uploads.get(upload_id, caller.tenant)
    if upload.state in ("cancelled", "expired"):
        raise HttpProblem(410, f"upload_{upload.state}", f"upload {upload.id} is {upload.state}")
    return upload


def _headers(upload: UploadRow) -> dict[str, str]:
    told = {"Upload-Offset": str(upload.offset)}
    if upload.file_id is None:
        return {**told, "Upload-Expires": format_datetime(upload.expires_at, usegmt=True)}
    return {**told, "Textmill-File": upload.file_id}


def _keep_s(told: str | None) -> int | None:
    if told is None:
        return None
    if not told.isascii() or not told.isdigit() or not LEAST_KEPT_S <= int(told[:10]) <= MOST_KEPT_S:
        said = f"expires_after is a number of seconds from {LEAST_KEPT_S} to {MOST_KEPT_S}, not {told[:100]!r}"
        raise HttpProblem(400, "invalid_metadata", f"Upload-Metadata: {said}")
    return int(told)

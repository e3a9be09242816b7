"""Jobs whose items are the request's body: files of any size, a piece at a time, never whole in memory."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, ValidationError
from starlette.requests import ClientDisconnect

from jobs import corpus
from jobs.api.access import Caller
from jobs.api.native.jobs import IdempotencyKey, Labels, named, submit
from jobs.api.native.shapes import Submitted, Wanted
from jobs.api.problems import HttpProblem, documented
from jobs.api.service import Serves, Service, Submitter
from jobs.api.spool import spool
from jobs.intake import OnInvalid
from jobs.schemas import ERRORS_AFTER, MOST_CANARY, OnErrors, QueueName
from jobs.tasks import find

FORMATS = {"application/x-ndjson": "jsonl", "application/jsonl": "jsonl", "text/csv": "csv", "text/plain": "text"}
"""Formats by the request's Content-Type."""
BUFFER_BYTES = 2**20

router = APIRouter(tags=["jobs"])
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY: Any = {"content": dict.fromkeys(FORMATS, _BINARY), "required": True}


@router.post(
    "/jobs/upload",
    status_code=201,
    responses=documented(409, 413, 415),
    openapi_extra={"requestBody": _BODY},
    summary="Submit a job whose items are the body",
)
async def upload(
    request: Request,
    service: Serves,
    caller: Submitter,
    task: Annotated[str, Query(min_length=1, max_length=256)],
    model: Annotated[str | None, Query(min_length=1, max_length=256)] = None,
    params: Annotated[str, Query(description="As a JSON object.")] = "{}",
    queue: QueueName = "default",
    label: Labels = None,
    keep: Annotated[list[str] | None, Query(max_length=64)] = None,
    priority: Annotated[int, Query(ge=-100, le=100)] = 0,
    deadline_at: Annotated[AwareDatetime | None, Query()] = None,
    on_invalid: OnInvalid = "reject",
    webhook: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
    canary: Annotated[int | None, Query(ge=1, le=MOST_CANARY)] = None,
    go_on: bool = False,
    max_error_share: Annotated[float | None, Query(ge=0, lt=1)] = None,
    errors_after: Annotated[int, Query(ge=1, le=2**31 - 1)] = ERRORS_AFTER,
    on_errors: OnErrors = "pause",
    text_field: Annotated[str | None, Query(max_length=256)] = None,
    id_field: Annotated[str | None, Query(max_length=256)] = None,
    idempotency_key: IdempotencyKey = None,
) -> Submitted:
    """JSON Lines, CSV or a text a line, by the Content-Type."""
    form = FORMATS.get(request.headers.get("content-type", "").partition(";")[0].strip().lower())
    if form is None:
        raise HttpProblem(415, "unsupported_media_type", f"the Content-Type is one of: {', '.join(FORMATS)}")
    wanted = _wanted(
        task=task,
        model=model,
        params=_parsed(params),
        queue=queue,
        labels=named(label),
        keep=keep or (),
        priority=priority,
        deadline_at=deadline_at,
        on_invalid=on_invalid,
        webhook=webhook,
        canary=canary,
        go_on=go_on,
        max_error_share=max_error_share,
        errors_after=errors_after,
        on_errors=on_errors,
    )
    with _spooled(service.settings.home) as file:
        size = 0
        try:
            async for piece in request.stream():
                size += len(piece)
                if size > service.settings.max_job_bytes:
                    most = f"{service.settings.max_job_bytes:,} bytes (setting max_job_bytes)"
                    raise HttpProblem(413, "too_large", f"the body has more than {most}")
                await run_sync(file.write, piece)
        except ClientDisconnect as error:
            raise HttpProblem(400, "incomplete", "the body ended before its end") from error
        await run_sync(file.flush)
        fields = (text_field, id_field)
        return await run_sync(_submit, service, caller, wanted, file.name, form, fields, idempotency_key)


def _submit(
    service: Service,
    caller: Caller,
    wanted: Wanted,
    path: str,
    form: str,
    fields: tuple[str | None, str | None],
    key: str | None,
) -> Submitted:
    source = corpus.open_source(
        path,
        text_field=fields[0],
        id_field=fields[1],
        main_field=find(wanted.task).main_field,
        max_line_bytes=service.settings.max_line_bytes,
        form=form,
        shown={path: "the body"},
    )
    return submit(service, caller, wanted, source, key)


def _parsed(params: str) -> dict[str, Any]:
    try:
        given = orjson.loads(params)
    except orjson.JSONDecodeError as error:
        raise HttpProblem(422, "invalid_request", f"params: {error}") from error
    if not isinstance(given, dict):
        raise HttpProblem(422, "invalid_request", "params: a JSON object is wanted")
    return given


def _wanted(**fields: Any) -> Wanted:
    try:
        return Wanted(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise HttpProblem(422, "invalid_request", f"{where}: {first['msg']}") from error


@contextmanager
def _spooled(home: Path) -> Iterator[BinaryIO]:
    """A file that is gone afterwards, beside the database: that disk is the one that is looked after."""
    with tempfile.NamedTemporaryFile(dir=spool(home), prefix="body-", buffering=BUFFER_BYTES) as file:
        yield file  # type: ignore[misc]

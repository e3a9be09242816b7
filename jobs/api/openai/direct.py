"""Answers at once: a request is a job of its own, ahead of all others."""

from typing import Any

import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from jobs.api.access import Caller
from jobs.api.asking import answers
from jobs.api.openai import errors
from jobs.api.openai.endpoints import Call, Endpoint, endpoint
from jobs.api.openai.errors import BadRequest
from jobs.api.openai.lines import STATUS, about_now
from jobs.api.service import Serves, Service, Submitter
from jobs.schemas import DIRECT_LABEL, Job

PRIORITY = 100
LONGEST_S = 600.0

router = APIRouter()


@router.post("/chat/completions")
async def chat(request: Request, service: Serves, caller: Submitter) -> JSONResponse:
    return await _answered(request, service, caller, endpoint("/v1/chat/completions"))


@router.post("/completions")
async def completions(request: Request, service: Serves, caller: Submitter) -> JSONResponse:
    return await _answered(request, service, caller, endpoint("/v1/completions"))


@router.post("/embeddings")
async def embeddings(request: Request, service: Serves, caller: Submitter) -> JSONResponse:
    return await _answered(request, service, caller, endpoint("/v1/embeddings"))


@router.post("/nlp/{task}")
async def nlp(task: str, request: Request, service: Serves, caller: Submitter) -> JSONResponse:
    return await _answered(request, service, caller, endpoint(f"/v1/nlp/{task}"))


async def _answered(request: Request, service: Service, caller: Caller, wanted: Endpoint) -> JSONResponse:
    body = _parsed(await request.body())
    call = wanted.read(body)
    job = await run_sync(_submitted, service, caller, wanted, call)
    results = await answers(service, job.id, len(call.items), LONGEST_S, instead="a batch has no such limit")
    failed = next((result.error for result in results if result.error is not None), None)
    if failed is not None:
        return errors.answer(STATUS.get(failed.code, 400), failed.message, code=failed.code)
    about = about_now(job, base64=body.get("encoding_format") == "base64")
    return JSONResponse(wanted.write(about, results))


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise BadRequest("the body is an object")
    return parsed


def _submitted(service: Service, caller: Caller, wanted: Endpoint, call: Call) -> Job:
    handle = service.client.submit(
        wanted.task,
        call.items,
        model=call.model,
        priority=PRIORITY,
        tenant=caller.tenant,
        labels={DIRECT_LABEL: wanted.path},
    )
    return handle.job

"""Answers at once: a request is a job of its own, ahead of all others."""

import asyncio
from contextlib import suppress
from typing import Any

import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from jobs.api.access import Caller
from jobs.api.openai import errors
from jobs.api.openai.endpoints import Call, Endpoint, endpoint
from jobs.api.openai.errors import BadRequest
from jobs.api.openai.lines import STATUS, about_now
from jobs.api.problems import HttpProblem
from jobs.api.service import Serves, Service, Submitter
from jobs.errors import InvalidState, UnknownJob
from jobs.schemas import Job, Result
from jobs.store.outbox import DIRECT_LABEL
from jobs.store.results import results_of

PRIORITY = 100
LONGEST_S = 600.0
LOOKS_S = (0.01, 0.25)
"""Between two looks for the answer: at first, and most."""

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
    try:
        results = await _results(service, job.id, len(call.items))
    finally:
        await asyncio.shield(run_sync(_put_away, service, job.id))
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


async def _results(service: Service, job_id: str, count: int) -> list[Result]:
    """All of them, as soon as they are there. Raises HttpProblem when the job fails or takes too long."""
    loop = asyncio.get_running_loop()
    until, wait_s = loop.time() + LONGEST_S, LOOKS_S[0]
    while True:
        rows = await run_sync(service.store.results.rows, job_id, 0, count)
        if len(rows) == count:
            return results_of(rows)
        job = await run_sync(service.store.jobs.get, job_id)
        if job.state.final and job.state != "completed":
            raise HttpProblem(500, "job_failed", job.error or f"the job is {job.state}")
        if loop.time() > until:
            raise HttpProblem(504, "timeout", f"no answer within {LONGEST_S:g} s; a batch has no such limit")
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 1.5, LOOKS_S[1])


def _put_away(service: Service, job_id: str) -> None:
    """The job is of no use to anybody any more; one that is not done is given up."""
    with suppress(InvalidState, UnknownJob):
        if not service.store.jobs.finish(job_id):
            service.store.jobs.cancel(job_id)
    with suppress(InvalidState, UnknownJob):
        service.store.jobs.delete(job_id)

"""Errors over HTTP: problem+json (RFC 9457), one shape for all of them."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from jobs.api.openai import errors as openai
from jobs.api.openai.errors import BadRequest
from jobs.errors import (
    IdempotencyConflict,
    InvalidItems,
    InvalidState,
    NotInstalled,
    QueueUnavailable,
    QuotaExceeded,
    SchemaOutdated,
    StoreUnavailable,
    TextmillError,
    UnknownBatch,
    UnknownFile,
    UnknownJob,
    UnknownKey,
    UnknownModel,
    UnknownSchedule,
    UnknownUpload,
    UnknownWebhook,
    UnknownWorker,
    UsageError,
    WrongOffset,
)

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:textmill:problem:"
OPENAI = "/v1/"
SHOWN = 5
"""Mistakes that are told where the answer has room for one message."""
AGAIN_S = {503: 2, 429: 30}
"""When a client should ask again: after the database did not answer, and when its tenant has too much in line."""
_STATUS: Mapping[type[TextmillError], int] = {
    UnknownJob: 404,
    UnknownKey: 404,
    UnknownFile: 404,
    UnknownBatch: 404,
    UnknownWebhook: 404,
    UnknownSchedule: 404,
    UnknownWorker: 404,
    UnknownUpload: 404,
    InvalidState: 409,
    WrongOffset: 409,
    IdempotencyConflict: 409,
    QuotaExceeded: 429,
    NotInstalled: 501,
    UsageError: 422,
    StoreUnavailable: 503,
    QueueUnavailable: 503,
    SchemaOutdated: 503,
}
log = logging.getLogger("textmill.api")


class Mistake(BaseModel):
    """One thing that is wrong: a field of the request, or a line of the items."""

    where: str
    """The field (`params.top_k`), or the line (`line 7`)."""
    code: str
    message: str


class ProblemBody(BaseModel):
    """What every error is, as `application/problem+json`."""

    type: str
    """`urn:textmill:problem:` and the code."""
    title: str
    status: int
    detail: str
    code: str
    errors: list[Mistake] = Field(default_factory=list)
    """All that is wrong, the first 1,000 where the items are."""
    total: int | None = None
    """How many lines are wrong."""


class HttpProblem(Exception):
    """An error of the HTTP layer itself."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.code, self.detail, self.headers = status, code, detail, headers
        super().__init__(detail)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These error responses, for OpenAPI."""
    schema = {"$ref": "#/components/schemas/ProblemBody"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document with the problem's own schema in it, which no route names as its model."""
    _, made = models_json_schema([(ProblemBody, "serialization")], ref_template="#/components/schemas/{model}")
    schema["components"]["schemas"] |= made["$defs"]
    return schema


def answer(problem: HttpProblem, *, errors: list[Mistake] | None = None, total: int | None = None) -> JSONResponse:
    """The response that says so."""
    body = ProblemBody(
        type=TYPE + problem.code,
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        code=problem.code,
        errors=errors or [],
        total=total,
    )
    content = body.model_dump(exclude_none=True, exclude=None if errors else {"errors"})
    return JSONResponse(content, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of this application in this shape."""

    @app.exception_handler(HttpProblem)
    async def _own(request: Request, error: HttpProblem) -> JSONResponse:
        return rendered(request.url.path, error)

    @app.exception_handler(BadRequest)
    async def _bad(request: Request, error: BadRequest) -> JSONResponse:
        return openai.answer(400, error.message, param=error.param, code=error.code)

    @app.exception_handler(TextmillError)
    async def _known(request: Request, error: TextmillError) -> JSONResponse:
        return of_error(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def _malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [_mistake(each) for each in error.errors()]
        detail = "; ".join(f"{each.where}: {each.message}" for each in errors[:SHOWN])
        return rendered(request.url.path, HttpProblem(422, "invalid_request", detail), errors=errors)

    @app.exception_handler(HTTPException)
    async def _routed(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        said = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not for {request.url.path}"}
        detail = said.get(error.status_code, str(error.detail))
        headers = error.headers
        if error.status_code == 405:
            headers = {"Allow": _allowed(request, headers or {})}
        return rendered(request.url.path, HttpProblem(error.status_code, code, detail, headers))

    @app.exception_handler(Exception)
    async def _unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return rendered(request.url.path, HttpProblem(500, "internal_error", "the server failed; its log says why"))


def _allowed(request: Request, told: Mapping[str, str]) -> str:
    """Every method of this path, as the document has them; Starlette names those of the first route alone."""
    paths = request.app.openapi()["paths"]
    methods = {
        method.upper()
        for template, item in paths.items()
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), request.url.path)
        for method in item
    }
    return ", ".join(sorted(methods)) or told.get("Allow", "")


def rendered(
    path: str, problem: HttpProblem, *, errors: list[Mistake] | None = None, total: int | None = None
) -> JSONResponse:
    """The response in the shape of the API that was asked: OpenAI's under `/v1`, else a problem."""
    if not path.startswith(OPENAI):
        return answer(problem, errors=errors, total=total)
    status = 400 if problem.status == 422 else problem.status
    said = "; ".join(f"{each.where}: {each.message}" for each in errors[:SHOWN]) if errors else problem.detail
    where = errors[0].where if errors else None
    return openai.answer(status, said, param=where, code=problem.code, headers=problem.headers)


def of_error(path: str, error: TextmillError) -> JSONResponse:
    """One of our own errors, as its status."""
    status = next((number for kind, number in _STATUS.items() if isinstance(error, kind)), 500)
    headers = {"Retry-After": str(AGAIN_S[status])} if status in AGAIN_S else None
    problem = HttpProblem(status, code_of(error), str(error), headers)
    if not isinstance(error, InvalidItems):
        if path.startswith(OPENAI) and isinstance(error, UnknownModel):
            problem = HttpProblem(404, "model_not_found", str(error))
        return rendered(path, problem)
    problem.detail = f"{error.total} line(s) cannot be items; nothing of the job is run"
    errors = [Mistake(where=f"line {each.line}", code=each.code, message=each.message) for each in error.problems]
    return rendered(path, problem, errors=errors, total=error.total)


def code_of(error: TextmillError) -> str:
    """`UnknownJob` is `unknown_job`."""
    name = type(error).__name__
    return "".join(f"_{char.lower()}" if char.isupper() and at else char.lower() for at, char in enumerate(name))


def _mistake(detail: Any) -> Mistake:
    where = ".".join(str(part) for part in detail["loc"] if part != "body") or "body"
    return Mistake(where=where, code=str(detail["type"]), message=str(detail["msg"]))

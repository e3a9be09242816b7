"""The dashboard's routes and its way of telling errors, added to the application of the API."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from jobs.api.access import SAFE
from jobs.web import (
    browser,
    bulk,
    downloads,
    evaluation,
    health,
    job,
    joblist,
    keys,
    login,
    machines,
    models,
    nearest,
    new,
    overview,
    schedules,
)
from jobs.web.live import Live
from jobs.web.pages import rendered

STATIC = Path(__file__).parent / "static"
NOT_PAGES = ("/api/", "/v1/", "/live/", "/metrics", "/health/", "/static/")

ROUTES = (
    *(login, overview, new, bulk, joblist, downloads, browser, nearest, evaluation, job),
    *(schedules, machines, models, keys, health),
)
"""In this order: `/jobs/new` is no job."""

Handler = Callable[[Request, Any], Awaitable[Response] | Response]


def install(app: FastAPI) -> None:
    """Add the pages to the application of the API."""
    router = APIRouter(include_in_schema=False)
    for each in ROUTES:
        router.include_router(each.router)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.state.live = Live()
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = _for_people(handler)


def _for_people(handler: Handler) -> Handler:
    """The same answer, as a page where a page was asked for."""

    async def answered(request: Request, error: Exception) -> Response:
        answer = handler(request, error)
        found = answer if isinstance(answer, Response) else await answer
        if request.url.path.startswith(NOT_PAGES):
            return found
        if found.status_code == 401 and request.method in SAFE:
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?next={quote(asked, safe='')}", 303)
        said = json.loads(bytes(found.body))
        return rendered("error.html", request, None, status=found.status_code, problem=said)

    return answered

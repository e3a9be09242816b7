"""The results of an embed job that are nearest to a text, or to one of its items."""

from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import Response

from jobs.api.native import search
from jobs.api.native.search import Query
from jobs.api.problems import HttpProblem
from jobs.errors import TextmillError
from jobs.tasks import find
from jobs.web.job import found
from jobs.web.pages import Looks, rendered

TOP = 20
LONGEST = 10_000

router = APIRouter()


@router.get("/jobs/{job_id}/nearest")
async def nearest(job_id: str, look: Looks, q: str = "", like: str = "") -> Response:
    """A form, and what was asked for with it."""
    job = await run_sync(found, look)
    given: dict[str, Any] = {
        "job": job,
        "q": q,
        "like": like,
        "hits": None,
        "error": None,
        "main": find(job.task).main_field,
    }
    if not (q.strip() or like):
        return rendered("nearest.html", look.request, look, **given)
    query = (
        Query(like=like[:512], top_k=TOP, partial=True) if like else Query(text=q[:LONGEST], top_k=TOP, partial=True)
    )
    try:
        answer = await search.search(job.id, query, look.service, look.caller)
    except HttpProblem as problem:
        return rendered("nearest.html", look.request, look, status=problem.status, **{**given, "error": problem.detail})
    except TextmillError as error:
        return rendered("nearest.html", look.request, look, status=422, **{**given, "error": str(error)})
    return rendered("nearest.html", look.request, look, **{**given, "hits": answer.data, "vectors": answer.vectors})

"""Figures of a job's results by gold values, and beside another job's."""

import json
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import ValidationError

from jobs.api.native.evaluate import Judging, evaluate
from jobs.errors import TextmillError
from jobs.web.job import found
from jobs.web.pages import Looks, rendered

router = APIRouter()


@router.get("/jobs/{job_id}/evaluation")
async def evaluation(job_id: str, look: Looks, gold: str = "", against: str = "") -> Response:
    """A form; with the kept field that holds the right answers, the figures."""
    job = await run_sync(found, look)
    given: dict[str, Any] = {"job": job, "gold": gold, "against": against, "found": None, "error": None}
    if not gold:
        return rendered("evaluation.html", look.request, look, **given)
    try:
        wanted = Judging(gold=gold, against=against or None, partial=True)
        answer = await evaluate(job.id, wanted, look.service, look.caller)
    except (TextmillError, ValidationError) as error:
        said = str(error) if isinstance(error, TextmillError) else error.errors()[0]["msg"]
        return rendered("evaluation.html", look.request, look, status=422, **{**given, "error": said})
    return rendered("evaluation.html", look.request, look, **{**given, "found": json.loads(bytes(answer.body))})

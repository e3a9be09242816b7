"""The results of a job beside its items, a page at a time; the nearest of a text among vectors; figures by gold."""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter

from jobs.web import results
from jobs.web.job import found
from jobs.web.pages import Look, page

AT_ONCE = 20
ONLY: tuple[Literal["ok", "error"], ...] = ("ok", "error")

router = APIRouter()


@page(router, "/jobs/{job_id}/results", "results.html")
def browse(look: Look) -> Mapping[str, Any]:
    job = found(look)
    only = next((each for each in ONLY if each == look.asked("only")), None)
    after = look.number("from", 0) - 1
    rows, last = look.service.store.insight.results_page(job.id, after=after, limit=AT_ONCE, only=only)
    return {
        "job": job,
        "only": only,
        "rows": [(row.result, results.render(job.task, row.item, row.result)) for row in rows],
        "first": after >= 0,
        "next": _url(job.id, only, last + 1) if last is not None else None,
        "choices": [(each, _url(job.id, each, None)) for each in (None, *ONLY)],
    }


def _url(job_id: str, only: str | None, start: int | None) -> str:
    query = {"only": only, "from": start}
    left = {name: value for name, value in query.items() if value is not None}
    return f"/jobs/{job_id}/results" + (f"?{urlencode(left)}" if left else "")

"""The results of a job beside its items, a page at a time."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter
from markupsafe import Markup

from jobs.errors import ItemErrorCode
from jobs.schemas import Job
from jobs.store.insight import Item
from jobs.web import results
from jobs.web.job import found
from jobs.web.pages import Look, page

AT_ONCE = 20
KINDS = ("ok", "error")

router = APIRouter()


@page(router, "/jobs/{job_id}/results", "results.html")
def browse(look: Look) -> Mapping[str, Any]:
    """All, those that are ok or failed, or those that failed with one code."""
    job = found(look)
    only = look.asked("only") or None
    only = only if only in (*KINDS, *ItemErrorCode) else None
    start = look.number("from", 0)
    shown = look.service.store.insight.results_page(job.id, after_seq=start - 1, limit=AT_ONCE, only=only)
    return {
        "job": job,
        "only": only,
        "rows": [(each, _drawn(job, each)) for each in shown.items],
        "first": _url(job.id, only, None) if start else None,
        "next": _url(job.id, only, shown.next_seq + 1) if shown.next_seq is not None else None,
        "choices": [(each, _url(job.id, each, None)) for each in dict.fromkeys((None, *KINDS, only))],
    }


def _drawn(job: Job, each: Item) -> Markup | None:
    """None: it is too long to be shown."""
    if each.result is None or each.line is None:
        return None
    return results.render(job.task, orjson.loads(each.line), each.result, job.params)


def _url(job_id: str, only: str | None, start: int | None) -> str:
    query = {"only": only, "from": start}
    left = {name: value for name, value in query.items() if value is not None}
    return f"/jobs/{job_id}/results" + (f"?{urlencode(left)}" if left else "")

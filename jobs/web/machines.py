"""Workers and queues: who works on what, and how busy."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from jobs.api.problems import HttpProblem
from jobs.upkeep import LIVE_S
from jobs.web.pages import Look, Looks, moved, page

ENDED_S = 86_400.0
"""Workers that ended as they should not have are shown for so long."""

router = APIRouter()


@page(router, "/workers", "workers.html", parts=("workers", "queues"), need="admin")
def machines(look: Look) -> Mapping[str, Any]:
    """Of all tenants, so for admins."""
    store = look.service.store
    return {
        "workers": store.workers.live(LIVE_S),
        "ended": store.workers.ended(ENDED_S),
        "queues": store.overview.queues(alive_s=LIVE_S),
    }


@router.post("/workers/{worker_id}/{step}")
def steer(worker_id: str, step: str, look: Looks) -> Response:
    """Quiet: it claims nothing more and finishes what it holds; wake: it goes on."""
    look.caller.need("admin")
    if step not in ("quiet", "wake"):
        raise HttpProblem(404, "not_found", f"there is no {step[:50]!r} for a worker")
    look.service.store.workers.quiet(worker_id, on=step == "quiet")
    return moved("/workers")

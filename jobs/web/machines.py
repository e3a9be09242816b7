"""Workers and queues: who works on what, and how busy."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from jobs.upkeep import LIVE_S
from jobs.web.pages import Look, page

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

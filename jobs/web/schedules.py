"""Schedules: when each is due, what became of its runs, and a hand on them."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from jobs.api.problems import HttpProblem
from jobs.api.service import Service
from jobs.schedules import making
from jobs.schedules.times import explained, upcoming
from jobs.web.pages import Look, Looks, moved, page

FIRINGS = 5
BARS = 30
"""Runs that are drawn as bars."""
RUNS = 50

router = APIRouter()

STEPS: dict[str, Callable[[Service, str], Any]] = {
    "pause": lambda service, schedule_id: service.store.schedules.pause(schedule_id),
    "resume": lambda service, schedule_id: making.resume(service.store, schedule_id),
    "run": lambda service, schedule_id: service.store.schedules.run_now(schedule_id),
    "delete": lambda service, schedule_id: service.store.schedules.delete(schedule_id),
}


@page(router, "/schedules", "schedules.html", parts=("schedules",), every_s=5.0)
def schedules(look: Look) -> Mapping[str, Any]:
    store = look.service.store.schedules
    found = store.list(look.caller.tenant)
    return {
        "schedules": [(each, explained(each.spec), store.runs(each.id, limit=BARS)) for each in found],
    }


@page(router, "/schedules/{schedule_id}", "schedule.html", parts=("head", "runs"), every_s=5.0)
def show(look: Look) -> Mapping[str, Any]:
    store = look.service.store.schedules
    found = store.get(look.request.path_params["schedule_id"], look.caller.tenant)
    return {
        "schedule": found,
        "explained": explained(found.spec),
        "firings": upcoming(found, FIRINGS),
        "runs": store.runs(found.id, limit=RUNS),
    }


@router.post("/schedules/{schedule_id}/{step}")
def steer(schedule_id: str, step: str, look: Looks) -> Response:
    look.caller.need("admin")
    if step not in STEPS:
        raise HttpProblem(404, "not_found", f"there is no {step[:50]!r} for a schedule")
    found = look.service.store.schedules.get(schedule_id, look.caller.tenant)
    STEPS[step](look.service, found.id)
    return moved("/schedules" if step == "delete" else f"/schedules/{found.id}")

"""The first page: what runs, what waits, what failed."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from jobs.states import JobState
from jobs.store.finding import JobFilter
from jobs.upkeep import LIVE_S
from jobs.web.charts import HOURS
from jobs.web.pages import Look, page

ACTIVE = 10
FAILURES = 8

router = APIRouter()


@page(router, "/", "overview.html", parts=("figures", "throughput", "active", "machines", "failures"))
def overview(look: Look) -> Mapping[str, Any]:
    store, tenant = look.service.store, look.caller.tenant
    span = look.asked("span", "1h")
    span = span if span in HOURS else "1h"
    active, more = store.overview.search(tenant, JobFilter(states=(JobState.RUNNING, JobState.QUEUED)), limit=ACTIVE)
    return {
        "now": store.overview.now(tenant),
        "span": span,
        "spans": tuple(HOURS),
        "buckets": store.overview.throughput(tenant, HOURS[span]),
        "jobs": active,
        "more": more is not None,
        "workers": store.workers.live(LIVE_S) if look.rules else (),
        "failed": store.overview.failures(tenant, limit=FAILURES),
    }

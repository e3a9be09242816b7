"""The native API, under `/api/v1`."""

from fastapi import APIRouter

from jobs.api.native import (
    catalog,
    evaluate,
    events,
    jobs,
    keys,
    results,
    resumable,
    schedules,
    search,
    uploads,
    webhooks,
)
from jobs.api.problems import documented

PREFIX = "/api/v1"

router = APIRouter(prefix=PREFIX, responses=documented(400, 401, 403, 422, 429, 503))
for each in (jobs, uploads, resumable, results, evaluate, search, events, catalog, keys, webhooks, schedules):
    router.include_router(each.router)

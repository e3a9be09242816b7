"""The list of jobs: by state, filtered, sorted, a page at a time."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter

from jobs.store.finding import Sort
from jobs.web import filters
from jobs.web.pages import Look, page

AT_ONCE = 25
COLUMNS: dict[Sort, str] = {
    "created_at": "created",
    "finished_at": "finished",
    "n_items": "items",
    "priority": "priority",
    "task": "task",
    "model": "model",
    "state": "state",
}
"""What the list can be sorted by, and how the column is called."""
NEWEST = "-created_at"

router = APIRouter()


class Where:
    """The address of the list, and of its neighbours."""

    def __init__(self, q: str, sort: str) -> None:
        by = next((each for each in COLUMNS if each == sort.removeprefix("-")), None)
        self.q = q
        self.by: Sort = by or "created_at"
        self.descending = sort.startswith("-") or by is None
        self.sort = ("-" if self.descending else "") + self.by

    def url(self, **changed: str | None) -> str:
        """The list with this changed; its first page, unless `after` is given."""
        query = {"q": self.q, "sort": self.sort if self.sort != NEWEST else None, **changed}
        left = {name: value for name, value in query.items() if value}
        return f"/jobs?{urlencode(left)}" if left else "/jobs"

    def sorted_by(self, name: str) -> str:
        """The list sorted by a column: the other way round where it is already."""
        down = not self.descending if name == self.by else name in ("created_at", "finished_at", "n_items", "priority")
        return self.url(sort=("-" if down else "") + name)

    def of_state(self, state: str | None) -> str:
        return self.url(q=filters.with_state(self.q, state))


@page(router, "/jobs", "jobs.html", parts=("sidebar", "rows"), every_s=3.0)
def jobs(look: Look) -> Mapping[str, Any]:
    where = Where(look.asked("q"), look.asked("sort"))
    asked = filters.parse(where.q)
    overview, tenant = look.service.store.overview, look.caller.tenant
    found, following = overview.search(
        tenant,
        asked.filter,
        sort=where.by,
        descending=where.descending,
        after=look.asked("after") or None,
        limit=AT_ONCE,
    )
    counts = overview.state_counts(tenant, asked.filter)
    return {
        "where": where,
        "newest": NEWEST,
        "wrong": asked.wrong,
        "filter": asked.filter,
        "jobs": found,
        "counts": counts,
        "next": where.url(after=following) if following else None,
        "first": where.url() if look.asked("after") else None,
        "columns": COLUMNS,
        "tasks": overview.tasks_in_use(tenant),
        "models": overview.models_in_use(tenant),
    }

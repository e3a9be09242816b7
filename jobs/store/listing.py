"""Jobs found by what they are: which are meant, how many, in which order, a page at a time."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, false, func, literal, or_, select, tuple_

from jobs.errors import InvalidInput, UnknownJob
from jobs.schemas import Job
from jobs.states import FINAL, Control, JobState
from jobs.store import ids, progress
from jobs.store.dialect import Database
from jobs.store.retention import NOT_GONE
from jobs.store.tables import Utc, jobs

SORTS = ("created_at", "finished_at", "n_items", "priority", "task", "model", "state")
"""What jobs can be sorted by."""
PAUSED = "paused"
NAMES = 100
"""Most tasks and models that are suggested."""
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for the end of a job that has not ended, so that every job has its place in the order."""

PAUSED_JOB = and_(
    jobs.c.control == Control.PAUSE, jobs.c.state.in_([str(each) for each in JobState if each not in FINAL])
)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are meant; what is not given does not matter."""

    states: Sequence[JobState] = ()
    """One of these; with `paused`: or paused."""
    paused: bool = False
    task: str | None = None
    model: str | None = None
    queue: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """None: any value will do."""
    created_after: datetime | None = None
    created_before: datetime | None = None
    text: str | None = None
    """What the id begins with."""


ALL = JobFilter()


class Listing:
    """The jobs of a tenant, or with None of all."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def state_counts(self, tenant: str | None, wanted: JobFilter = ALL) -> dict[str, int]:
        """How many jobs of the filter are in each state, whatever states it names; `paused` counts as one."""
        counted = matching(tenant, wanted, select(jobs.c.state, PAUSED_JOB, func.count()), states=False)
        counted = counted.group_by(jobs.c.state, PAUSED_JOB)
        found: dict[str, int] = {}
        for state, paused, count in self._db.read(lambda connection: connection.execute(counted).all()):
            name = PAUSED if paused else state
            found[name] = found.get(name, 0) + count
        return found

    def search(
        self,
        tenant: str | None,
        wanted: JobFilter = ALL,
        *,
        sort: str = "created_at",
        descending: bool = True,
        after: str | None = None,
        limit: int = 25,
    ) -> tuple[list[Job], str | None]:
        """A page of jobs, and where the next one goes on (`after`). None: this was the last one.

        Raises InvalidInput for an order or a place that is none.
        """
        if sort not in SORTS:
            raise InvalidInput(f"jobs are not sorted by {sort!r}; they are by: {', '.join(SORTS)}")
        key = _key(sort)
        # `created_at` is the order of the ids, which are made of it.
        order = [jobs.c.id] if sort == "created_at" else [key, jobs.c.id]
        rows = matching(tenant, wanted, select(jobs)).order_by(*(each.desc() if descending else each for each in order))
        if after is not None:
            place = _place(sort, after)[2 - len(order) :]
            here, there = (
                tuple_(*order),
                tuple_(*(literal(value, of.type) for value, of in zip(place, order, strict=True))),
            )
            rows = rows.where(here < there if descending else here > there)

        def work(connection: Connection) -> tuple[list[Job], str | None]:
            found = connection.execute(rows.limit(limit + 1)).all()
            page = found[:limit]
            following = _cursor(sort, page[-1]) if len(found) > limit else None
            return progress.read(connection, page), following

        return self._db.read(work)

    def matching(self, tenant: str | None, wanted: JobFilter, limit: int) -> list[str]:
        """The ids of the newest jobs of the filter."""
        rows = matching(tenant, wanted, select(jobs.c.id)).order_by(jobs.c.id.desc()).limit(limit)
        return [ids.public(each) for each in self._db.read(lambda connection: connection.scalars(rows).all())]

    def tasks_in_use(self, tenant: str | None) -> list[str]:
        """Of the tenant's jobs."""
        return self._names(tenant, "task")

    def models_in_use(self, tenant: str | None) -> list[str]:
        """Of the tenant's jobs."""
        return self._names(tenant, "model")

    def _names(self, tenant: str | None, column: str) -> list[str]:
        """The values of a column, each looked for behind the one before: there are few among many jobs."""

        def work(connection: Connection) -> list[str]:
            found: list[str] = []
            named = jobs.c[column]
            while len(found) < NAMES:
                following = of_tenant(tenant, select(func.min(named)))
                last = connection.execute(following.where(named > found[-1]) if found else following).scalar_one()
                if last is None:
                    break
                found.append(last)
            return found

        return self._db.read(work)


def of_tenant(tenant: str | None, rows: Select[Any], column: ColumnElement[str] = jobs.c.tenant) -> Select[Any]:
    """These rows, if they are the tenant's. None: whosever they are."""
    return rows if tenant is None else rows.where(column == tenant)


def matching(tenant: str | None, wanted: JobFilter, rows: Select[Any], *, states: bool = True) -> Select[Any]:
    """Those of these rows of `jobs` that the filter means; without `states`, whatever state it names."""
    rows = of_tenant(tenant, rows).where(NOT_GONE)
    if states and (wanted.states or wanted.paused):
        named = and_(jobs.c.state.in_([str(each) for each in wanted.states]), ~PAUSED_JOB)
        rows = rows.where(or_(named, PAUSED_JOB) if wanted.paused else named)
    for column, value in ((jobs.c.task, wanted.task), (jobs.c.model, wanted.model), (jobs.c.queue, wanted.queue)):
        rows = rows if value is None else rows.where(column == value)
    for name, label in wanted.labels.items():
        found = jobs.c.labels[name].as_string()
        rows = rows.where(found.is_not(None) if label is None else found == label)
    if wanted.created_after is not None:
        rows = rows.where(jobs.c.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        rows = rows.where(jobs.c.created_at < wanted.created_before)
    if wanted.text is not None:
        try:
            rows = rows.where(jobs.c.id.between(*ids.span(wanted.text)))
        except UnknownJob:  # nothing has such an id
            rows = rows.where(false())
    return rows


def _key(sort: str) -> ColumnElement[Any]:
    return func.coalesce(jobs.c.finished_at, literal(NEVER, Utc())) if sort == "finished_at" else jobs.c[sort]


def _cursor(sort: str, row: Row[Any]) -> str:
    value = getattr(row, sort)
    if isinstance(value, datetime):
        value = value.isoformat()
    return base64.urlsafe_b64encode(json.dumps([value, row.id.hex]).encode()).decode().rstrip("=")


def _place(sort: str, cursor: str) -> tuple[Any, UUID]:
    """The value and the id of the last job of the page before. Raises InvalidInput."""
    try:
        value, last = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if sort in ("created_at", "finished_at"):
            value = NEVER if value is None else datetime.fromisoformat(value)
        elif sort in ("n_items", "priority"):
            value = int(value)
        else:
            value = str(value)
        return value, UUID(last)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"after is {cursor[:100]!r}, which no page before has given") from error

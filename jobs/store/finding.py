"""Which jobs are meant: a filter as conditions in SQL, and pages of those that it lets through, in any order."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, get_args
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Connection, Select, String, and_, false, func, literal, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from jobs.errors import InvalidParams, UnknownJob
from jobs.states import Control, JobState
from jobs.store import ids
from jobs.store.retention import NOT_GONE
from jobs.store.tables import Utc, jobs

Sort = Literal["created_at", "finished_at", "n_items", "priority", "task", "model", "state"]
SORTS: tuple[Sort, ...] = get_args(Sort)
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
"""Stands for the end of a job that goes on."""
_KEYS: dict[str, ColumnElement[Any]] = {
    "finished_at": func.coalesce(jobs.c.finished_at, literal(_LAST, Utc())),
    **{name: jobs.c[name] for name in ("n_items", "priority", "task", "model", "state")},
}
"""What is sorted by, before the id; by `created_at`: the id alone, which carries that time."""


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Jobs for which all of this is true; what is left out is true of all."""

    states: Sequence[str] | None = None
    paused: bool | None = None
    """Its owner, or a budget, holds it; it has not ended."""
    task: str | None = None
    model: str | None = None
    queue: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """Labels that it has, with their value; None: any."""
    created_after: datetime | None = None
    """This moment included."""
    created_before: datetime | None = None
    """This moment excluded."""
    text: str = ""
    """How its id begins, with or without `job_`."""


PAUSED: ColumnElement[bool] = (jobs.c.control == Control.PAUSE) & jobs.c.finished_at.is_(None)


def conditions(tenant: str | None, wanted: JobFilter) -> list[ColumnElement[bool]]:
    """What a row of `jobs` must fulfil. `tenant` None: of any."""
    found = [NOT_GONE]
    if wanted.states is not None:
        found.append(jobs.c.state.in_([_state(state) for state in wanted.states]))
    if wanted.paused is not None:
        found.append(PAUSED if wanted.paused else ~PAUSED)
    equal = {"tenant": tenant, "task": wanted.task, "model": wanted.model, "queue": wanted.queue}
    found += [jobs.c[name] == value for name, value in equal.items() if value is not None]
    for name, label in wanted.labels.items():
        value = _label(jobs.c.labels, literal(name, String()))
        found.append(value.is_not(None) if label is None else value == label)
    if wanted.created_after is not None:
        found.append(jobs.c.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        found.append(jobs.c.created_at < wanted.created_before)
    if wanted.text:
        found.append(_begins(wanted.text))
    return found


def page(
    connection: Connection,
    where: Sequence[ColumnElement[bool]],
    *,
    sort: str = "created_at",
    descending: bool = True,
    after: str | None = None,
    limit: int,
) -> tuple[list[UUID], str | None]:
    """The next ids behind the cursor, and the cursor to go on from; None: there are no more.

    Raises InvalidParams for a cursor that is none of this order.
    """
    if sort not in SORTS:
        raise InvalidParams(f"jobs cannot be sorted by {sort!r}; allowed: {', '.join(SORTS)}")
    key = _KEYS.get(sort)
    columns = [jobs.c.id] if key is None else [key, jobs.c.id]
    wanted: Select[Any] = select(*columns).where(*where)
    if after is not None:
        wanted = wanted.where(_behind(columns, _read(after, sort, descending), descending))
    ordered = wanted.order_by(*(each.desc() if descending else each for each in columns))
    found = connection.execute(ordered.limit(limit + 1)).all()
    more = len(found) > limit
    return [row[-1] for row in found[:limit]], _cursor(found[limit - 1], sort, descending) if more else None


class _label(FunctionElement[str]):  # noqa: N801
    """`_label(labels, name)` is the label of that name, null if there is none.

    Not SQLAlchemy's index: SQLite's JSON paths find no name with a quotation mark in it.
    """

    type = String()
    inherit_cache = True


@compiles(_label, "postgresql")
def _label_postgresql(element: _label, compiler: Any, **kw: Any) -> str:
    labels, name = (compiler.process(each, **kw) for each in element.clauses)
    return f"({labels} ->> {name})"


@compiles(_label, "sqlite")
def _label_sqlite(element: _label, compiler: Any, **kw: Any) -> str:
    labels, name = (compiler.process(each, **kw) for each in element.clauses)
    return f"(SELECT value FROM json_each({labels}) WHERE key = {name})"


def _state(name: str) -> str:
    if name not in set(JobState):
        raise InvalidParams(f"no state {name!r}; allowed: {', '.join(JobState)}")
    return str(name)


def _begins(text: str) -> ColumnElement[bool]:
    try:
        return jobs.c.id.between(*ids.span(text))
    except UnknownJob:
        return false()


def _behind(columns: Sequence[ColumnElement[Any]], last: Sequence[Any], descending: bool) -> ColumnElement[bool]:
    """Behind this row. Spelled without row values, which keep SQLite from its indexes."""
    further = [column < value if descending else column > value for column, value in zip(columns, last, strict=True)]
    return further[0] if len(columns) == 1 else or_(further[0], and_(columns[0] == last[0], further[1]))


def _cursor(row: Any, sort: str, descending: bool) -> str:
    shown = [value.hex if isinstance(value, UUID) else value for value in row]
    return base64.urlsafe_b64encode(orjson.dumps([sort, descending, *shown])).decode().rstrip("=")


def _read(cursor: str, sort: str, descending: bool) -> list[Any]:
    try:
        given = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        of, way, *key, job_id = given
        if [of, way] != [sort, descending] or len(key) != (sort in _KEYS):
            raise ValueError("of another order")
        if sort == "finished_at":
            key = [datetime.fromisoformat(key[0]).astimezone(UTC)]
        elif key and type(key[0]) is not (int if sort in ("n_items", "priority") else str):
            raise ValueError("of another type")
        elif key and isinstance(key[0], int) and abs(key[0]) >= 2**63:
            raise ValueError("of no number that a database holds")
        return [*key, UUID(hex=job_id)]
    except (ValueError, TypeError, AttributeError, OverflowError, binascii.Error) as error:
        raise InvalidParams(
            f"{cursor[:100]!r} is no cursor of jobs sorted by {sort}; give the one that came with the page before"
        ) from error

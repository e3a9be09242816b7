"""What was done in each half hour, summarised once it is over: a week of chunks is too many to add up for each look."""

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, select

from jobs.store.clock import now, whole_seconds
from jobs.store.dialect import Database
from jobs.store.tables import chunks, jobs, throughput

STEP_S = 1800
SETTLED_S = 600.0
"""A half hour that ended so long ago has all its chunks: no transaction takes as long to commit."""
KEPT = 8 * 48
"""Half hours that are kept: somewhat more than anybody asks for."""
AT_ONCE = 48
"""Half hours that one transaction summarises."""
_SUMS = (
    func.sum(chunks.c.n_ok + chunks.c.n_error).label("items"),
    func.sum(chunks.c.n_error).label("errors"),
    func.sum(chunks.c.tokens_in + chunks.c.tokens_out).label("tokens"),
)


def read(connection: Connection, tenant: str | None, first: int, width: int) -> dict[tuple[int, str], list[int]]:
    """Items, errors and tokens since the `first` multiple of `width` seconds, by the number of the multiple and task.

    From the summary as far as it reaches, from the chunks behind: the answer needs nobody to keep a summary.
    """
    found, begin = defaultdict[tuple[int, str], list[int]](lambda: [0, 0, 0]), first * width
    reached = (_last(connection) + 1) * STEP_S
    rows = list[Any]()
    if width % STEP_S == 0 and reached > begin:
        rows += connection.execute(_summarised(tenant, begin // STEP_S, width // STEP_S))
        begin = reached
    mine = [] if tenant is None else [chunks.c.tenant == tenant]
    rows += connection.execute(_ended(width, (jobs.c.task,), chunks.c.finished_at >= moment(begin), *mine))
    for number, task, *sums in rows:
        found[number, task] = [have + int(more) for have, more in zip(found[number, task], sums, strict=True)]
    return dict(sorted(found.items()))


def summarise(database: Database) -> int:
    """How many half hours were summarised, the oldest first; those that are too old are forgotten. Safe to repeat, and
    for several leaders at once."""

    def work(connection: Connection) -> int:
        settled = connection.execute(select(now())).scalar_one().timestamp() - SETTLED_S
        end = int(settled) // STEP_S
        first = max(_last(connection) + 1, end - KEPT)
        end = min(end, first + AT_ONCE)
        if first >= end:
            return 0
        span = chunks.c.finished_at >= moment(first * STEP_S), chunks.c.finished_at < moment(end * STEP_S)
        by_tenant = _ended(STEP_S, (chunks.c.tenant, jobs.c.task), *span)
        names = ("half_hour", "tenant", "task", "items", "errors", "tokens")
        rows = [dict(zip(names, row, strict=True)) for row in connection.execute(by_tenant)]
        rows.append({**dict.fromkeys(names, 0), "half_hour": end - 1, "tenant": "", "task": ""})
        connection.execute(database.insert(throughput).on_conflict_do_nothing(), rows)
        connection.execute(delete(throughput).where(throughput.c.half_hour < end - KEPT))
        return end - first

    return database.write(work)


def moment(seconds: int) -> datetime:
    """So many seconds after 1970 began."""
    return datetime.fromtimestamp(seconds, UTC)


def _last(connection: Connection) -> int:
    """The last half hour that is summarised: each transaction leaves a row of its last one, of no tenant."""
    return int(connection.execute(select(func.max(throughput.c.half_hour))).scalar_one() or 0)


def _summarised(tenant: str | None, first: int, steps: int) -> Select[Any]:
    number = (throughput.c.half_hour // steps).label("number")
    sums = (func.sum(throughput.c[name]) for name in ("items", "errors", "tokens"))
    wanted = select(number, throughput.c.task, *sums).where(throughput.c.half_hour >= first, throughput.c["items"] > 0)
    if tenant is not None:
        wanted = wanted.where(throughput.c.tenant == tenant)
    return wanted.group_by(number, throughput.c.task)


def _ended(width: int, by: tuple[ColumnElement[Any], ...], *where: ColumnElement[bool]) -> Select[Any]:
    """Of chunks that ended then, by the number of the multiple of `width` and these columns."""
    number = (whole_seconds(chunks.c.finished_at) // width).label("number")
    wanted = select(number, *by, *_SUMS).join(jobs, jobs.c.id == chunks.c.job_id)
    done = chunks.c.n_ok + chunks.c.n_error > 0
    return wanted.where(done, *where).group_by(number, *by)

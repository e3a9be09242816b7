"""Fair share without a hot row: the turns of a job's chunks are fixed when it is sealed or resumed.

A turn is virtual time: work that goes through the queue, in cost, as one job of weight 1 sees it. The pending chunk
with the smallest turn is next, so jobs whose turns overlap advance side by side, each at its weight.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Connection, Row, TextClause, bindparam, text

from jobs.store import tenants
from jobs.store.tables import jobs

LIVE_LIMIT = 1000
"""Live jobs of a tenant are counted up to here."""

_QUEUE = text(
    """
    SELECT
        coalesce(
            (SELECT turn FROM chunks WHERE state = 'pending' AND queue = :queue AND priority = :priority
                AND not_before IS NULL AND crashes = 0 ORDER BY queue, priority DESC, turn, id LIMIT 1),
            (SELECT max(turn) FROM chunks WHERE state = 'running' AND queue = :queue AND priority = :priority),
            0) AS present,
        (SELECT turn FROM jobs
            WHERE state IN ('queued', 'running') AND state = 'queued' AND control = 'run'
                AND queue = :queue AND tenant = :tenant AND priority = :priority AND id <> :id
            ORDER BY turn DESC LIMIT 1) AS line,
        EXISTS (SELECT 1 FROM jobs WHERE state IN ('queued', 'running') AND queue = :queue AND tenant < :tenant)
        OR EXISTS (SELECT 1 FROM jobs WHERE state IN ('queued', 'running') AND queue = :queue AND tenant > :tenant)
            AS neighbours
    """
).bindparams(bindparam("id", type_=jobs.c.id.type))
_LIVE = text(
    """
    SELECT count(*) FROM (
        SELECT 1 FROM jobs
        WHERE state IN ('queued', 'running') AND queue = :queue AND tenant = :tenant AND id <> :id LIMIT :most) AS live
    """
).bindparams(bindparam("id", type_=jobs.c.id.type))
_HELD = "job_id = :id AND state = 'held'"
_COSTS = """
    SELECT sum(cost) AS total, (SELECT cost FROM chunks WHERE {held} ORDER BY seq_lo LIMIT 1) AS first
    FROM chunks WHERE {held}
"""
_RELEASE = """
    UPDATE chunks SET state = 'pending', turn = :start + ordered.earlier / :share
    FROM (SELECT id, sum(cost) OVER (ORDER BY seq_lo, id) - cost AS earlier FROM chunks WHERE {held}) AS ordered
    WHERE chunks.id = ordered.id AND chunks.state = 'held'
"""


class Statements(NamedTuple):
    """What is asked of the held chunks that are to be released."""

    costs: TextClause
    release: TextClause


def _statements(held: str, *more: BindParameter[Any]) -> Statements:
    given = (bindparam("id", type_=jobs.c.id.type), *more)
    return Statements(*(text(each.format(held=held)).bindparams(*given) for each in (_COSTS, _RELEASE)))


_ALL = _statements(_HELD)
_SOME = _statements(f"{_HELD} AND seq_lo IN :only", bindparam("only", expanding=True))


class Place(NamedTuple):
    """Where a job stands in its queue."""

    start: float
    """The turn of its first chunk."""
    share: float
    """Its weight in force: turns advance by cost / share."""
    line: float
    """The turn behind which its tenant's next job begins while this one has not started."""


def release(connection: Connection, job: Row[Any], only: Sequence[int] | None = None) -> float:
    """Held chunks become pending, their turns from the present on; gives the job's place in its tenant's line.

    `only`: those chunks alone that begin at these items.
    """
    asked = _ALL if only is None else _SOME
    chosen = {} if only is None else {"only": list(only)}
    total, first = (float(cost or 0) for cost in connection.execute(asked.costs, {"id": job.id, **chosen}).one())
    place = _place(connection, job._asdict(), total, first)
    connection.execute(asked.release, {"id": job.id, "start": place.start, "share": place.share, **chosen})
    return place.line


def enter(connection: Connection, job: Mapping[str, Any], costs: Sequence[int]) -> tuple[float, list[float]]:
    """The place in its tenant's line of a job that is about to be inserted (by its columns), and the turns of its
    chunks of these costs: what `release` would give them, without having to read and change them."""
    place = _place(connection, job, float(sum(costs)), float(costs[0]))
    earlier = accumulate(costs[:-1], initial=0)
    return place.line, [place.start + each / place.share for each in earlier]


def _place(connection: Connection, job: Mapping[str, Any], total: float, first: float) -> Place:
    """Of a job whose chunks cost so much together, and the first of them so much.

    A tenant's unstarted jobs begin one behind another, or a flood of small ones would all be first.

    A job of many chunks begins so much earlier that its last turn falls where its only turn would, had it one chunk:
    it shares the time until then with the jobs before it, and ends no later than behind them.
    """
    where = {name: job[name] for name in ("id", "queue", "tenant", "priority")}
    queue = connection.execute(_QUEUE, where).one()
    weight, present = float(job["weight"]), float(queue.present)
    share = weight * _part(connection, where) if queue.neighbours else weight
    position = max(present, present if queue.line is None else queue.line)
    start = max(present, position - (total - first) / share)
    return Place(start, share, position + max(first, 1.0) / weight)


def _part(connection: Connection, where: dict[str, Any]) -> float:
    """What one of a tenant's live jobs gets beside other tenants' jobs: its part of the tenant's weight."""
    others = connection.execute(_LIVE, {**where, "most": LIVE_LIMIT}).scalar_one()
    return tenants.weight(connection, where["tenant"]) / (1 + int(others))

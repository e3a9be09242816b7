"""How long work takes, by what past jobs of the same task and model took, and how sure that is."""

import math
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from jobs.schemas import TimeEstimate
from jobs.states import ChunkState, JobState
from jobs.store.tables import chunks, jobs

NINE_IN_TEN = 1.645
"""Nine in ten of a normal distribution lie within so many standard deviations."""
LONGEST_S = 10 * 365 * 86_400.0
NEWEST, LOOKED_AT = 20, 2000
"""Past jobs that count, of so many that ended last: others may be of another time, and looking costs."""
SPREAD = 0.3
"""How far apart the rates of two jobs are (standard deviation of the logarithm), as long as nothing better is known."""
SHORTEST_S = 0.001


class Pace(NamedTuple):
    """Work that was done, and the time it took."""

    cost: int
    """Estimated tokens."""
    seconds: float
    pieces: int
    """Chunks, or items, that ended one after the other: the more, the surer."""


class Past(NamedTuple):
    """What past jobs tell."""

    pace: Pace
    jobs: int
    spread: float
    """Standard deviation of the logarithm of the next job's rate."""


def past(connection: Connection, task: str, model: str) -> Past | None:
    """The rate of the task on the model. None: no job tells it; those that were paused on their way do not."""
    ended = select(jobs.c.id).where(jobs.c.state == JobState.COMPLETED).order_by(jobs.c.id.desc()).limit(LOOKED_AT)
    whole = (chunks.c.job_id == jobs.c.id, chunks.c.state == ChunkState.DONE)
    cost, count = (select(each).where(*whole).scalar_subquery() for each in (func.sum(chunks.c.cost), func.count()))
    wanted = (
        select(jobs.c.started_at, jobs.c.finished_at, cost, count)
        .where(jobs.c.id.in_(ended), jobs.c.task == task, jobs.c.model == model)
        .where(jobs.c.went_on_at.is_(None), jobs.c.started_at.is_not(None))
        .order_by(jobs.c.id.desc())
        .limit(NEWEST)
    )
    found = [
        Pace(int(row[2]), max((row.finished_at - row.started_at).total_seconds(), SHORTEST_S), row[3])
        for row in connection.execute(wanted)
        if row[2]
    ]
    return _together(found) if found else None


def estimate(pace: Pace, cost: int, pieces: int, *, spread: float = SPREAD, jobs: int = 0) -> TimeEstimate:
    """How long work of this cost takes, at the pace of other work.

    The logarithm of the time is taken for normal: jobs differ by `spread`, and pieces end as in a Poisson process.
    `jobs`: how many past ones the pace is that of; none: it is a canary's.
    """
    seconds = min(cost * pace.seconds / max(pace.cost, 1), LONGEST_S)
    doubt = math.sqrt(spread**2 + 1 / max(pace.pieces, 1) + 1 / max(pieces, 1))
    factor = math.exp(NINE_IN_TEN * doubt)
    return TimeEstimate(
        seconds=round(seconds, 3),
        early_s=round(seconds / factor, 3),
        late_s=round(min(seconds * factor, LONGEST_S), 3),
        known_from="past jobs" if jobs else "canary",
        jobs=jobs,
    )


def _together(paces: list[Pace]) -> Past:
    """Long jobs count for more: short ones are mostly start and end."""
    cost, seconds, pieces = (sum(column) for column in zip(*paces, strict=True))
    typical, weights = math.log(cost / seconds), [pace.seconds / seconds for pace in paces]
    off = [math.log(pace.cost / pace.seconds) - typical for pace in paces]
    apart = sum(weight * each**2 for each, weight in zip(off, weights, strict=True))
    alike = 1 / sum(weight**2 for weight in weights)
    """As many equally long jobs would be known as well."""
    variance = (SPREAD**2 + alike * apart) / alike
    return Past(Pace(int(cost), seconds, int(pieces)), len(paces), math.sqrt(variance * (1 + 1 / alike)))

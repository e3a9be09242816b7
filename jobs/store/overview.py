"""What goes on in a deployment, or of one tenant in it, for those who watch it: each answer is bounded in time."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, exists, func, or_, select, text

from jobs.errors import InvalidParams
from jobs.schemas import Job
from jobs.states import FINAL, Control, JobState
from jobs.store import failing, finding, ids, progress, throughput
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.finding import SORTS, JobFilter, Sort
from jobs.store.retention import NOT_GONE
from jobs.store.tables import WAITING, chunks, jobs, workers
from jobs.store.workers import alive

__all__ = ["SORTS", "WIDTH_S", "Bucket", "FailureGroup", "JobFilter", "Now", "Overview", "QueueRow"]

DAY_S = 86_400.0
WIDTH_S = {1: 60, 24: 1800, 168: 10_800}
"""How many seconds a bucket of the throughput is, by the hours asked for."""
ALIVE_S = 30.0
"""A worker that has reported within this time counts as live."""
FAILED_CHUNKS, FAILED_JOBS = 1000, 1000
"""The newest chunks with errors, and the newest failed jobs, that are looked at for the kinds of failures."""
SUGGESTING, SUGGESTED, VALUES = 5000, 100, 20
"""The newest jobs, which suggestions come from; suggestions, and values suggested for one label."""
JOB_FAILED = "job_failed"
"""Stands for the code where a job has failed as a whole."""
_PENDING = text("chunks.state = 'pending'")
_RUNNING = text("chunks.state = 'running'")
_FAILED = text("chunks.n_error > 0 AND chunks.finished_at IS NOT NULL")
_ITEMS = chunks.c.n_ok + chunks.c.n_error
_TOKENS = chunks.c.tokens_in + chunks.c.tokens_out
_SPAN = chunks.c.seq_hi - chunks.c.seq_lo


class Now(NamedTuple):
    """How it stands, each job counted once."""

    running: int
    waiting: int
    """Queued, and not paused."""
    paused: int
    loading: int
    completed: int
    """Ended so in the last 24 hours, as the next three."""
    failed: int
    cancelled: int
    expired: int
    failed_items: int
    """Of the chunks that ended in the last 24 hours."""
    items_per_s: float
    """Over the last minute, of the chunks that ended in it."""
    tokens_per_s: float
    oldest_wait_s: float
    """How long the job that has waited longest, of those with chunks that wait for a worker, has been ready."""
    pending_items: int
    """Of the chunks that wait for a worker."""


class Bucket(NamedTuple):
    """What ended in some time, of one task."""

    start_at: datetime
    task: str
    items: int
    """With a result, ok or error."""
    errors: int
    tokens: int
    """Read and written."""


class FailureGroup(NamedTuple):
    """Failures of one kind: items by their error's code, or whole jobs (`job_failed`) by their error."""

    code: str
    message: str
    """Of one of them."""
    n_items: int
    """0 where whole jobs failed."""
    n_jobs: int
    last_job: str
    last_at: datetime
    estimated: bool
    """There were too many to look at each: the newest were, and the numbers of items are scaled up to all."""


class QueueRow(NamedTuple):
    """A queue that has work or a worker."""

    queue: str
    ready: int
    """Chunks that could be claimed now."""
    running: int
    """Chunks in workers' hands."""
    items: int
    """Of the chunks that wait, also of those that may not be claimed for a moment after an error."""
    tokens: int
    """Estimated, of the same chunks."""
    oldest_s: float
    """How long the job that has waited longest has been ready."""
    workers: int
    """Live ones that serve it, whoever's work they do."""


class Overview:
    """All jobs, or with a `tenant` those of one."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def now(self, tenant: str | None = None) -> Now:
        """How it stands."""

        def work(connection: Connection) -> Now:
            moment = _moment(connection)
            live = _live(connection, tenant)
            ended = _ended(connection, tenant, moment - timedelta(seconds=DAY_S))
            items, tokens = _pace(connection, tenant, moment - timedelta(seconds=progress.RECENT_S))
            pending = select(func.sum(_SPAN)).where(_PENDING, *_of_chunks(tenant))
            return Now(
                running=live["running"],
                waiting=live["queued"],
                paused=live["paused"],
                loading=live["loading"],
                completed=ended["completed"],
                failed=ended["failed"],
                cancelled=ended["cancelled"],
                expired=ended["expired"],
                failed_items=_failed_items(connection, tenant, moment - timedelta(seconds=DAY_S))[1],
                items_per_s=round(items / progress.RECENT_S, 3),
                tokens_per_s=round(tokens / progress.RECENT_S, 3),
                oldest_wait_s=_oldest_s(connection, moment, tenant),
                pending_items=int(connection.execute(pending).scalar_one() or 0),
            )

        return self._db.read(work)

    def throughput(self, tenant: str | None = None, hours: int = 24) -> list[Bucket]:
        """What was done in the last 1, 24 or 168 hours, in buckets of `WIDTH_S` seconds that begin at whole multiples
        of it, the last one not yet over; in order, and none where nothing ended.

        A chunk counts whole when it ends: the items of one that saves as it goes all fall into its last bucket. Raises
        InvalidParams for other hours.
        """
        if hours not in WIDTH_S:
            raise InvalidParams(f"no throughput of {hours} hours; allowed: {', '.join(map(str, WIDTH_S))}")
        width = WIDTH_S[hours]

        def work(connection: Connection) -> list[Bucket]:
            first = int(_moment(connection).timestamp()) // width - hours * 3600 // width + 1
            done = throughput.read(connection, tenant, first, width)
            return [Bucket(throughput.moment(number * width), task, *sums) for (number, task), sums in done.items()]

        return self._db.read(work)

    def summarise(self) -> int:
        """How many half hours of throughput were summarised now, so that it is read more quickly."""
        return throughput.summarise(self._db)

    def failures(self, tenant: str | None = None, hours: float = 24, limit: int = 20) -> list[FailureGroup]:
        """What failed in the last hours, the most frequent first."""

        def work(connection: Connection) -> list[FailureGroup]:
            since = _moment(connection) - timedelta(hours=hours)
            found = [*_failed_by_code(connection, tenant, since), *_failed_jobs(connection, tenant, since)]
            return sorted(found, key=lambda group: (-max(group.n_items, group.n_jobs), group.code))[:limit]

        return self._db.read(work)

    def state_counts(self, tenant: str | None = None, wanted: JobFilter | None = None) -> dict[str, int]:
        """How many jobs the filter finds in each state, those that are paused as `paused`, whatever states it asks for
        itself."""
        anywhere = replace(wanted or JobFilter(), states=None, paused=None)
        counted = select(jobs.c.state, jobs.c.control, func.count()).where(*finding.conditions(tenant, anywhere))

        def work(connection: Connection) -> dict[str, int]:
            counts = Counter[str](dict.fromkeys((*map(str, JobState), "paused"), 0))
            for state, control, count in connection.execute(counted.group_by(jobs.c.state, jobs.c.control)):
                counts["paused" if control == Control.PAUSE and state not in FINAL else state] += count
            return dict(counts)

        return self._db.read(work)

    def search(
        self,
        tenant: str | None = None,
        wanted: JobFilter | None = None,
        *,
        sort: Sort = "created_at",
        descending: bool = True,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[list[Job], str | None]:
        """The next jobs in this order behind the cursor `after`, and the cursor of the page behind them, if any.

        Jobs that go on are taken to finish last. Raises InvalidParams for a cursor of another order.
        """
        where = finding.conditions(tenant, wanted or JobFilter())

        def work(connection: Connection) -> tuple[list[Job], str | None]:
            found, more = finding.page(connection, where, sort=sort, descending=descending, after=after, limit=limit)
            there = connection.execute(select(jobs).where(jobs.c.id.in_(found), NOT_GONE)).all()
            rows = {row.id: row for row in there}
            return progress.read(connection, [rows[each] for each in found if each in rows]), more

        return self._db.read(work)

    def matching(self, tenant: str | None = None, wanted: JobFilter | None = None, limit: int = 1000) -> list[str]:
        """The ids of the jobs that the filter finds, newest first."""
        where = finding.conditions(tenant, wanted or JobFilter())
        found, _ = self._db.read(lambda connection: finding.page(connection, where, limit=limit))
        return [ids.public(each) for each in found]

    def count(self, tenant: str | None = None, wanted: JobFilter | None = None) -> int:
        """How many jobs the filter finds."""
        counted = select(func.count()).select_from(jobs).where(*finding.conditions(tenant, wanted or JobFilter()))
        return int(self._db.read(lambda connection: connection.execute(counted).scalar_one()))

    def models_in_use(self, tenant: str | None = None) -> list[str]:
        """The models that the newest jobs name, by name."""
        return self._in_use(jobs.c.model, tenant)

    def tasks_in_use(self, tenant: str | None = None) -> list[str]:
        """The tasks of the newest jobs, by name."""
        return self._in_use(jobs.c.task, tenant)

    def labels_in_use(self, tenant: str | None = None) -> dict[str, list[str]]:
        """The labels of the newest jobs by name, each with its newest values."""
        values = defaultdict[str, dict[str, None]](dict)
        newest = _newest(jobs.c.labels, tenant)
        for labels in self._db.read(lambda connection: connection.scalars(newest).all()):
            for name, value in labels.items():
                if (name in values or len(values) < SUGGESTED) and len(values[name]) < VALUES:
                    values[name][value] = None
        return {name: list(values[name]) for name in sorted(values)}

    def queues(self, tenant: str | None = None, alive_s: float = ALIVE_S) -> list[QueueRow]:
        """The queues that have work or a live worker, by name."""

        def work(connection: Connection) -> list[QueueRow]:
            moment = _moment(connection)
            waiting = {row[0]: row[1:] for row in connection.execute(_waiting(tenant))}
            held = select(chunks.c.queue, func.count()).where(_RUNNING, *_of_chunks(tenant)).group_by(chunks.c.queue)
            serving = select(workers.c.queues).where(*alive(alive_s))
            running: dict[str, int] = {row[0]: row[1] for row in connection.execute(held)}
            live = Counter(name for names in connection.scalars(serving) for name in names)
            rows = []
            for queue in sorted({*waiting, *running, *live}):
                ready, items, tokens = map(int, waiting.get(queue, (0, 0, 0)))
                oldest_s = _oldest_s(connection, moment, tenant, queue) if queue in waiting else 0.0
                rows.append(QueueRow(queue, ready, running.get(queue, 0), items, tokens, oldest_s, live.get(queue, 0)))
            return rows

        return self._db.read(work)

    def _in_use(self, column: ColumnElement[str], tenant: str | None) -> list[str]:
        newest = _newest(column, tenant).subquery()
        wanted = select(newest.c[0]).distinct().order_by(newest.c[0]).limit(SUGGESTED)
        return self._db.read(lambda connection: list(connection.scalars(wanted)))


def _moment(connection: Connection) -> datetime:
    moment: datetime = connection.execute(select(now())).scalar_one()
    return moment


def _of_jobs(tenant: str | None) -> list[ColumnElement[bool]]:
    return [NOT_GONE] if tenant is None else [NOT_GONE, jobs.c.tenant == tenant]


def _of_chunks(tenant: str | None) -> list[ColumnElement[bool]]:
    return [] if tenant is None else [chunks.c.tenant == tenant]


def _live(connection: Connection, tenant: str | None) -> Counter[str]:
    """By state those that are not paused, and `paused`."""
    live = jobs.c.state.in_(sorted(set(JobState) - FINAL))
    wanted = select(jobs.c.state, jobs.c.control, func.count()).where(live, *_of_jobs(tenant))
    counts = Counter[str]()
    for state, control, count in connection.execute(wanted.group_by(jobs.c.state, jobs.c.control)):
        counts["paused" if control == Control.PAUSE else state] += count
    return counts


def _ended(connection: Connection, tenant: str | None, since: datetime) -> dict[str, int]:
    # Not grouped: SQLite would go through all jobs, by their state.
    counts = (func.count().filter(jobs.c.state == state).label(state) for state in sorted(FINAL))
    wanted = select(*counts).where(jobs.c.finished_at > since, *_of_jobs(tenant))
    return dict(connection.execute(wanted).one()._mapping)


def _pace(connection: Connection, tenant: str | None, since: datetime) -> tuple[int, int]:
    """Items and tokens of what ended since then."""
    wanted = select(func.sum(_ITEMS), func.sum(_TOKENS)).where(chunks.c.finished_at > since, *_of_chunks(tenant))
    items, tokens = connection.execute(wanted).one()
    return int(items or 0), int(tokens or 0)


def _failed_items(connection: Connection, tenant: str | None, since: datetime) -> tuple[int, int]:
    """How many chunks ended with errors since then, and how many items of theirs failed."""
    counted = select(func.count(), func.sum(chunks.c.n_error))
    n_chunks, n_items = connection.execute(counted.where(*_with_errors(tenant, since))).one()
    return int(n_chunks), int(n_items or 0)


def _with_errors(tenant: str | None, since: datetime) -> list[Any]:
    return [_FAILED, chunks.c.finished_at > since, *_of_chunks(tenant)]


def _oldest_s(connection: Connection, moment: datetime, tenant: str | None, queue: str | None = None) -> float:
    """How long the first in line of the jobs with chunks that wait for a worker has been ready."""
    waits = exists().where(chunks.c.job_id == jobs.c.id, _PENDING)
    wanted = select(jobs.c.sealed_at).where(WAITING, *_of_jobs(tenant), waits)
    if queue is not None:
        wanted = wanted.where(jobs.c.queue == queue)
    first = connection.execute(wanted.order_by(jobs.c.sealed_at).limit(1)).scalar_one_or_none()
    return 0.0 if first is None else max(0.0, (moment - first).total_seconds())


def _waiting(tenant: str | None) -> Select[Any]:
    ready = func.count().filter(or_(chunks.c.not_before.is_(None), chunks.c.not_before <= now()))
    wanted = select(chunks.c.queue, ready, func.sum(_SPAN), func.sum(chunks.c.cost))
    return wanted.where(_PENDING, *_of_chunks(tenant)).group_by(chunks.c.queue)


def _newest(column: ColumnElement[Any], tenant: str | None) -> Select[Any]:
    return select(column).where(*_of_jobs(tenant)).order_by(jobs.c.id.desc()).limit(SUGGESTING)


def _failed_by_code(connection: Connection, tenant: str | None, since: datetime) -> list[FailureGroup]:
    """Of the items of the newest chunks with errors, as many as may be looked at."""
    n_chunks, n_items = _failed_items(connection, tenant, since)
    if not n_chunks:
        return []
    newest = select(*failing.COLUMNS).where(*_with_errors(tenant, since)).order_by(chunks.c.finished_at.desc())
    looked_at = failing.within_reach(connection.execute(newest.limit(FAILED_CHUNKS)).all())
    found = failing.codes(connection, looked_at)
    by_code, scale = defaultdict[str, list[failing.Found]](list), failing.scale(found, n_items)
    for each in found:
        by_code[each.code].append(each)
    return [_group(code, mine, scale) for code, mine in by_code.items()]


def _group(code: str, found: Sequence[failing.Found], scale: float) -> FailureGroup:
    last = max(found, key=lambda each: (each.chunk.finished_at, each.chunk.id))
    return FailureGroup(
        code=code,
        message=last.message,
        n_items=round(sum(each.n_items for each in found) * scale),
        n_jobs=len({each.chunk.job_id for each in found}),
        last_job=ids.public(last.chunk.job_id),
        last_at=last.chunk.finished_at,
        estimated=scale != 1.0,
    )


def _failed_jobs(connection: Connection, tenant: str | None, since: datetime) -> list[FailureGroup]:
    """By their error, of the newest that failed."""
    wanted = select(jobs.c.id, jobs.c.error, jobs.c.finished_at).where(
        jobs.c.state == JobState.FAILED, jobs.c.finished_at > since, *_of_jobs(tenant)
    )
    by_error = defaultdict[str, list[Any]](list)
    found = connection.execute(wanted.order_by(jobs.c.finished_at.desc()).limit(FAILED_JOBS)).all()
    for row in found:
        by_error[row.error or ""].append(row)
    full = len(found) == FAILED_JOBS
    return [
        FailureGroup(JOB_FAILED, error, 0, len(rows), ids.public(rows[0].id), rows[0].finished_at, full)
        for error, rows in by_error.items()
    ]

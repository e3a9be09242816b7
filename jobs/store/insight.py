"""What became of one job, for those who look closely: its chunks, times and failures, its results beside the inputs."""

import builtins
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, func, or_, select

from jobs.errors import InvalidInput, InvalidParams, UnknownJob
from jobs.schemas import Delivery, Job, Result
from jobs.states import CanaryState, ChunkState
from jobs.store import failing, ids, progress
from jobs.store.clock import now, whole_seconds
from jobs.store.dialect import Database
from jobs.store.jobs import Jobs
from jobs.store.results import Results, results_of
from jobs.store.retention import NOT_GONE
from jobs.store.tables import chunks, deliveries, jobs, results, webhooks

T = TypeVar("T")

CELLS, BUCKETS, LIVE_S = 400, 60, 3600.0
"""A strip's cells and a pace's buckets unless asked otherwise; how much of a live job's life its pace is told of."""
CODES, RELATED = 50, 200
"""Kinds of failures, and retries or deliveries, that are told of at most."""
ROWS, LARGEST, SCANNED, SPANS = 200, 2**20, 20_000, 100
"""Of a page of results: its rows, the characters of results and the bytes of inputs in it, and the items and chunks
that are looked at for those asked for."""
_SIZE = sum(
    (func.coalesce(func.length(results.c[name]), 0) for name in ("output", "error", "kept")),
    func.coalesce(func.length(results.c.vector), 0) * 5,
)
"""Characters of a result as it is shown, about: four bytes of a vector are a number of some twenty digits."""


class Cell(NamedTuple):
    """A chunk, or several that follow each other."""

    seq_lo: int
    seq_hi: int
    """Exclusive."""
    states: dict[str, int]
    """How many chunks are in which state; those that were split count as their parts."""
    n_ok: int
    n_error: int
    attempts: int
    """The most that one of them needed."""


class Phase(NamedTuple):
    """`loading`, `waiting`, `running` or `finished`."""

    name: str
    start_at: datetime
    end_at: datetime | None
    """None: it goes on."""


class Pace(NamedTuple):
    start_at: datetime
    items: int
    tokens: int


class Sample(NamedTuple):
    """An item that failed."""

    seq: int
    custom_id: str
    message: str


class Failures(NamedTuple):
    """The items of a job that failed with one code."""

    code: str
    n_items: int
    samples: list[Sample]
    estimated: bool
    """There were too many to look at each: `n_items` is scaled up from some."""


class Trouble(NamedTuple):
    """A chunk that did not go smoothly."""

    seq_lo: int
    seq_hi: int
    state: str
    attempt: int
    crashes: int
    errors: int
    n_error: int
    last_error: str | None
    worker: str | None
    """The last one that held it."""


class Event(NamedTuple):
    """`created`, `sealed`, `canary`, `started`, `went_on`, `retried`, `delivery`, or the state it ended in."""

    at: datetime
    name: str
    about: str
    """The id of the retry or the job it retries; what came of a canary or a delivery; why it ended."""


class Sent(NamedTuple):
    """News of the job on its way to a webhook."""

    url: str
    delivery: Delivery


class Item(NamedTuple):
    """A result beside its input."""

    seq: int
    custom_id: str
    status: str
    line: bytes | None
    """The item as it came in, a line of JSON. None: it is too long to be shown."""
    result: Result | None
    """None: it is too long to be shown."""


class Page(NamedTuple):
    items: list[Item]
    next_seq: int | None
    """`after_seq` of the next page, which may be needed even though this one is short. None: there are no more."""


class Insight:
    """One job at a time. An id that no job (of the tenant, if one is given) has raises UnknownJob."""

    def __init__(self, database: Database, owner: Jobs, stored: Results) -> None:
        self._db, self._jobs, self._results = database, owner, stored

    def strip(self, job_id: str, cells: int = CELLS, *, tenant: str | None = None) -> list[Cell]:
        """The chunks in the order of their items; many are merged to cells of equally many items, `cells` at most.

        One aggregate over the job's chunks, as its progress is.
        """
        if cells < 1:
            raise InvalidParams(f"a strip of {cells} cells; allowed: 1 and more")

        def work(connection: Connection, job: Row[Any]) -> list[Cell]:
            mine = (chunks.c.job_id == job.id, chunks.c.state != ChunkState.SPLIT)
            last = connection.execute(select(chunks.c.seq_hi).where(*mine).order_by(chunks.c.seq_lo.desc()).limit(1))
            width = -(-(last.scalar_one_or_none() or 1) // cells)
            few = select(chunks.c.id).where(*mine).limit(cells + 1).subquery()
            if connection.execute(select(func.count()).select_from(few)).scalar_one() <= cells:
                width = 1
            return _cells(connection.execute(_by_cell(chunks.c.seq_lo // width, mine)).all())

        return self._read(job_id, tenant, work)

    def phases(self, job_id: str, *, tenant: str | None = None) -> list[Phase]:
        """What it was in, in order, up to now. When it was paused is not kept: that is part of the others."""
        return self._read(job_id, tenant, lambda _, job: _phases(job))

    def pace(self, job_id: str, buckets: int = BUCKETS, *, tenant: str | None = None) -> list[Pace]:
        """What was done over its life, or its last hour while it goes on, in at most so many equal spans (whole
        seconds); none before it has started. A chunk counts when it ends."""
        if buckets < 1:
            raise InvalidParams(f"a pace in {buckets} buckets; allowed: 1 and more")

        def work(connection: Connection, job: Row[Any]) -> list[Pace]:
            if job.started_at is None:
                return []
            end = job.finished_at or connection.execute(select(now())).scalar_one()
            start = job.started_at if job.finished_at else max(job.started_at, end - timedelta(seconds=LIVE_S))
            first, last = int(start.timestamp()), int(end.timestamp())
            width = max(1, -(-(last - first + 1) // buckets))
            number = ((whole_seconds(chunks.c.finished_at) - first) // width).label("number")
            wanted = select(
                number,
                func.sum(chunks.c.n_ok + chunks.c.n_error),
                func.sum(chunks.c.tokens_in + chunks.c.tokens_out),
            ).where(chunks.c.job_id == job.id, chunks.c.finished_at >= datetime.fromtimestamp(first, UTC))
            found = [Pace(datetime.fromtimestamp(at, UTC), 0, 0) for at in range(first, last + 1, width)]
            for at, items, tokens in connection.execute(wanted.group_by(number)):
                at = min(at, len(found) - 1)  # chunks of a job that was ended early end just behind it
                found[at] = Pace(found[at].start_at, found[at].items + int(items), found[at].tokens + int(tokens))
            return found

        return self._read(job_id, tenant, work)

    def failures(self, job_id: str, samples: int = 3, *, tenant: str | None = None) -> list[Failures]:
        """What its items failed with, the most frequent first, each with a few of them.

        How many failed is counted from the chunks; with what, from the results, of some chunks all over the job when
        they are too many.
        """

        def work(connection: Connection, job: Row[Any]) -> list[Failures]:
            looked_at, n_items = _with_errors(connection, job)
            found = failing.codes(connection, looked_at)
            scale, by_code = failing.scale(found, n_items), defaultdict[str, list[failing.Found]](list)
            for each in sorted(found, key=lambda each: each.chunk.seq_lo):
                by_code[each.code].append(each)
            counts = {code: round(sum(each.n_items for each in mine) * scale) for code, mine in by_code.items()}
            most = sorted(counts, key=lambda code: (-counts[code], code))[:CODES]
            return [
                Failures(code, counts[code], _samples(connection, by_code[code], samples), scale != 1.0)
                for code in most
            ]

        return self._read(job_id, tenant, work)

    def trouble(self, job_id: str, limit: int = 20, *, tenant: str | None = None) -> list[Trouble]:
        """The chunks that crashed a worker or met an error, those with the most crashes first."""
        names = ("seq_lo", "seq_hi", "state", "attempt", "crashes", "errors", "n_error", "last_error", "worker_id")
        wanted = select(*(chunks.c[name] for name in names)).where(or_(chunks.c.crashes > 0, chunks.c.errors > 0))
        worst = wanted.order_by(chunks.c.crashes.desc(), chunks.c.errors.desc(), chunks.c.seq_lo).limit(limit)

        def work(connection: Connection, job: Row[Any]) -> list[Trouble]:
            return [Trouble(*row) for row in connection.execute(worst.where(chunks.c.job_id == job.id))]

        return self._read(job_id, tenant, work)

    def children(self, job_id: str, *, tenant: str | None = None) -> list[Job]:
        """Its retries, oldest first."""

        def work(connection: Connection, job: Row[Any]) -> list[Job]:
            return progress.read(connection, _retries(connection, job))

        return self._read(job_id, tenant, work)

    def deliveries(self, job_id: str, *, tenant: str | None = None) -> list[Sent]:
        """What its tenant's webhooks were told of it, or will be, oldest first."""
        return self._read(job_id, tenant, _sent)

    def events(self, job_id: str, *, tenant: str | None = None) -> list[Event]:
        """What happened to it, in order, as far as it is kept."""

        def work(connection: Connection, job: Row[Any]) -> list[Event]:
            found = _own_events(job)
            found += [Event(row.created_at, "retried", ids.public(row.id)) for row in _retries(connection, job)]
            for url, sent in _sent(connection, job):
                why = "" if sent.error is None else f", {sent.error}"
                found.append(Event(sent.created_at, "delivery", f"{sent.event} to {url}: {sent.state}{why}"))
            return sorted(found, key=lambda event: event.at)

        return self._read(job_id, tenant, work)

    def results_page(
        self,
        job_id: str,
        *,
        after_seq: int = -1,
        limit: int = 50,
        only: str | None = None,
        tenant: str | None = None,
    ) -> Page:
        """Results behind this item beside their inputs, in order: all, those that are `ok` or `error`, or those with
        this error's code. Shorter than `limit` (200 at most) where they would be too long together."""
        most = max(1, min(limit, ROWS))

        def work(connection: Connection, job: Row[Any]) -> tuple[list[Row[Any]], int | None]:
            if only is None:
                found = connection.execute(_marks(job, results.c.seq > after_seq).limit(most)).all()
                return list(found), found[-1].seq if len(found) == most else None
            return _picked(connection, job, after_seq, most, only)

        marks, more = self._read(job_id, tenant, work)
        kept = _fitting(marks)
        if len(kept) < len(marks):
            more = kept[-1].seq
        items = self._beside(job_id, kept)
        return Page(items, items[-1].seq if len(items) < len(kept) else more)

    def _beside(self, job_id: str, marks: Sequence[Row[Any]]) -> builtins.list[Item]:
        """The results of these marks with their inputs; fewer where the inputs are too long together."""
        lines = dict[int, bytes]()
        while marks:
            try:
                lines = self._jobs.lines_of(job_id, [mark.seq for mark in marks], LARGEST)
                break
            except InvalidInput:
                if len(marks) == 1:
                    break
                marks = marks[: len(marks) // 2]
        small = [mark.seq for mark in marks if mark.size <= LARGEST]
        shown = {each.seq: each for each in results_of(self._results.rows_of(job_id, small))} if small else {}
        return [Item(mark.seq, mark.custom_id, mark.status, lines.get(mark.seq), shown.get(mark.seq)) for mark in marks]

    def _read(self, job_id: str, tenant: str | None, work: Callable[[Connection, Row[Any]], T]) -> T:
        wanted = select(jobs).where(jobs.c.id == ids.parse(job_id), NOT_GONE)
        if tenant is not None:
            wanted = wanted.where(jobs.c.tenant == tenant)

        def found(connection: Connection) -> T:
            job = connection.execute(wanted).one_or_none()
            if job is None:
                raise UnknownJob(f"no job {job_id!r}")
            return work(connection, job)

        return self._db.read(found)


def _by_cell(number: ColumnElement[int], mine: Sequence[ColumnElement[bool]]) -> Select[Any]:
    low, high = func.min(chunks.c.seq_lo), func.max(chunks.c.seq_hi)
    sums = func.sum(chunks.c.n_ok), func.sum(chunks.c.n_error), func.max(chunks.c.attempt)
    cell = number.label("cell")
    wanted = select(cell, chunks.c.state, func.count(), low, high, *sums).where(*mine)
    return wanted.group_by(cell, chunks.c.state).order_by(cell, low)


def _cells(found: Sequence[Any]) -> list[Cell]:
    """Put the states of a cell together."""
    cells = dict[int, Cell]()
    for number, state, count, low, high, n_ok, n_error, attempts in found:
        one = Cell(low, high, {state: count}, int(n_ok), int(n_error), attempts)
        cells[number] = _both(cells[number], one) if number in cells else one
    return list(cells.values())


def _both(one: Cell, other: Cell) -> Cell:
    return Cell(
        min(one.seq_lo, other.seq_lo),
        max(one.seq_hi, other.seq_hi),
        {**one.states, **other.states},
        one.n_ok + other.n_ok,
        one.n_error + other.n_error,
        max(one.attempts, other.attempts),
    )


def _phases(job: Row[Any]) -> list[Phase]:
    begun = [("loading", job.created_at), ("waiting", job.sealed_at), ("running", job.started_at)]
    known = [(name, at) for name, at in (*begun, ("finished", job.finished_at)) if at is not None]
    ends = [at for _, at in known[1:]] + [job.finished_at]
    return [Phase(name, at, end) for (name, at), end in zip(known, ends, strict=True)]


def _with_errors(connection: Connection, job: Row[Any]) -> tuple[list[Row[Any]], int]:
    """Chunks with failed items, all over the job, that may be looked at; and how many items failed in all."""
    mine = (chunks.c.job_id == job.id, chunks.c.n_error > 0)
    span = func.sum(chunks.c.seq_hi - chunks.c.seq_lo)
    sums = select(func.count(), func.sum(chunks.c.n_error), span).where(*mine)
    count, n_items, in_reach = connection.execute(sums).one()
    if not count:
        return [], 0
    every = max(1, int(in_reach) // failing.LOOKED_AT)
    some = select(*failing.COLUMNS).where(*mine).order_by(chunks.c.id % every, chunks.c.id)
    found = connection.execute(some.limit(max(1, count // every) if every > 1 else count)).all()
    return failing.within_reach(found), int(n_items)


def _samples(connection: Connection, found: Sequence[failing.Found], count: int) -> list[Sample]:
    """The first of these items."""
    samples = list[Sample]()
    for each in found:
        if len(samples) >= count:
            break
        chunk = each.chunk
        wanted = select(results.c.seq, results.c.custom_id, results.c.error).where(
            results.c.job_id == chunk.job_id,
            results.c.seq >= chunk.seq_lo,
            results.c.seq < min(chunk.seq_hi, chunk.seq_lo + failing.LOOKED_AT_OF_ONE),
            results.c.error_code == each.code,
        )
        rows = connection.execute(wanted.order_by(results.c.seq).limit(count - len(samples)))
        samples += [Sample(row.seq, row.custom_id, row.error or "") for row in rows]
    return samples


def _retries(connection: Connection, job: Row[Any]) -> Sequence[Row[Any]]:
    wanted = select(jobs).where(jobs.c.retry_of == job.id, NOT_GONE).order_by(jobs.c.id).limit(RELATED)
    return connection.execute(wanted).all()


def _sent(connection: Connection, job: Row[Any]) -> list[Sent]:
    hooks = select(webhooks.c.id, webhooks.c.url).where(webhooks.c.tenant == job.tenant)
    urls: dict[str, str] = {row.id: row.url for row in connection.execute(hooks)}
    mine = (deliveries.c.webhook_id.in_(list(urls)), deliveries.c.subject == ids.public(job.id))
    wanted = select(*(deliveries.c[name] for name in Delivery.model_fields)).where(*mine)
    found = connection.execute(wanted.order_by(deliveries.c.created_at, deliveries.c.id).limit(RELATED)).all()
    return [Sent(urls[row.webhook_id], Delivery(**row._mapping)) for row in found]


def _own_events(job: Row[Any]) -> list[Event]:
    origin = f"a retry of {ids.public(job.retry_of)}" if job.retry_of else ""
    canary = ""
    if job.canary_state is not None:
        canary = f"of {job.canary['items']} items: {job.canary_state}"
    told = [
        ("created", job.created_at, origin),
        ("sealed", job.sealed_at, f"{job.n_items} items"),
        ("started", job.started_at, f"with a canary {canary}" if canary else ""),
        ("went_on", job.went_on_at, "its canary passed" if job.canary_state == CanaryState.PASSED else ""),
        (job.state, job.finished_at, job.error or ""),
    ]
    return [Event(at, name, about) for name, at, about in told if at is not None]


def _marks(job: Row[Any], *where: ColumnElement[bool]) -> Select[Any]:
    wanted = select(results.c.seq, results.c.custom_id, results.c.status, _SIZE.label("size"))
    return wanted.where(results.c.job_id == job.id, *where).order_by(results.c.seq)


def _picked(
    connection: Connection, job: Row[Any], after_seq: int, most: int, only: str
) -> tuple[list[Row[Any]], int | None]:
    """Marks of such results, from chunks that have some; and the item that the next page goes on behind."""
    has = chunks.c.n_ok if only == "ok" else chunks.c.n_error
    spans = select(chunks.c.seq_lo, chunks.c.seq_hi).where(chunks.c.job_id == job.id, chunks.c.seq_hi > after_seq + 1)
    with_some = connection.execute(spans.where(has > 0).order_by(chunks.c.seq_lo).limit(SPANS)).all()
    such = results.c.status == only if only in ("ok", "error") else results.c.error_code == only
    found, at, left = list[Row[Any]](), after_seq, SCANNED
    for low, high in with_some:
        low = max(low, at + 1)
        high = min(high, low + left)
        span = _marks(job, such, results.c.seq >= low, results.c.seq < high)
        found += connection.execute(span.limit(most - len(found))).all()
        if len(found) == most:
            return found, found[-1].seq
        at, left = max(at, high - 1), left - max(0, high - low)
        if left <= 0:
            return found, at
    return found, at if len(with_some) == SPANS else None


def _fitting(marks: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """As many as may be shown together; one at least."""
    size = 0
    for number, mark in enumerate(marks):
        size += mark.size if mark.size <= LARGEST else 0
        if size > LARGEST:
            return marks[:number]
    return marks

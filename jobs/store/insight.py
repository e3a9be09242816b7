"""What those who look into one job want to see: its chunks, its times, its failures, its results beside its items."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import orjson
from sqlalchemy import Connection, and_, func, select

from jobs.schemas import Job, Result
from jobs.states import ChunkState
from jobs.store import ids, progress, rows
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.failing import items_of
from jobs.store.jobs import Jobs
from jobs.store.overview import piece_of
from jobs.store.results import Results, results_of
from jobs.store.retention import check_there
from jobs.store.tables import chunks, jobs, results
from jobs.store.values import ResultRow

CELLS = 400
PACE_PIECES = 60
PAGE_BYTES = 2**20
"""Outputs of a page may have so many bytes; one alone may have more."""
FAILING_CHUNKS, FAILED_ITEMS = 40, 2000
"""Of a job, that are looked at for what its failures have in common."""
RETRIES = 50
"""Of a job, that are listed."""

_LIVE = (ChunkState.HELD, ChunkState.PENDING, ChunkState.RUNNING, ChunkState.DONE, ChunkState.CANCELLED)
"""The states of chunks that stand for their items: a split one's are its children's."""


class Cell(NamedTuple):
    """Some neighbouring chunks."""

    seq_lo: int
    seq_hi: int
    states: dict[str, int]
    """How many chunks are in each state."""
    n_ok: int
    n_error: int
    tries: int
    """Of the chunk that was tried most often."""


class Phase(NamedTuple):
    """A time in a job's life."""

    name: str
    start_at: datetime
    end_at: datetime | None
    """None: it goes on."""


class Piece(NamedTuple):
    """What was done in a piece of time. A chunk counts when it is finished, all at once."""

    start_at: datetime
    items: int
    tokens: int


class Sample(NamedTuple):
    seq: int
    custom_id: str
    message: str


class Failure(NamedTuple):
    """Failed items of one code."""

    code: str
    n: int
    """Of those that were looked at."""
    samples: list[Sample]


class Trouble(NamedTuple):
    """A chunk that was tried more than once, or crashed its worker."""

    seq_lo: int
    seq_hi: int
    state: str
    attempt: int
    crashes: int
    errors: int
    last_error: str | None
    worker_id: str | None


class Event(NamedTuple):
    """Something that happened to a job."""

    at: datetime
    text: str
    job_id: str | None = None
    """Another job that has to do with it."""


class Beside(NamedTuple):
    """A result beside its item."""

    item: dict[str, Any]
    result: Result


class Insight:
    """Looks into single jobs. Ids are whole; one that no job has raises UnknownJob."""

    def __init__(self, database: Database, jobs: Jobs, results: Results) -> None:
        self._db, self._jobs, self._results = database, jobs, results

    def strip(self, job_id: str, cells: int = CELLS) -> list[Cell]:
        """The job's chunks in the order of their items, evenly merged to at most so many cells."""
        job = ids.parse(job_id)
        mine = and_(chunks.c.job_id == job, chunks.c.state.in_([str(each) for each in _LIVE]))

        def work(connection: Connection) -> list[Cell]:
            count, last = connection.execute(select(func.count(), func.max(chunks.c.seq_hi)).where(mine)).one()
            if not count:
                return []
            width = max(1, -(-last // cells)) if count > cells else 0
            cell = chunks.c.seq_lo // width if width else chunks.c.seq_lo
            sums = (func.count(), func.min(chunks.c.seq_lo), func.max(chunks.c.seq_hi), func.sum(chunks.c.n_ok))
            more = (func.sum(chunks.c.n_error), func.max(chunks.c.attempt))
            wanted = select(cell, chunks.c.state, *sums, *more).where(mine).group_by(cell, chunks.c.state)
            return _cells(connection.execute(wanted.order_by(cell)).all())

        return self._db.read(work)

    def pace(self, job_id: str, pieces: int = PACE_PIECES) -> list[Piece]:
        """What was done over the job's life, or over its last hour while it lives, in order; pieces of time without
        anything are left out."""

        def work(connection: Connection) -> list[Piece]:
            job = rows.read(connection, ids.parse(job_id))
            if job.started_at is None:
                return []
            moment = job.finished_at or connection.execute(select(now())).scalar_one()
            start = job.started_at if job.finished_at else max(job.started_at, moment - timedelta(hours=1))
            size = max(1, -(-int((moment - start).total_seconds()) // pieces))
            piece = piece_of(self._db.dialect, chunks.c.finished_at, size)
            sums = (func.sum(chunks.c.n_ok + chunks.c.n_error), func.sum(chunks.c.tokens_in + chunks.c.tokens_out))
            wanted = select(piece, *sums).where(chunks.c.job_id == ids.parse(job_id), chunks.c.finished_at >= start)
            found = connection.execute(wanted.group_by(piece).order_by(piece)).all()
            return [
                Piece(datetime.fromtimestamp(int(at) * size, UTC), int(items), int(toks)) for at, items, toks in found
            ]

        return self._db.read(work)

    def failures(self, job_id: str, samples: int = 3) -> list[Failure]:
        """Failed items by code, the most frequent first, with the first ones of each: of the first chunks that have
        failed items, so that ten million failures cost no more than a thousand."""
        job = ids.parse(job_id)
        columns = (results.c.seq, results.c.custom_id, results.c.error_code, results.c.error)

        def work(connection: Connection) -> list[Failure]:
            counts, chosen = Counter[str](), defaultdict[str, list[Sample]](list)
            for row in items_of(connection, job, "error", columns, n_chunks=FAILING_CHUNKS, limit=FAILED_ITEMS):
                counts[row.error_code] += 1
                if len(chosen[row.error_code]) < samples:
                    chosen[row.error_code].append(Sample(row.seq, row.custom_id, row.error or ""))
            check_there(connection, job)
            return [Failure(code, count, chosen[code]) for code, count in counts.most_common()]

        return self._db.read(work)

    def trouble(self, job_id: str, limit: int = 20) -> list[Trouble]:
        """Chunks that crashed a worker or failed as a whole, the worst first."""
        wanted = (
            select(*(chunks.c[name] for name in Trouble._fields))
            .where(chunks.c.job_id == ids.parse(job_id), (chunks.c.crashes > 0) | (chunks.c.errors > 0))
            .order_by(chunks.c.crashes.desc(), chunks.c.errors.desc(), chunks.c.seq_lo)
        )
        return [
            Trouble._make(row)
            for row in self._db.read(lambda connection: connection.execute(wanted.limit(limit)).all())
        ]

    def events(self, job_id: str) -> list[Event]:
        """What happened to the job, and when, in order."""
        retries = select(jobs).where(jobs.c.retry_of == ids.parse(job_id)).order_by(jobs.c.id).limit(RETRIES)

        def work(connection: Connection) -> list[Event]:
            job = rows.read(connection, ids.parse(job_id))
            later = progress.read(connection, connection.execute(retries).all())
            return sorted([*_events(job), *(Event(each.created_at, "retried as", each.id) for each in later)])

        return self._db.read(work)

    def phases(self, job_id: str) -> list[Phase]:
        """The job's life so far: loading, waiting, running."""
        job = self._jobs.get(job_id)
        starts = [("loading", job.created_at), ("waiting", job.sealed_at), ("running", job.started_at)]
        found = [(name, at) for name, at in starts if at is not None]
        ends = [*(at for _, at in found[1:]), job.finished_at]
        return [Phase(name, at, end) for (name, at), end in zip(found, ends, strict=True)]

    def results_page(
        self, job_id: str, *, after: int = -1, limit: int = 20, only: Literal["ok", "error"] | None = None
    ) -> tuple[list[Beside], int | None]:
        """Results behind an item, beside their items, and the item that the next page goes on from; None: there are no
        more by now. Bounded in bytes, too."""
        job = ids.parse(job_id)
        if only is None:
            found = self._results.rows_after(job_id, after=after, limit=limit + 1)
        else:
            # Each of these chunks has one at least.
            asked = {"after": after, "n_chunks": limit + 1, "limit": limit + 1}
            some = self._db.read(lambda connection: items_of(connection, job, only, [results.c.seq], **asked))
            found = self._results.rows_of(job_id, [row.seq for row in some])
        page = _within(found[:limit], PAGE_BYTES)
        lines = self._jobs.lines_of(job_id, [row.seq for row in page])
        shown = [
            Beside(orjson.loads(lines.get(row.seq, b"{}")), result)
            for row, result in zip(page, results_of(page), strict=True)
        ]
        return shown, page[-1].seq if len(found) > len(page) else None


def _cells(found: Sequence[Any]) -> list[Cell]:
    """Rows of (cell, state, chunks, seq_lo, seq_hi, ok, error, tries), those of a cell in one."""
    cells: dict[int, Cell] = {}
    for at, state, count, low, high, n_ok, n_error, tries in found:
        known = cells.get(at, Cell(low, high, {}, 0, 0, 0))
        cells[at] = Cell(
            min(known.seq_lo, low),
            max(known.seq_hi, high),
            {**known.states, state: count},
            known.n_ok + int(n_ok),
            known.n_error + int(n_error),
            max(known.tries, tries),
        )
    return list(cells.values())


def _events(job: Job) -> Iterator[Event]:
    yield Event(job.created_at, "created" + (" as a retry of" if job.retry_of else ""), job.retry_of)
    if job.sealed_at is not None:
        yield Event(job.sealed_at, f"loaded, {job.counts.total:,} items")
    if job.started_at is not None:
        yield Event(job.started_at, "first claimed by a worker")
    if job.finished_at is not None:
        yield Event(job.finished_at, str(job.state))


def _within(found: Sequence[ResultRow], most_bytes: int) -> list[ResultRow]:
    """The first rows that have no more bytes together; one at least."""
    page, size = list[ResultRow](), 0
    for row in found:
        size += len(row.output or "") + len(row.vector or b"")
        if page and size > most_bytes:
            break
        page.append(row)
    return page

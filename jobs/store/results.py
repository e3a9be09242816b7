"""Results as they are read: pages in the order of the items, raw rows for export, retries laid over the first job."""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Connection, select

from jobs.errors import UnknownJob
from jobs.schemas import Result
from jobs.store import ids
from jobs.store.dialect import Database
from jobs.store.encoding import custom_id, embedding
from jobs.store.jobs import Jobs
from jobs.store.tables import jobs, results
from jobs.store.values import ResultRow

PAGE = 1000
_RESULTS = TypeAdapter(list[Result])

_ROWS = f"SELECT {', '.join(ResultRow._fields)} FROM results WHERE job_id = :job_id"


class Results:
    """The results of all jobs. Written once, so that pages read at different times fit together."""

    def __init__(self, database: Database, owner: Jobs) -> None:
        self._db, self._jobs = database, owner

    def have(self, job_id: str, seq_lo: int, seq_hi: int) -> set[int]:
        """Which items of [seq_lo, seq_hi) have a result."""
        wanted = select(results.c.seq).where(
            results.c.job_id == ids.parse(job_id), results.c.seq >= seq_lo, results.c.seq < seq_hi
        )
        return self._db.read(lambda connection: set(connection.scalars(wanted)))

    def rows(self, job_id: str, seq_lo: int, seq_hi: int) -> list[ResultRow]:
        """The results of [seq_lo, seq_hi) as they are stored, in order."""
        span = {"seq_lo": seq_lo, "seq_hi": seq_hi}
        return self._rows(ids.parse(job_id), "AND seq >= :seq_lo AND seq < :seq_hi ORDER BY seq", span)

    def page(self, job_id: str, *, after: int = -1, limit: int = PAGE, status: str | None = None) -> list[Result]:
        """The next results behind item `after`, in order; shorter than `limit` only if there are no more by now."""
        return results_of(self.rows_after(job_id, after=after, limit=limit, status=status))

    def rows_after(
        self, job_id: str, *, after: int = -1, limit: int = PAGE, status: str | None = None
    ) -> list[ResultRow]:
        """A page as it is stored."""
        values: dict[str, Any] = {"after": after, "most": limit}
        only = ""
        if status is not None:
            values["status"], only = status, "AND status = :status "
        return self._rows(ids.parse(job_id), f"AND seq > :after {only}ORDER BY seq LIMIT :most", values)

    def latest(self, job_id: str) -> Iterator[Result]:
        """The results of the first job of a chain of retries, in order, each replaced by its newest retry's."""
        return (results_of([row])[0] for row in self.latest_rows(job_id))

    def latest_rows(self, job_id: str) -> Iterator[ResultRow]:
        """The same as they are stored."""
        first, retries = self._db.read(lambda connection: _chain(connection, ids.parse(job_id)))
        newest = {found.custom_id: found for retry in retries for found in self._all(ids.public(retry))}
        there = self._laid_over(ids.public(first), newest)
        if not newest:
            return there
        return heapq.merge(there, self._only_retried(ids.public(first), newest), key=lambda found: found.seq)

    def _rows(self, job_id: UUID, condition: str, values: dict[str, Any]) -> list[ResultRow]:
        job: Any = job_id if self._db.dialect == "postgresql" else job_id.hex
        query = self._db.sql(f"{_ROWS} {condition}")

        def work(connection: Connection) -> list[ResultRow]:
            cursor: Any = connection.execute(query, {"job_id": job, **values}).cursor
            return list(map(ResultRow._make, cursor.fetchall()))

        return self._db.read(work)

    def _all(self, job_id: str) -> Iterator[ResultRow]:
        after = -1
        while found := self.rows_after(job_id, after=after):
            yield from found
            after = found[-1].seq

    def _laid_over(self, job_id: str, newest: dict[str, ResultRow]) -> Iterator[ResultRow]:
        for found in self._all(job_id):
            retried = newest.get(found.custom_id)
            yield found if retried is None else retried._replace(seq=found.seq)

    def _only_retried(self, job_id: str, newest: dict[str, ResultRow]) -> Iterator[ResultRow]:
        """Items that the first job, ended early, has no result of."""
        have: set[int] = set()
        high = 0
        for seq, line in self._jobs.lines(job_id):
            if seq >= high:
                high = seq + PAGE
                have = self.have(job_id, seq, high)
            if seq not in have and (found := newest.get(custom_id(seq, line))) is not None:
                yield found._replace(seq=seq)


def results_of(rows: Sequence[ResultRow]) -> list[Result]:
    """Stored rows as callers see them. One call validates them all: a call for each costs three times as much."""
    return _RESULTS.validate_python([_fields(row) for row in rows])


def _fields(row: ResultRow) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "custom_id": row.custom_id,
        "status": row.status,
        "output": _output(row),
        "error": None if row.error_code is None else {"code": row.error_code, "message": row.error or ""},
        "usage": {
            "input_tokens": row.tokens_in,
            "output_tokens": row.tokens_out,
            "truncated_tokens": row.truncated_tokens,
            "windows": row.windows,
        },
        "kept": orjson.loads(row.kept) if row.kept else {},
    }


def _output(row: ResultRow) -> dict[str, Any] | None:
    output: dict[str, Any] | None = orjson.loads(row.output) if row.output is not None else None
    return output if row.vector is None else {**(output or {}), "embedding": embedding(row)}


def _chain(connection: Connection, job_id: UUID) -> tuple[UUID, list[UUID]]:
    """The first job of the chain this job belongs to, and its retries and theirs, oldest first."""
    first, before = job_id, _retry_of(connection, job_id)
    while before is not None:
        first, before = before, _retry_of(connection, before)
    chain: list[UUID] = []
    level = [first]
    while level:
        level = list(connection.scalars(select(jobs.c.id).where(jobs.c.retry_of.in_(level))))
        chain += level
    return first, sorted(chain)


def _retry_of(connection: Connection, job_id: UUID) -> UUID | None:
    row = connection.execute(select(jobs.c.retry_of).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise UnknownJob(f"no job {ids.public(job_id)!r}")
    before: UUID | None = row.retry_of
    return before

"""A job and its retries as one: what is still without an ok result, and the results laid over each other."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection, select

from jobs.errors import UnknownJob
from jobs.schemas import Result
from jobs.store import ids
from jobs.store.dialect import Database
from jobs.store.encoding import custom_id
from jobs.store.jobs import Jobs
from jobs.store.newest import Newest, Place
from jobs.store.results import PAGE, Results, results_of
from jobs.store.tables import jobs
from jobs.store.values import ResultRow

T = TypeVar("T")


class Retries:
    """Chains of jobs: a first one, its retries, and theirs. Items are the same in all of them by their `custom_id`."""

    def __init__(self, database: Database, owner: Jobs, results: Results) -> None:
        self._db, self._jobs, self._results = database, owner, results

    def chain(self, job_id: str) -> list[str]:
        """The first job of the chain that this job belongs to, then all retries in it, oldest first."""
        found = self._db.read(lambda connection: _chain(connection, ids.parse(job_id)))
        return [ids.public(each) for each in found]

    def latest(self, job_id: str) -> Iterator[Result]:
        """The results of the chain's first job in order, each replaced by that of a retry where that one counts:
        ok before an error, then the newest."""
        return (results_of([row])[0] for row in self.latest_rows(job_id))

    def latest_rows(self, job_id: str) -> Iterator[ResultRow]:
        """The same as they are stored."""
        first, *retries = self.chain(job_id)
        return self._laid_over(first, retries) if retries else self._results.all_rows(first)

    def open_lines(self, job_id: str) -> Iterator[tuple[int, bytes]]:
        """The `seq` and line of each item of this job that has no ok result in any job of its chain, in order."""
        own = ids.public(ids.parse(job_id))
        with self._newest([other for other in self.chain(own) if other != own], status="ok") as elsewhere:
            for items in _pages(self._jobs.lines(own)):
                done = self._results.have(own, items[0][0], items[-1][0] + 1, status="ok")
                left = {custom_id(seq, line): (seq, line) for seq, line in items if seq not in done}
                found = elsewhere.find(list(left))
                yield from (item for name, item in left.items() if name not in found)

    def _newest(self, chain: Sequence[str], *, status: str | None = None) -> Newest:
        newest = Newest()
        for number, job_id in enumerate(chain):
            for marks in self._results.marks(job_id, status=status):
                newest.add(number, marks)
        return newest

    def _laid_over(self, first: str, retries: Sequence[str]) -> Iterator[ResultRow]:
        with self._newest(retries) as newest:
            there = self._replaced(first, retries, newest)
            if not self._jobs.get(first).counts.pending:
                yield from there
                return
            yield from heapq.merge(there, self._only_retried(first, retries, newest), key=lambda row: row.seq)

    def _replaced(self, first: str, retries: Sequence[str], newest: Newest) -> Iterator[ResultRow]:
        for rows in _pages(self._results.all_rows(first)):
            places = newest.find([row.custom_id for row in rows])
            own = {row.custom_id for row in rows if row.status == "ok"}
            counts = {name: place for name, place in places.items() if place.ok or name not in own}
            taken = self._rows_at(retries, counts)
            yield from (taken.get(row.custom_id, row)._replace(seq=row.seq) for row in rows)

    def _only_retried(self, first: str, retries: Sequence[str], newest: Newest) -> Iterator[ResultRow]:
        """Items that the first job, ended early, has no result of."""
        for items in _pages(self._jobs.lines(first)):
            have = self._results.have(first, items[0][0], items[-1][0] + 1)
            names = {custom_id(seq, line): seq for seq, line in items if seq not in have}
            taken = self._rows_at(retries, newest.find(list(names)))
            yield from (taken[name]._replace(seq=seq) for name, seq in names.items() if name in taken)

    def _rows_at(self, chain: Sequence[str], places: Mapping[str, Place]) -> dict[str, ResultRow]:
        """These results, by `custom_id`."""
        by_job: dict[int, list[int]] = defaultdict(list)
        for place in places.values():
            by_job[place.job].append(place.seq)
        rows = (row for job, seqs in by_job.items() for row in self._results.rows_of(chain[job], seqs))
        return {row.custom_id: row for row in rows}


def _pages(rows: Iterable[T]) -> Iterator[list[T]]:
    left = iter(rows)
    while page := list(islice(left, PAGE)):
        yield page


def _chain(connection: Connection, job_id: UUID) -> list[UUID]:
    first, before = job_id, _retry_of(connection, job_id)
    while before is not None:
        first, before = before, _retry_of(connection, before)
    retries: list[UUID] = []
    level = [first]
    while level:
        level = list(connection.scalars(select(jobs.c.id).where(jobs.c.retry_of.in_(level))))
        retries += level
    return [first, *sorted(retries)]


def _retry_of(connection: Connection, job_id: UUID) -> UUID | None:
    row = connection.execute(select(jobs.c.retry_of).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise UnknownJob(f"no job {ids.public(job_id)!r}")
    before: UUID | None = row.retry_of
    return before

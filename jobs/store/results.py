"""Results as they are read: pages in the order of the items, and raw rows for export."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Connection, Select, bindparam, select

from jobs.schemas import Result
from jobs.store import ids
from jobs.store.dialect import Database
from jobs.store.encoding import embedding
from jobs.store.newest import Mark
from jobs.store.retention import check_there
from jobs.store.tables import results
from jobs.store.values import ResultRow

PAGE = 1000
_RESULTS = TypeAdapter(list[Result])

_ROWS = f"SELECT {', '.join(ResultRow._fields)} FROM results WHERE job_id = :job_id"


class Results:
    """The results of all jobs. Written once, so that pages read at different times fit together.

    Reading those of a job that is not there, or was deleted meanwhile, raises UnknownJob.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def have(self, job_id: str, seq_lo: int, seq_hi: int, *, status: str | None = None) -> set[int]:
        """Which items of [seq_lo, seq_hi) have a result, or one of this status."""
        wanted = select(results.c.seq).where(
            results.c.job_id == ids.parse(job_id), results.c.seq >= seq_lo, results.c.seq < seq_hi
        )
        if status is not None:
            wanted = wanted.where(results.c.status == status)
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

    def all_rows(self, job_id: str) -> Iterator[ResultRow]:
        """Every result as it is stored, in order, read as it is consumed."""
        after = -1
        while found := self.rows_after(job_id, after=after):
            yield from found
            after = found[-1].seq

    def rows_of(self, job_id: str, seqs: Sequence[int]) -> list[ResultRow]:
        """The results of these items as they are stored, in order."""
        return self._rows(ids.parse(job_id), "AND seq IN :seqs ORDER BY seq", {"seqs": list(seqs)})

    def marks(self, job_id: str, *, status: str | None = None) -> Iterator[list[Mark]]:
        """Every result without its content, in order, a page at a time."""
        columns = select(results.c.seq, results.c.custom_id, results.c.status == "ok").order_by(results.c.seq)
        wanted = columns.where(results.c.job_id == ids.parse(job_id)).limit(PAGE)
        if status is not None:
            wanted = wanted.where(results.c.status == status)
        after = -1
        while found := self._marks_after(job_id, wanted, after):
            yield found
            after = found[-1].seq

    def _marks_after(self, job_id: str, wanted: Select[Any], after: int) -> list[Mark]:
        page = wanted.where(results.c.seq > after)

        def work(connection: Connection) -> list[Mark]:
            found = [Mark(*row) for row in connection.execute(page)]
            check_there(connection, ids.parse(job_id))
            return found

        return self._db.read(work)

    def _rows(self, job_id: UUID, condition: str, values: dict[str, Any]) -> list[ResultRow]:
        job: Any = job_id if self._db.dialect == "postgresql" else job_id.hex
        query = self._db.sql(f"{_ROWS} {condition}")
        query = query.bindparams(bindparam("seqs", expanding=True)) if "seqs" in values else query

        def work(connection: Connection) -> list[ResultRow]:
            cursor: Any = connection.execute(query, {"job_id": job, **values}).cursor
            found = list(map(ResultRow._make, cursor.fetchall()))
            check_there(connection, job_id)
            return found

        return self._db.read(work)


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
    return output if row.vector is None else {**(output or {}), "embedding": embedding(row, output or {})}

"""What incremental jobs know: each item of a named corpus, what it was last asked as, and where its result is.

An item counts as seen when that result is ok, which is looked up, never noted: a crash at any moment leaves nothing to
mend. Only before a job's results are deleted is it written down (`settle`).
"""

import builtins
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, or_, select, update

from jobs.store import ids
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.tables import results, seen
from jobs.store.values import Sightings

PAGE = 5000
ROWS_AT_ONCE = 2000
"""Rows written by one transaction, beside those of a job's blocks."""

OK: ColumnElement[bool] = or_(
    seen.c.job_id.is_(None),
    exists().where(results.c.job_id == seen.c.job_id, results.c.seq == seen.c.seq, results.c.status == "ok"),
)
"""Whether the item's last result is ok. Null: it was, and its job has been deleted."""


class Known(NamedTuple):
    """What is known of an item."""

    id: int
    fingerprint: bytes
    ok: bool


class Mark(NamedTuple):
    """One item of a corpus, as a look over all of it sees it."""

    id: int
    vanished: bool


class Vanished(NamedTuple):
    """An item that was not in the last input."""

    custom_id: str | None
    job_id: str | None
    """The job that has its result; None: it was deleted."""
    seq: int
    """Its place there."""


class Tally(NamedTuple):
    """A corpus in numbers."""

    items: int
    ok: int
    """With an ok result: left out as long as they stay as they are."""
    vanished: int


class Seen:
    """The items of every tenant's corpora."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def known(self, tenant: str, name: str, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """Those of the items of these keys that there are."""
        wanted = _of(tenant, name, select(seen.c.key, seen.c.id, seen.c.fingerprint, OK)).where(seen.c.key.in_(keys))
        found = self._db.read(lambda connection: connection.execute(wanted).all())
        return {bytes(row[0]): Known(row[1], bytes(row[2]), bool(row[3])) for row in found}

    def last_id(self) -> int:
        """The newest row's number: what comes later has a higher one."""
        return self._db.read(lambda connection: connection.scalar(select(func.max(seen.c.id)))) or 0

    def marks(self, tenant: str, name: str) -> Iterator[builtins.list[Mark]]:
        """Every item of a corpus, a page at a time."""
        columns = select(seen.c.key, seen.c.id, seen.c.vanished_at.is_not(None)).order_by(seen.c.key).limit(PAGE)
        wanted, after = _of(tenant, name, columns), b""
        while found := self._page(wanted.where(seen.c.key > after)):
            yield [Mark(row[1], bool(row[2])) for row in found]
            after = bytes(found[-1][0])

    def mark(self, gone: Sequence[int], back: Sequence[int]) -> None:
        """Items (by row) that are not in the input any more, and items that are there again. Safe to repeat."""
        for rows, values in ((gone, {"vanished_at": now()}), (back, {"vanished_at": None})):
            for at in range(0, len(rows), ROWS_AT_ONCE):
                changed = update(seen).where(seen.c.id.in_(rows[at : at + ROWS_AT_ONCE])).values(**values)
                self._db.write(lambda connection, changed=changed: connection.execute(changed))  # type: ignore[misc]

    def vanished(self, tenant: str, name: str) -> Iterator[Vanished]:
        """The items that were not in the last input, in the order in which they came first."""
        columns = select(seen.c.id, seen.c.custom_id, seen.c.job_id, seen.c.seq).order_by(seen.c.id).limit(PAGE)
        wanted, after = _of(tenant, name, columns).where(seen.c.vanished_at.is_not(None)), 0
        while found := self._page(wanted.where(seen.c.id > after)):
            for row in found:
                yield Vanished(row.custom_id, ids.public(row.job_id) if row.job_id else None, row.seq)
            after = found[-1].id

    def tally(self, tenant: str, name: str) -> Tally:
        """The corpus in numbers; zeros for one that nobody knows."""
        counts = (func.count(), func.count().filter(OK), func.count(seen.c.vanished_at))
        wanted = select(*counts).where(seen.c.tenant == tenant, seen.c.name == name)
        return Tally(*self._db.read(lambda connection: connection.execute(wanted).one()))

    def names(self, tenant: str) -> builtins.list[str]:
        """The tenant's corpora, by name."""
        wanted = select(seen.c.name).where(seen.c.tenant == tenant).distinct().order_by(seen.c.name)
        return self._db.read(lambda connection: list(connection.scalars(wanted)))

    def forget(self, tenant: str, name: str) -> int:
        """How many items are new again from now on: all of the corpus, in pieces."""
        some = _of(tenant, name, select(seen.c.id)).limit(ROWS_AT_ONCE)
        piece, forgotten = delete(seen).where(seen.c.id.in_(some)), 0
        while deleted := self._db.write(lambda connection: connection.execute(piece).rowcount):
            forgotten += deleted
        return forgotten

    def _page(self, wanted: Select[Any]) -> Sequence[Any]:
        return self._db.read(lambda connection: connection.execute(wanted).all())


def insert(
    database: Database, connection: Connection, tenant: str, job_id: UUID, sightings: Sequence[Sightings]
) -> None:
    """Write down which items a job is about to run, in the transaction that gives it the items."""
    for each in sightings:
        # Twice the same key in one block: unnamed items that are equal. One of them stands for all.
        rows = {row.key: {**row._asdict(), "tenant": tenant, "name": each.name, "job_id": job_id} for row in each.rows}
        new = database.insert(seen)
        replaced = {name: new.excluded[name] for name in ("fingerprint", "custom_id", "job_id", "seq")}
        statement = new.on_conflict_do_update(
            index_elements=["tenant", "name", "key"], set_={**replaced, "vanished_at": None}
        )
        # In one order always, so that two submits to one corpus do not wait for each other in a circle.
        connection.execute(statement, [rows[key] for key in sorted(rows)])


def settle(connection: Connection, job_id: UUID) -> int:
    """Before results of a job are deleted: write down for some of its items whether they are ok. How many that were."""
    mine = select(seen.c.id).where(seen.c.job_id == job_id).order_by(seen.c.seq).limit(ROWS_AT_ONCE)
    found = list(connection.scalars(mine))
    if found:
        # Asked again: an incremental job may have taken them over just now.
        still = seen.c.id.in_(found) & (seen.c.job_id == job_id)
        connection.execute(delete(seen).where(still, ~OK))
        connection.execute(update(seen).where(still).values(job_id=None))
    return len(found)


def _of(tenant: str, name: str, wanted: Select[Any]) -> Select[Any]:
    return wanted.where(seen.c.tenant == tenant, seen.c.name == name)

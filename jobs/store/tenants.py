"""Tenants: what each may do, and what it has in line."""

import builtins
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, select, text

from jobs.errors import InvalidParams, QuotaExceeded
from jobs.schemas import MOST_NAME, Tenant, Used
from jobs.store.dialect import Database
from jobs.store.tables import tenants
from jobs.store.values import NewBlock

_USED = text(
    """
    SELECT coalesce(sum(c.seq_hi - c.seq_lo - c.n_ok - c.n_error), 0) AS items, coalesce(sum(c.cost), 0) AS tokens
    FROM jobs j JOIN chunks c ON c.job_id = j.id
    WHERE j.tenant = :tenant AND j.state IN ('loading', 'queued', 'running')
        AND c.state IN ('held', 'pending', 'running')
    """
)


class Tenants:
    """The tenants that have limits, or another weight than 1."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, name: str) -> Tenant:
        """What the tenant may do; without limits, if nobody ever set any. Raises InvalidParams for what is no name."""
        if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME:
            raise InvalidParams(f"tenant: a name has 1 to {MOST_NAME} characters; given: {name!r:.200}")
        row = self._db.read(lambda connection: _row(connection, name))
        return Tenant(name=name) if row is None else Tenant(**row._mapping)

    def list(self) -> builtins.list[Tenant]:
        """Those that something was set for, by name."""
        wanted = select(tenants).order_by(tenants.c.name)
        return [Tenant(**row._mapping) for row in self._db.read(lambda connection: connection.execute(wanted).all())]

    def put(self, tenant: Tenant) -> None:
        """From now on the tenant may do this; what it has in line already stays."""
        values = tenant.model_dump(mode="json")
        row = self._db.insert(tenants).values(**values)
        stored = row.on_conflict_do_update(index_elements=[tenants.c.name], set_=values)

        def work(connection: Connection) -> None:
            connection.execute(stored)

        self._db.write(work)

    def remove(self, name: str) -> bool:
        """Whether something was set for the tenant; it has no limits any more."""
        gone = delete(tenants).where(tenants.c.name == name)
        return self._db.write(lambda connection: connection.execute(gone).rowcount) == 1

    def used(self, name: str) -> Used:
        """What the tenant has waiting and running."""
        return self._db.read(lambda connection: _used(connection, name))


def admit(connection: Connection, name: str, new: Sequence[NewBlock]) -> None:
    """Let these blocks of a tenant's job in, if its quotas have room for them. Raises QuotaExceeded.

    Submits of one tenant that has quotas wait for each other here, so that two together are not let in where one is.
    """
    limited = tenants.c.max_items.is_not(None) | tenants.c.max_tokens.is_not(None)
    wanted = select(tenants).where(tenants.c.name == name, limited)
    row = connection.execute(wanted.with_for_update()).one_or_none()
    if row is None:
        return
    used = _used(connection, name)
    for what, most, now, more in (
        ("items", row.max_items, used.items, sum(block.n_items for block in new)),
        ("estimated tokens", row.max_tokens, used.tokens, sum(chunk.cost for block in new for chunk in block.chunks)),
    ):
        if most is not None and now + more > most:
            raise QuotaExceeded(
                f"tenant {name!r} may have {most:,} {what} in line; it has {now:,}, and these would be {more:,} more"
            )


def weight(connection: Connection, name: str) -> float:
    """The tenant's share of the work beside other tenants."""
    found = connection.execute(select(tenants.c.weight).where(tenants.c.name == name)).scalar_one_or_none()
    return 1.0 if found is None else float(found)


def _row(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(tenants).where(tenants.c.name == name)).one_or_none()


def _used(connection: Connection, name: str) -> Used:
    items, tokens = connection.execute(_USED, {"tenant": name}).one()
    return Used(items=int(items), tokens=int(tokens))

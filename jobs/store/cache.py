"""Outputs that are used again: those of deterministic requests, by fingerprint, each tenant's for itself."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, select, update

from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.tables import cache

TOUCHED_S = 600.0
"""A use is noted unless one was so lately: the order in which entries go need not be finer, and reading stays cheap."""
ROWS_AT_ONCE = 500
ROW_BYTES = 200
"""What a row takes beside its output, with its places in the indexes."""


class Cached(NamedTuple):
    """An output as results have it."""

    output: str | None
    vector: bytes | None
    tokens_in: int
    tokens_out: int
    truncated_tokens: int
    windows: int


_COLUMNS = [cache.c[name] for name in ("fingerprint", *Cached._fields)]
_OLD = (cache.c.used_at < later(-TOUCHED_S)).label("old")
_ENTRY = (cache.c.tenant == bindparam("of")) & (cache.c.fingerprint == bindparam("which"))


class Cache:
    """The cache of all tenants. Bounded by whoever calls `evict`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, tenant: str, fingerprints: Sequence[bytes]) -> dict[bytes, Cached]:
        """Those of the outputs that are there."""
        mine = (cache.c.tenant == tenant) & cache.c.fingerprint.in_(fingerprints)
        found = self._db.read(lambda connection: connection.execute(select(*_COLUMNS, _OLD).where(mine)).all())
        if any(row.old for row in found):
            used = update(cache).where(mine, cache.c.used_at < later(-TOUCHED_S)).values(used_at=now())
            self._db.relaxed(lambda connection: connection.execute(used))
        return {bytes(row[0]): Cached(*row[1:-1]) for row in found}

    def put(self, tenant: str, outputs: Mapping[bytes, Cached]) -> None:
        """Keep these outputs; one that is there already is left alone."""
        rows = [
            {**cached._asdict(), "tenant": tenant, "fingerprint": fingerprint, "bytes": _size(cached)}
            for fingerprint, cached in sorted(outputs.items())
        ]
        new = self._db.insert(cache).values(used_at=now()).on_conflict_do_nothing()
        for at in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[at : at + ROWS_AT_ONCE]
            self._db.relaxed(lambda connection, some=some: connection.execute(new, some))  # type: ignore[misc]

    def size(self) -> int:
        """Bytes of all of it."""
        total = select(func.coalesce(func.sum(cache.c.bytes), 0))
        return int(self._db.read(lambda connection: connection.scalar(total)) or 0)

    def evict(self, over: int) -> int:
        """Take away what was used least lately, about `over` bytes of it but only a piece; how many bytes that were."""

        def work(connection: Connection) -> int:
            oldest = select(cache.c.tenant, cache.c.fingerprint, cache.c.bytes).order_by(cache.c.used_at)
            found = connection.execute(oldest.limit(ROWS_AT_ONCE).with_for_update(skip_locked=True)).all()
            gone, freed = [], 0
            for row in found:
                if freed >= over:
                    break
                gone.append({"of": row.tenant, "which": row.fingerprint})
                freed += row.bytes
            if gone:
                connection.execute(delete(cache).where(_ENTRY), gone)
            return freed

        return self._db.write(work) if over > 0 else 0


def _size(cached: Cached) -> int:
    return ROW_BYTES + len((cached.output or "").encode()) + len(cached.vector or b"")

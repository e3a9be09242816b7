"""API keys. A key is shown once, when it is made; the table has its SHA-256, which 256 random bits make enough."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, func, or_, select, update

from jobs.errors import UnknownKey
from jobs.schemas import Key, Scope
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.tables import keys

SECRET_PREFIX = "tm_"
_IN_FORCE = keys.c.revoked_at.is_(None) & or_(keys.c.expires_at.is_(None), keys.c.expires_at > now())


class Keys:
    """Who may use the HTTP API."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(
        self, tenant: str, name: str, scopes: Sequence[Scope], *, expires_at: datetime | None = None
    ) -> tuple[Key, str]:
        """The new key, and its secret, which nobody can look up again."""
        secret = SECRET_PREFIX + secrets.token_urlsafe(32)
        values = {
            "id": f"key_{secrets.token_hex(8)}",
            "tenant": tenant,
            "name": name,
            "digest": _digest(secret),
            "scopes": sorted(set(scopes)),
            "expires_at": expires_at,
        }
        made = self._db.insert(keys).values(**values, created_at=now()).returning(*_COLUMNS)
        return _key(self._db.write(lambda connection: connection.execute(made).one())), secret

    def find(self, secret: str) -> Key | None:
        """The key of this secret, if it is in force."""
        wanted = select(*_COLUMNS).where(keys.c.digest == _digest(secret), _IN_FORCE)
        row = self._db.read(lambda connection: connection.execute(wanted).one_or_none())
        return None if row is None else _key(row)

    def list(self, tenant: str | None = None) -> list[Key]:
        """The keys of a tenant, or all, revoked ones too, the oldest first."""
        wanted = select(*_COLUMNS).order_by(keys.c.created_at, keys.c.id)
        if tenant is not None:
            wanted = wanted.where(keys.c.tenant == tenant)
        return [_key(row) for row in self._db.read(lambda connection: connection.execute(wanted).all())]

    def revoke(self, key_id: str, tenant: str | None = None) -> Key:
        """The key, of no use from now on. Safe to repeat. Raises UnknownKey, also for one of another tenant."""
        which = keys.c.id == key_id
        if tenant is not None:
            which &= keys.c.tenant == tenant
        revoked = update(keys).where(which).values(revoked_at=func.coalesce(keys.c.revoked_at, now()))
        row = self._db.write(lambda connection: connection.execute(revoked.returning(*_COLUMNS)).one_or_none())
        if row is None:
            raise UnknownKey(f"no key {key_id[:100]!r}")
        return _key(row)

    def any(self) -> bool:
        """Whether a key was ever made: from then on the API asks for one."""
        return self._db.read(lambda connection: connection.execute(select(keys.c.id).limit(1)).first()) is not None


_COLUMNS = [column for column in keys.c if column.name != "digest"]


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _key(row: Row[Any]) -> Key:
    return Key(**row._mapping)

"""Uploaded files: what they are called and whose they are. Their bytes lie elsewhere (`jobs.api.openai.storage`)."""

import builtins
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, or_, select

from jobs.errors import UnknownFile
from jobs.store import ids
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.tables import files

LEAST_KEPT_S, MOST_KEPT_S = 3600, 2_592_000
"""What a caller may say of how long a file is kept."""


class FileRow(NamedTuple):
    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int
    created_at: datetime
    expires_at: datetime | None
    parts: list[str] | None
    """The parts of the upload that it is read from, in order. None: it came whole."""

    @property
    def names(self) -> list[str]:
        """Under which its bytes lie, in order."""
        return [self.id] if self.parts is None else self.parts


_COLUMNS = [files.c[name] for name in FileRow._fields]
_THERE = or_(files.c.expires_at.is_(None), files.c.expires_at > now())


def new_file_id() -> str:
    """Sorts by time."""
    return f"file-{ids.new_id().hex}"


class Files:
    """The files of all tenants."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(
        self, file_id: str, tenant: str, *, purpose: str, filename: str, size: int, expires_at: datetime | None = None
    ) -> FileRow:
        """The new file; its bytes are there already."""
        values = {"id": file_id, "tenant": tenant, "purpose": purpose, "filename": filename}
        made = self._db.insert(files).values(**values, bytes=size, expires_at=expires_at, created_at=now())
        return FileRow._make(self._db.write(lambda connection: connection.execute(made.returning(*_COLUMNS)).one()))

    def get(self, file_id: str, tenant: str) -> FileRow:
        """Raises UnknownFile, also for a file of another tenant, or an expired one."""
        wanted = select(*_COLUMNS).where(files.c.id == file_id, files.c.tenant == tenant, _THERE)
        row = self._db.read(lambda connection: connection.execute(wanted).one_or_none())
        if row is None:
            raise UnknownFile(f"no file {file_id[:100]!r}")
        return FileRow._make(row)

    def list(
        self, tenant: str, *, purpose: str | None, limit: int, after: str | None, newest_first: bool = True
    ) -> list[FileRow]:
        """A page, behind the id `after`."""
        order: Any = files.c.id.desc() if newest_first else files.c.id
        wanted = select(*_COLUMNS).where(files.c.tenant == tenant, _THERE).order_by(order).limit(limit)
        if purpose is not None:
            wanted = wanted.where(files.c.purpose == purpose)
        if after is not None:
            wanted = wanted.where(files.c.id < after if newest_first else files.c.id > after)
        return [FileRow._make(row) for row in self._db.read(lambda connection: connection.execute(wanted).all())]

    def delete(self, file_id: str, tenant: str) -> None:
        """Raises UnknownFile."""
        gone = delete(files).where(files.c.id == file_id, files.c.tenant == tenant)
        if not self._db.write(lambda connection: connection.execute(gone).rowcount):
            raise UnknownFile(f"no file {file_id[:100]!r}")

    def expired(self, limit: int) -> builtins.list[FileRow]:
        """Files whose time is over, of all tenants."""
        wanted = select(*_COLUMNS).where(files.c.expires_at <= now()).limit(limit)
        return [FileRow._make(row) for row in self._db.read(lambda connection: connection.execute(wanted).all())]

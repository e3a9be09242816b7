"""Uploads that arrive in parts: what is there of each, and the files they become. The parts' bytes lie elsewhere."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import BigInteger, Connection, cast, delete, exists, func, or_, select, update

from jobs.errors import InvalidInput, InvalidState, UnknownUpload, WrongOffset
from jobs.store import ids
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.files import new_file_id
from jobs.store.tables import files, parts, uploads

MOST_PARTS = 65_536
"""Of one upload: 1 TiB in pieces of 16 MiB."""
KEPT_S = 86_400.0
"""How long after its time an upload that has ended still says so."""
TOGETHER = 1000
"""Ids in one statement."""
_ID = re.compile(r"upload_[0-9a-f]{32}")


class UploadRow(NamedTuple):
    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int
    """How many there will be."""
    metadata: str | None
    """What the caller said of it, as it was said."""
    keep_s: int | None
    """How long its file will be kept; None: until it is deleted."""
    created_at: datetime
    expires_at: datetime
    """Later with each part."""
    completed_at: datetime | None
    cancelled_at: datetime | None
    file_id: str | None
    expired: bool
    received: int
    """Bytes of parts that are no file's."""
    n_parts: int

    @property
    def state(self) -> Literal["pending", "completed", "cancelled", "expired"]:
        if self.cancelled_at is not None:
            return "cancelled"
        if self.completed_at is not None:
            return "completed"
        return "expired" if self.expired else "pending"

    @property
    def offset(self) -> int:
        """Where the next byte belongs."""
        return self.received if self.completed_at is None else self.bytes

    def check_pending(self) -> None:
        """Raises InvalidState unless more of it may come."""
        if self.state != "pending":
            raise InvalidState(f"upload {self.id} is {self.state}: nothing more can be done with it")


class PartRow(NamedTuple):
    id: str
    upload_id: str
    created_at: datetime


_OWN = parts.c.upload_id == uploads.c.id
_SUM = cast(func.coalesce(func.sum(parts.c.bytes), 0), BigInteger)
_COMPUTED = {
    "expired": uploads.c.expires_at <= now(),
    "received": select(_SUM).where(_OWN).scalar_subquery(),
    "n_parts": select(func.count()).select_from(parts).where(_OWN).scalar_subquery(),
}
_COLUMNS: list[Any] = [
    _COMPUTED[name].label(name) if name in _COMPUTED else uploads.c[name] for name in UploadRow._fields
]
_OPEN = uploads.c.completed_at.is_(None) & uploads.c.cancelled_at.is_(None) & (uploads.c.expires_at > now())
_ENDED = or_(uploads.c.completed_at.is_not(None), uploads.c.cancelled_at.is_not(None), uploads.c.expires_at <= now())


def new_part_id() -> str:
    return f"part_{ids.new_id().hex}"


class Uploads:
    """The uploads of all tenants. Nobody loses a byte to somebody else: whoever adds to an upload has it to himself."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(
        self,
        tenant: str,
        *,
        purpose: str,
        filename: str,
        size: int,
        live_s: float,
        metadata: str | None = None,
        keep_s: int | None = None,
    ) -> UploadRow:
        """A new upload, which expires when nothing is added to it for `live_s`."""
        upload_id = f"upload_{ids.new_id().hex}"
        values = {"id": upload_id, "tenant": tenant, "purpose": purpose, "filename": filename, "bytes": size}
        made = self._db.insert(uploads).values(**values, metadata=metadata, keep_s=keep_s)
        made = made.values(created_at=now(), expires_at=later(live_s)).on_conflict_do_nothing()

        def work(connection: Connection) -> UploadRow:
            connection.execute(made)
            return _read(connection, upload_id)

        return self._db.write(work)

    def get(self, upload_id: str, tenant: str) -> UploadRow:
        """Raises UnknownUpload, also for one of another tenant."""
        found = self._db.read(lambda connection: _read(connection, upload_id)) if _ID.fullmatch(upload_id) else None
        if found is None or found.tenant != tenant:
            raise UnknownUpload(f"no upload {upload_id[:100]!r}")
        return found

    def parts(self, upload_id: str) -> dict[str, int]:
        """The bytes of each part, in the order in which they came."""
        wanted = select(parts.c.id, parts.c.bytes).where(parts.c.upload_id == upload_id).order_by(parts.c.position)
        rows = self._db.read(lambda connection: connection.execute(wanted).all())
        return {row.id: row.bytes for row in rows}

    def add(self, upload_id: str, part_id: str, size: int, *, most: int, live_s: float) -> PartRow:
        """Count a part whose bytes are there; `complete` says which parts make the file.

        Raises InvalidState when the upload has ended, InvalidInput above `most` bytes together.
        """

        def work(connection: Connection) -> PartRow:
            upload = _locked(connection, upload_id)
            if not _has(connection, upload, part_id):
                if upload.received + size > most:
                    raise InvalidInput(f"the parts have more than {most:,} bytes together (setting max_job_bytes)")
                self._put(connection, upload, part_id, size, live_s)
            wanted = select(parts.c.id, parts.c.upload_id, parts.c.created_at).where(parts.c.id == part_id)
            return PartRow._make(connection.execute(wanted).one())

        return self._db.write(work)

    def append(self, upload_id: str, part_id: str, size: int, *, at: int, live_s: float) -> UploadRow:
        """Count a part whose bytes are there and begin at byte `at`. The upload's last byte makes it a file.

        Raises WrongOffset when other bytes belong there, InvalidState when the upload has ended.
        """

        def work(connection: Connection) -> UploadRow:
            upload = _locked(connection, upload_id)
            if not _has(connection, upload, part_id):
                check_offset(upload, at)
                self._put(connection, upload, part_id, size, live_s)
                if at + size == upload.bytes:
                    self._complete(connection, upload, _in_order(connection, upload_id))
            return _read(connection, upload_id)

        return self._db.write(work)

    def complete(self, upload_id: str, part_ids: Sequence[str]) -> UploadRow:
        """Make the parts, which are the upload's and as long together as was said, a file in this order.

        Safe to repeat with the same parts. Raises InvalidState when the upload has ended.
        """

        def work(connection: Connection) -> UploadRow:
            upload = _locked(connection, upload_id)
            if upload.state != "completed" or _of_file(connection, upload) != [*part_ids]:
                upload.check_pending()
                self._complete(connection, upload, part_ids)
            return _read(connection, upload_id)

        return self._db.write(work)

    def cancel(self, upload_id: str) -> UploadRow:
        """Let nothing more come. Safe to repeat. Raises InvalidState when the upload is a file, or has expired."""

        def work(connection: Connection) -> UploadRow:
            upload = _locked(connection, upload_id)
            if upload.state != "cancelled":
                upload.check_pending()
                connection.execute(update(uploads).where(uploads.c.id == upload_id).values(cancelled_at=now()))
            return _read(connection, upload_id)

        return self._db.write(work)

    def withdraw(self, upload_id: str) -> None:
        """Cancel it whatever became of it; if it is a file, that is gone too."""

        def work(connection: Connection) -> None:
            upload = _locked(connection, upload_id)
            connection.execute(update(uploads).where(uploads.c.id == upload_id).values(cancelled_at=now()))
            connection.execute(update(files).where(files.c.id == upload.file_id).values(expires_at=now()))

        self._db.write(work)

    def left_over(self, limit: int) -> list[str]:
        """Parts of uploads that have ended, of which no file is read: their bytes are to go, then `forget`."""
        wanted = select(parts.c.id).join(uploads, _OWN).where(_ENDED).limit(limit)
        return [*self._db.read(lambda connection: connection.execute(wanted).scalars())]

    def forget(self, part_ids: Sequence[str]) -> None:
        """These parts' bytes are gone."""
        self._db.write(lambda connection: _delete(connection, part_ids))

    def sweep(self) -> None:
        """Delete uploads that ended so long ago that nobody asks for them."""
        old = delete(uploads).where(uploads.c.expires_at <= later(-KEPT_S), ~exists().where(_OWN))
        self._db.write(lambda connection: connection.execute(old))

    def _put(self, connection: Connection, upload: UploadRow, part_id: str, size: int, live_s: float) -> None:
        upload.check_pending()
        if upload.n_parts >= MOST_PARTS:
            raise InvalidInput(f"upload {upload.id} has {MOST_PARTS:,} parts already; send larger ones")
        values = {"id": part_id, "upload_id": upload.id, "position": upload.received, "bytes": size}
        connection.execute(self._db.insert(parts).values(**values, created_at=now()))
        connection.execute(update(uploads).where(uploads.c.id == upload.id).values(expires_at=later(live_s)))

    def _complete(self, connection: Connection, upload: UploadRow, part_ids: Sequence[str]) -> None:
        values = {"id": new_file_id(), "tenant": upload.tenant, "purpose": upload.purpose, "filename": upload.filename}
        expires_at = None if upload.keep_s is None else later(upload.keep_s)
        made = self._db.insert(files).values(**values, bytes=upload.bytes, parts=[*part_ids])
        connection.execute(made.values(created_at=now(), expires_at=expires_at))
        ended = update(uploads).where(uploads.c.id == upload.id)
        connection.execute(ended.values(completed_at=now(), file_id=values["id"]))
        _delete(connection, part_ids)


def check_offset(upload: UploadRow, at: int) -> None:
    """Raises WrongOffset unless byte `at` is the next one."""
    if at != upload.offset:
        raise WrongOffset(f"upload {upload.id} goes on at byte {upload.offset:,}, not at {at:,}")


def _read(connection: Connection, upload_id: str) -> UploadRow:
    row = connection.execute(select(*_COLUMNS).where(uploads.c.id == upload_id)).one_or_none()
    if row is None:
        raise UnknownUpload(f"no upload {upload_id!r}")
    return UploadRow._make(row)


def _locked(connection: Connection, upload_id: str) -> UploadRow:
    """The upload, which nobody else changes until the transaction ends."""
    connection.execute(select(uploads.c.id).where(uploads.c.id == upload_id).with_for_update())
    # A statement of its own: the one that waited for the lock sees the parts as they were before.
    return _read(connection, upload_id)


def _has(connection: Connection, upload: UploadRow, part_id: str) -> bool:
    """Whether the part counts already: the answer to a commit may have been lost."""
    if upload.file_id is not None:
        return part_id in _of_file(connection, upload)
    return connection.execute(select(parts.c.id).where(parts.c.id == part_id)).one_or_none() is not None


def _of_file(connection: Connection, upload: UploadRow) -> list[str]:
    """The parts of the file that the upload is; none if that is deleted."""
    return connection.execute(select(files.c.parts).where(files.c.id == upload.file_id)).scalar_one_or_none() or []


def _in_order(connection: Connection, upload_id: str) -> list[str]:
    wanted = select(parts.c.id).where(parts.c.upload_id == upload_id).order_by(parts.c.position)
    return [*connection.execute(wanted).scalars()]


def _delete(connection: Connection, part_ids: Sequence[str]) -> None:
    for at in range(0, len(part_ids), TOGETHER):
        connection.execute(delete(parts).where(parts.c.id.in_(part_ids[at : at + TOGETHER])))

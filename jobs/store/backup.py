"""A copy of a SQLite database that is in use. PostgreSQL has tools of its own."""

import os
import secrets
from pathlib import Path

from jobs.errors import InvalidState, UsageError
from jobs.store.dialect import Database

PG_DUMP = "pg_dump --format=custom --file=textmill.dump URL, and pg_restore --dbname=URL textmill.dump"


def backup(database: Database, target: Path) -> None:
    """Write all that is committed now to a new file; it is there under its name only when whole, and on disk.

    Writers go on meanwhile. Raises InvalidState on PostgreSQL and UsageError for a file that exists; OSError.
    """
    if database.dialect != "sqlite":
        raise InvalidState(f"a PostgreSQL database is copied by its own tools: {PG_DUMP}")
    if target.exists():
        raise UsageError(f"{target} exists; a backup is written to a new file")
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        # VACUUM INTO reads in one transaction, which in WAL mode keeps nobody waiting.
        database.read(lambda connection: connection.exec_driver_sql("VACUUM INTO ?", (str(part),)))
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)

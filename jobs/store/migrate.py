"""Brings a database to this code's revision, and says when it is at another."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Connection

from jobs.errors import SchemaOutdated
from jobs.store.dialect import Database

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0016"
"""The newest revision in `migrations/versions`; written here so that a producer need not load Alembic."""

_LOCK = 0x7E87_4111
"""Key of the advisory lock that lets one upgrade at a time through."""

STEP_S = 900.0
"""How long one step of a migration may take, waiting for others included."""


def folder() -> Path:
    """Where the migrations lie: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def revision(database: Database) -> str | None:
    """The database's revision; None if it was never migrated."""

    def look(connection: Connection) -> str | None:
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(sqlalchemy.text("SELECT version_num FROM alembic_version"))
        return found

    return database.read(look)


def check(database: Database) -> None:
    """Raises SchemaOutdated unless the database is at this code's revision."""
    found = revision(database)
    if found != HEAD:
        raise SchemaOutdated(
            f"the database is at revision {found or 'none'}, this code wants {HEAD}; run `textmill db upgrade`"
            " with the newer of the two"
        )


def upgrade(database: Database) -> None:
    """Apply what is missing, in one transaction. Safe to repeat, and for several processes at once.

    Raises SchemaOutdated when the database is at a revision that this code does not know: it is the older one.
    """
    from alembic import command
    from alembic.util import CommandError

    def apply(connection: Connection) -> None:
        if database.dialect == "postgresql":
            for name in ("lock_timeout", "statement_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {name} = '{STEP_S:.0f}s'")
            driver: Any = connection.connection.driver_connection
            driver.answer_s = STEP_S + 10
            connection.detach()  # from the pool: such patience is for nothing else
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        settings = config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, "head")

    try:
        database.write(apply)
    except CommandError as error:
        raise SchemaOutdated(f"the database cannot be upgraded by this code, which knows {HEAD}: {error}") from error


def config() -> "Config":
    """Alembic's configuration, without a file."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(folder()).replace("%", "%%"))
    return made

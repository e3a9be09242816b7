"""Persistence: everything that is true of jobs lies in SQL, and every public method here is one transaction."""

from pathlib import Path

from jobs.store import backup, checks, figures, migrate, sessions
from jobs.store.batches import Batches
from jobs.store.cache import Cache
from jobs.store.chunks import Chunks
from jobs.store.dialect import Database
from jobs.store.exports import Exports
from jobs.store.files import Files
from jobs.store.insight import Insight
from jobs.store.jobs import Jobs
from jobs.store.keys import Keys
from jobs.store.leaders import Leaders
from jobs.store.models import Models
from jobs.store.overview import Overview
from jobs.store.results import Results
from jobs.store.retention import Retention
from jobs.store.retries import Retries
from jobs.store.schedules import Schedules
from jobs.store.seen import Seen
from jobs.store.supervision import Supervision
from jobs.store.tenants import Tenants
from jobs.store.uploads import Uploads
from jobs.store.webhooks import Webhooks
from jobs.store.workers import Workers

__all__ = ["Store"]

LEAST_ANSWER_S = 2.0
"""A busy machine may need so long for a claim."""


class Store:
    """A database of jobs, PostgreSQL or SQLite; may be shared by threads, not by forked processes.

    Any method raises StoreUnavailable when the database does not answer, and SchemaOutdated when its tables are not
    there. All are safe to repeat.
    """

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._db = database
        self.jobs = Jobs(database)
        self.chunks = Chunks(database, lease_s=lease_s)
        self.results = Results(database)
        self.supervision = Supervision(database)
        self.retention = Retention(database)
        self.retries = Retries(database, self.jobs, self.results)
        self.seen = Seen(database)
        self.cache = Cache(database)
        self.leaders = Leaders(database)
        self.workers = Workers(database)
        self.models = Models(database)
        self.keys = Keys(database)
        self.files = Files(database)
        self.exports = Exports(database)
        self.uploads = Uploads(database)
        self.batches = Batches(database)
        self.tenants = Tenants(database)
        self.schedules = Schedules(database)
        self.webhooks = Webhooks(database)
        self.overview = Overview(database)
        self.insight = Insight(database, self.jobs, self.results)

    @classmethod
    def open(cls, url: str, *, lease_s: float = 60.0) -> "Store":
        """The store at this URL. A SQLite file is made and upgraded; PostgreSQL waits for `upgrade`."""
        # Renewals come every third of a lease: an answer that takes longer is of no use any more.
        store = cls(Database(url, relaxed_answer_s=max(LEAST_ANSWER_S, lease_s / 3)), lease_s=lease_s)
        if store.dialect == "sqlite" and store.revision() != migrate.HEAD:
            store.upgrade()
        return store

    @property
    def dialect(self) -> str:
        """`postgresql` or `sqlite`."""
        return self._db.dialect

    def close(self) -> None:
        """Close every connection; those in use, as soon as their work is done. Later work raises StoreUnavailable."""
        self._db.close()

    def revision(self) -> str | None:
        """The revision the database is at; None if it is empty."""
        return migrate.revision(self._db)

    def upgrade(self) -> None:
        """Bring the database to this code's revision. Safe to repeat and to do at once."""
        migrate.upgrade(self._db)

    def check_schema(self) -> None:
        """Raises SchemaOutdated unless the database is at this code's revision."""
        migrate.check(self._db)

    def end_idle_sessions(self, older_s: float) -> list[sessions.IdleSession]:
        """Sessions idle in a transaction for so long, which slow every claim; ended where the role may (PostgreSQL)."""
        return sessions.end_idle(self._db, older_s)

    def check_room(self) -> None:
        """Raises StoreUnavailable when PostgreSQL's disk is full."""
        checks.room(self._db)

    def figures(self) -> figures.Figures:
        """Jobs by state and what is ready in each queue, for those who watch a deployment."""
        return figures.read(self._db)

    def backup(self, target: Path) -> None:
        """Copy a SQLite database, in use or not, to a new file. Raises InvalidState, UsageError, OSError."""
        backup.backup(self._db, target)

    def check(self) -> list[str]:
        """What is wrong with the rows, in words; empty when all is well."""
        return checks.check(self._db)

"""Sessions of other programs on PostgreSQL that forgot to end their transaction.

What changed since their snapshot must be kept for them, so that every claim walks past each chunk taken since.
"""

from typing import NamedTuple

from jobs.store.dialect import Database

# A role may end the sessions of the roles it is a member of; a superuser all.
_END = """
    SELECT pid, usename, application_name, extract(epoch FROM clock_timestamp() - state_change) AS idle_s,
        CASE WHEN pg_has_role(usesysid, 'USAGE') THEN pg_terminate_backend(pid) ELSE false END AS ended
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'
        AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
        AND state_change < clock_timestamp() - make_interval(secs => :older_s)
"""


class IdleSession(NamedTuple):
    """A session that was idle in a transaction, and whether it could be ended."""

    pid: int
    user: str
    program: str
    idle_s: float
    ended: bool


def end_idle(database: Database, older_s: float) -> list[IdleSession]:
    """The sessions that have been idle in a transaction for so long; ended, where the role may."""
    if database.dialect != "postgresql":
        return []
    found = database.read(lambda connection: connection.execute(database.sql(_END), {"older_s": older_s}).all())
    return [IdleSession(row.pid, row.usename, row.application_name, float(row.idle_s), row.ended) for row in found]

"""What must be true of every database, also of one that is being worked on: `textmill db check`.

Each rule is one statement, which sees the rows as they are at one moment. Jobs that are being deleted are left out.
"""

from sqlalchemy import Connection

from jobs.store.dialect import Database

MOST = 20
"""Violations named for each rule; there may be more."""

RULES = {
    "job {0}: {1} items, and {2} results": """
        SELECT id, n_items, found FROM (
            SELECT id, n_items, (SELECT count(*) FROM results WHERE results.job_id = jobs.id) AS found FROM jobs
            WHERE state = 'completed' AND expires_at IS NULL) AS counts
        WHERE n_items <> found
    """,
    "job {0}: the result of item {1} is of no item": """
        SELECT results.job_id, results.seq FROM results LEFT JOIN jobs ON jobs.id = results.job_id
        WHERE jobs.id IS NULL OR (jobs.sealed_at IS NOT NULL AND results.seq >= jobs.n_items)
    """,
    "job {0}: its chunks count {1} results, and there are {2}": """
        SELECT id, counted, found FROM (
            SELECT jobs.id,
                (SELECT coalesce(sum(n_ok + n_error), 0) FROM chunks WHERE chunks.job_id = jobs.id) AS counted,
                (SELECT count(*) FROM results WHERE results.job_id = jobs.id) AS found
            FROM jobs WHERE expires_at IS NULL) AS counts
        WHERE counted <> found
    """,
    "job {0} is {1}, and its chunk {2} is {3}": """
        SELECT jobs.id, jobs.state, chunks.id, chunks.state FROM jobs JOIN chunks ON chunks.job_id = jobs.id
        WHERE jobs.state IN ('completed', 'failed', 'expired', 'cancelled')
            AND chunks.state IN ('held', 'pending', 'running')
    """,
    "job {0} is paused, and its chunk {1} is pending": """
        SELECT jobs.id, chunks.id FROM jobs JOIN chunks ON chunks.job_id = jobs.id
        WHERE jobs.control = 'pause' AND chunks.state = 'pending'
    """,
    "job {0}: its chunks cover {1} of {2} items": """
        SELECT id, covered, n_items FROM (
            SELECT jobs.id, jobs.n_items, (SELECT coalesce(sum(seq_hi - seq_lo), 0) FROM chunks
                WHERE chunks.job_id = jobs.id AND chunks.state <> 'split') AS covered
            FROM jobs WHERE jobs.sealed_at IS NOT NULL AND jobs.expires_at IS NULL) AS spans
        WHERE covered <> n_items
    """,
    "job {0} has ended work alone, and nobody has finished it for a minute": """
        SELECT id FROM jobs WHERE state IN ('queued', 'running') AND sealed_at < {minute_ago} AND NOT EXISTS (
            SELECT 1 FROM chunks WHERE chunks.job_id = jobs.id
                AND (state IN ('held', 'pending', 'running') OR finished_at > {minute_ago}))
    """,
    "chunk {0} is {1} and holds a lease": """
        SELECT id, state FROM chunks WHERE state <> 'running' AND lease_until IS NOT NULL
    """,
}
"""A message for each rule, and the query that finds what breaks it."""


_MAY_TRY = "SELECT has_database_privilege(current_database(), 'TEMPORARY')"
_ROOM = """
    CREATE TEMPORARY TABLE textmill_room ON COMMIT DROP AS SELECT md5(n::text) FROM generate_series(1, 16384) AS n
"""
"""A megabyte, where the database lies."""


def room(database: Database) -> None:
    """Raises StoreUnavailable when PostgreSQL's disk has no room for a megabyte. SQLite's is any folder's."""

    def work(connection: Connection) -> None:
        if connection.exec_driver_sql(_MAY_TRY).scalar():
            connection.exec_driver_sql(_ROOM)

    if database.dialect == "postgresql":
        database.write(work)


def check(database: Database) -> list[str]:
    """What is wrong with the rows, in words; empty when all is well."""
    found: list[str] = []
    for message, query in RULES.items():
        limited = database.sql(f"{query} LIMIT {MOST}")
        rows = database.read(lambda connection, limited=limited: connection.execute(limited).all())  # type: ignore[misc]
        found += [message.format(*row) for row in rows]
    return found

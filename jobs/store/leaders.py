"""One holder a role at a time, for as long as it renews: who does upkeep."""

import secrets

from sqlalchemy import Connection, delete, or_, update

from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.tables import leaders


class Leaders:
    """Leadership by role. A holder that stops renewing is replaced after its time."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def acquire(self, role: str, holder: str, ttl_s: float) -> str | None:
        """A token, if the role is free or was this holder's already; None while another has it."""
        token = secrets.token_hex(16)
        mine = {"holder": holder, "token": token, "until": later(ttl_s)}
        row = self._db.insert(leaders).values(role=role, **mine)
        taken = row.on_conflict_do_update(
            index_elements=[leaders.c.role],
            set_=mine,
            where=or_(leaders.c.until < now(), leaders.c.holder == holder),
        ).returning(leaders.c.token)
        held: str | None = self._db.write(lambda connection: connection.scalar(taken))
        return held

    def renew(self, role: str, token: str, ttl_s: float) -> bool:
        """Whether the role is still this token's, and now for `ttl_s` more."""
        renewed = update(leaders).where(leaders.c.role == role, leaders.c.token == token).values(until=later(ttl_s))
        return self._db.relaxed(lambda connection: connection.execute(renewed).rowcount) == 1

    def release(self, role: str, token: str) -> None:
        """Make the role free at once, if it is still this token's."""
        gone = delete(leaders).where(leaders.c.role == role, leaders.c.token == token)

        def work(connection: Connection) -> None:
            connection.execute(gone)

        self._db.write(work)

"""The claim: which pending chunks a free worker takes, decided in SQL at the moment it is free.

head     the first pending chunk of the queue, by priority, turn, id
near     for each model the worker has loaded, its first chunk of that priority whose turn is within patience
chosen   the nearest of `near`, else the head: it decides the model
picked   the chosen model's next chunks; a suspect (one that crashed a worker) is taken alone
cut      those that a running sum of cost and items lets in
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, TextClause

from jobs.store.dialect import Database

MOST_CHUNKS = 64
"""Chunks one claim looks at: PostgreSQL locks them all, so that more would be in the way of other claims."""

PATIENCE = 2.0
"""How far a loaded model may go ahead of its turn, in look-aheads (the claim's cost)."""


class Wish(NamedTuple):
    """What a worker asks for."""

    worker_id: str
    queue: str
    cost: int
    items: int
    loaded: Sequence[str]
    lease_s: float
    token: str


_PENDING = "c.state = 'pending' AND c.queue = :queue AND (c.not_before IS NULL OR c.not_before <= {now})"
_ORDER = "ORDER BY c.queue, c.priority DESC, c.turn, c.id"
# With this order models are compared by BETWEEN x AND x, not by =, because then only the index by model gives it:
# without good statistics the planner takes two equalities for one row, and walks the whole queue for the model.
_MODEL_ORDER = "ORDER BY c.queue, c.model, c.priority DESC, c.turn, c.id"

_TAKE = """
    UPDATE chunks SET state = 'running', attempt = attempt + 1, not_before = NULL, worker_id = :worker_id,
        lease_token = :token, lease_s = :lease_s, lease_until = {later}, started_at = coalesce(started_at, {now})
"""
_TAKEN = """
    RETURNING chunks.id, chunks.job_id, chunks.block_id, chunks.seq_lo, chunks.seq_hi, chunks.cost, chunks.tenant,
        chunks.model, chunks.priority, chunks.turn, chunks.attempt, chunks.crashes, chunks.errors, chunks.suspects,
        (SELECT blocks.seq_lo FROM blocks WHERE blocks.id = chunks.block_id) AS block_lo,
        (SELECT jobs.state FROM jobs WHERE jobs.id = chunks.job_id) AS job_state
"""

_POSTGRESQL = f"""
WITH head AS MATERIALIZED (
    SELECT c.id, c.model, c.priority, c.turn, c.crashes FROM chunks c
    WHERE {_PENDING} {_ORDER} LIMIT 1 {{skip_c}}
), near AS MATERIALIZED (
    SELECT first.* FROM head CROSS JOIN unnest(CAST(:loaded AS text[])) AS loaded(model) CROSS JOIN LATERAL (
        SELECT c.id, c.model, c.priority, c.turn, c.crashes FROM chunks c
        WHERE {_PENDING} AND c.model BETWEEN loaded.model AND loaded.model
        {_MODEL_ORDER} LIMIT 1 {{skip_c}}) AS first
    WHERE first.priority = head.priority AND first.turn <= head.turn + :patience
), chosen AS MATERIALIZED (
    SELECT * FROM (SELECT near.*, 0 AS rank FROM near UNION ALL SELECT head.*, 1 FROM head) AS candidates
    ORDER BY rank, turn, id LIMIT 1
), picked AS MATERIALIZED (
    SELECT next.* FROM chosen CROSS JOIN LATERAL (
        SELECT c.id, c.cost, c.seq_hi - c.seq_lo AS items, c.priority, c.turn FROM chunks c
        WHERE {_PENDING} AND c.model BETWEEN chosen.model AND chosen.model AND chosen.crashes = 0 AND c.crashes = 0
        {_MODEL_ORDER} LIMIT {MOST_CHUNKS} {{skip_c}}) AS next
), cut AS MATERIALIZED (
    SELECT id FROM (
        SELECT id, sum(cost) OVER line - cost AS cost_before, sum(items) OVER line - items AS items_before
        FROM picked WINDOW line AS (ORDER BY priority DESC, turn, id)) AS summed
    WHERE cost_before < :cost AND items_before < :items
    UNION ALL SELECT id FROM chosen WHERE crashes > 0
)
{_TAKE} WHERE id = ANY (ARRAY(SELECT id FROM cut)) {_TAKEN}
"""

_HEAD = f"SELECT c.id, c.model, c.priority, c.turn, c.crashes FROM chunks c WHERE {_PENDING} {_ORDER} LIMIT 1"
_NEAR = f"""
    SELECT c.id, c.model, c.priority, c.turn, c.crashes FROM chunks c INDEXED BY ix_chunks_model
    WHERE {_PENDING} AND c.model = :model AND c.priority = :priority AND c.turn <= :latest {_MODEL_ORDER} LIMIT 1
"""
_PICKED = f"""
    SELECT c.id, c.cost, c.seq_hi - c.seq_lo AS items FROM chunks c INDEXED BY ix_chunks_model
    WHERE {_PENDING} AND c.model = :model AND c.crashes = 0 {_MODEL_ORDER} LIMIT {MOST_CHUNKS}
"""
_SQLITE = f"{_TAKE} WHERE id IN (SELECT value FROM json_each(:held)) {_TAKEN}"

_HELD = f"""
    UPDATE chunks SET lease_until = {{later}} WHERE state = 'running' AND lease_token = :token {_TAKEN}
"""


def take(database: Database, connection: Connection, wish: Wish) -> Sequence[Row[Any]]:
    """The chunks taken, in the order of their turns."""
    if database.dialect == "postgresql":
        rows = _in_one_statement(database, connection, wish)
    else:
        rows = _step_by_step(database, connection, wish)
    return sorted(rows, key=lambda row: (-row.priority, row.turn, row.id))


def taken_before(database: Database, connection: Connection, wish: Wish) -> Sequence[Row[Any]]:
    """The chunks this very claim took already, if the answer to it was lost. Their lease begins anew."""
    return connection.execute(database.sql(_HELD), {"token": wish.token, "lease_s": wish.lease_s}).all()


def _in_one_statement(database: Database, connection: Connection, wish: Wish) -> Sequence[Row[Any]]:
    values = {**wish._asdict(), "loaded": list(wish.loaded), "patience": PATIENCE * wish.cost}
    return connection.execute(database.sql(_POSTGRESQL), values).all()


def _step_by_step(database: Database, connection: Connection, wish: Wish) -> Sequence[Row[Any]]:
    """Inside BEGIN IMMEDIATE nobody else claims, so that the steps need no locks."""

    def first(template: str, **values: Any) -> Row[Any] | None:
        return connection.execute(database.sql(template), {"queue": wish.queue, **values}).first()

    head = first(_HEAD)
    if head is None:
        return []
    latest = head.turn + PATIENCE * wish.cost
    near = [first(_NEAR, model=model, priority=head.priority, latest=latest) for model in wish.loaded]
    chosen = min((row for row in near if row is not None), key=lambda row: (row.turn, row.id), default=head)
    taken = [chosen.id] if chosen.crashes else _cut(database.sql(_PICKED), connection, wish, chosen.model)
    values = {**wish._asdict(), "held": str(taken)}
    return connection.execute(database.sql(_SQLITE), values).all()


def _cut(picked: TextClause, connection: Connection, wish: Wish, model: str) -> list[int]:
    rows = connection.execute(picked, {"queue": wish.queue, "model": model}).all()
    costs = accumulate((row.cost for row in rows), initial=0)
    items = accumulate((row.items for row in rows), initial=0)
    return [
        row.id for row, cost, count in zip(rows, costs, items, strict=False) if cost < wish.cost and count < wish.items
    ]

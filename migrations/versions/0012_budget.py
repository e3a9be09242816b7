"""Canaries, error budgets, and when a job last went on."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

CHECKED = {
    "canary_state TEXT": "canary_state IN ('running', 'waiting', 'passed')",
    "max_error_share FLOAT": "max_error_share >= 0 AND max_error_share < 1",
    "on_errors TEXT": "on_errors IN ('pause', 'fail')",
}
"""New columns that only take some values. Alembic would add the check as a second step, which SQLite does not have."""
PLAIN = {
    "canary": sa.JSON(),
    "errors_after": sa.Integer(),
    "forgiven_ok": sa.BigInteger(),
    "forgiven_error": sa.BigInteger(),
    "went_on_at": sa.DateTime(timezone=True),
}
SUPERVISED = (
    "sealed_at IS NOT NULL AND finished_at IS NULL AND (canary_state = 'running' OR max_error_share IS NOT NULL)"
)


def upgrade() -> None:
    for column, allowed in CHECKED.items():
        name = column.partition(" ")[0]
        op.execute(f"ALTER TABLE jobs ADD COLUMN {column} CONSTRAINT ck_jobs_{name} CHECK ({allowed})")
    for name, kind in PLAIN.items():
        op.add_column("jobs", sa.Column(name, kind, nullable=True))
    where = sa.text(SUPERVISED)
    op.create_index("ix_jobs_supervised", "jobs", ["id"], postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    op.drop_index("ix_jobs_supervised", "jobs")
    for name in (*PLAIN, *(column.partition(" ")[0] for column in CHECKED)):
        op.drop_column("jobs", name)

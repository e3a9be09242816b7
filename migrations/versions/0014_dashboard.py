"""What those who watch a deployment ask: what ended lately, what failed, what has waited longest."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

ENDED = sa.text("finished_at IS NOT NULL")
WAITING = sa.text("sealed_at IS NOT NULL AND finished_at IS NULL AND state <> 'loading'")
FAILED = sa.text("n_error > 0 AND finished_at IS NOT NULL")


def upgrade() -> None:
    ended = ["finished_at", "state", "tenant", "expires_at"]
    op.create_index("ix_jobs_by_items", "jobs", ["tenant", "n_items", "id", "expires_at"])
    op.create_index("ix_jobs_by_end", "jobs", ["tenant", "finished_at", "id", "expires_at"])
    op.create_index("ix_jobs_finished", "jobs", ended, postgresql_where=ENDED, sqlite_where=ENDED)
    op.create_index("ix_jobs_waiting", "jobs", ["sealed_at"], postgresql_where=WAITING, sqlite_where=WAITING)
    op.create_index("ix_jobs_counted", "jobs", ["state", "control", "expires_at", "tenant"])
    op.create_index("ix_chunks_finished", "chunks", ["finished_at"], postgresql_where=ENDED, sqlite_where=ENDED)
    op.create_index(
        "ix_chunks_failed",
        "chunks",
        ["finished_at", "tenant", "n_error"],
        postgresql_where=FAILED,
        sqlite_where=FAILED,
    )
    op.create_table(
        "throughput",
        sa.Column("half_hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("half_hour", "tenant", "task", name="pk_throughput"),
    )


def downgrade() -> None:
    op.drop_table("throughput")
    op.drop_index("ix_chunks_failed", "chunks")
    op.drop_index("ix_chunks_finished", "chunks")
    op.drop_index("ix_jobs_counted", "jobs")
    op.drop_index("ix_jobs_waiting", "jobs")
    op.drop_index("ix_jobs_finished", "jobs")
    op.drop_index("ix_jobs_by_end", "jobs")
    op.drop_index("ix_jobs_by_items", "jobs")

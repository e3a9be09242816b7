"""Where the results of jobs are to be written once they have ended, and what became of it."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
DUE = sa.text("state = 'due'")


def upgrade() -> None:
    op.create_table(
        "exports",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("n_results", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name="pk_exports"),
        sa.CheckConstraint("state IN ('waiting', 'due', 'done', 'failed')", name="ck_exports_state"),
        sa.CheckConstraint("(state = 'due') = (due_at IS NOT NULL)", name="ck_exports_due"),
    )
    op.create_index("ix_exports_due", "exports", ["due_at"], postgresql_where=DUE, sqlite_where=DUE)


def downgrade() -> None:
    op.drop_table("exports")

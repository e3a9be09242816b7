"""Schedules and their runs."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("next_due_at", MOMENT, nullable=True),
        sa.Column("seen", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("tenant", "name", name="uq_schedules_tenant_name"),
    )
    fires = sa.text("next_due_at IS NOT NULL")
    op.create_index("ix_schedules_due", "schedules", ["next_due_at"], postgresql_where=fires, sqlite_where=fires)
    op.create_table(
        "schedule_runs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("schedule_id", sa.Text(), nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("not_before", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("n_items", sa.BigInteger(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_schedule_runs"),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedules.id"], name="fk_schedule_runs_schedule_id_schedules"),
        sa.UniqueConstraint("schedule_id", "due_at", name="uq_schedule_runs_schedule_id_due_at"),
        sa.CheckConstraint(
            "state IN ('firing', 'submitted', 'empty', 'skipped', 'failed')", name="ck_schedule_runs_state"
        ),
        sa.CheckConstraint("(state = 'firing') = (not_before IS NOT NULL)", name="ck_schedule_runs_firing"),
        sa.CheckConstraint("(state = 'firing') = (ended_at IS NULL)", name="ck_schedule_runs_ended"),
        sa.CheckConstraint("(state = 'submitted') = (job_id IS NOT NULL)", name="ck_schedule_runs_submitted"),
    )
    firing = sa.text("state = 'firing'")
    op.create_index(
        "ix_schedule_runs_firing", "schedule_runs", ["not_before"], postgresql_where=firing, sqlite_where=firing
    )


def downgrade() -> None:
    op.drop_table("schedule_runs")
    op.drop_table("schedules")

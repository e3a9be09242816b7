"""API keys; jobs of one tenant in order, and those that are gone."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("digest", name="uq_keys_digest"),
    )
    op.create_index("ix_jobs_tenant", "jobs", ["tenant", "id"])
    gone = sa.text("expires_at IS NOT NULL")
    op.create_index("ix_jobs_gone", "jobs", ["expires_at"], postgresql_where=gone, sqlite_where=gone)


def downgrade() -> None:
    op.drop_index("ix_jobs_gone", "jobs")
    op.drop_index("ix_jobs_tenant", "jobs")
    op.drop_table("keys")

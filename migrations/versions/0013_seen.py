"""Items that incremental jobs know, and outputs that are used again."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LINKED = sa.text("job_id IS NOT NULL")
VANISHED = sa.text("vanished_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "seen",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("custom_id", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("vanished_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_seen"),
        sa.UniqueConstraint("tenant", "name", "key", name="uq_seen_tenant_name_key"),
    )
    op.create_index("ix_seen_job", "seen", ["job_id", "seq"], postgresql_where=LINKED, sqlite_where=LINKED)
    op.create_index(
        "ix_seen_vanished", "seen", ["tenant", "name", "id"], postgresql_where=VANISHED, sqlite_where=VANISHED
    )
    op.create_table(
        "cache",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("tokens_in", sa.Integer(), nullable=False),
        sa.Column("tokens_out", sa.Integer(), nullable=False),
        sa.Column("truncated_tokens", sa.Integer(), nullable=False),
        sa.Column("windows", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("used_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "fingerprint", name="pk_cache"),
        sa.CheckConstraint("output IS NOT NULL OR vector IS NOT NULL", name="ck_cache_output"),
        sa.CheckConstraint("bytes > 0", name="ck_cache_bytes"),
    )
    op.create_index("ix_cache_used", "cache", ["used_at", "bytes"])


def downgrade() -> None:
    op.drop_table("cache")
    op.drop_table("seen")

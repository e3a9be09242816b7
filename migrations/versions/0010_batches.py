"""How long a batch's output is kept, what it was when that ended, and the trace it belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("output_keep_s", sa.Integer(), nullable=True))
    op.add_column("batches", sa.Column("ended_as", sa.JSON(), nullable=True))
    op.add_column("batches", sa.Column("traceparent", sa.Text(), nullable=True))
    kept = sa.text("output_keep_s IS NOT NULL AND ended_as IS NULL")
    op.create_index("ix_batches_kept", "batches", ["id"], postgresql_where=kept, sqlite_where=kept)


def downgrade() -> None:
    op.drop_index("ix_batches_kept", "batches")
    for name in ("traceparent", "ended_as", "output_keep_s"):
        op.drop_column("batches", name)

"""Files and batches of the OpenAI-compatible API."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.CheckConstraint("bytes >= 0", name="ck_files_bytes"),
    )
    op.create_index("ix_files_tenant", "files", ["tenant", "id"])
    timed = sa.text("expires_at IS NOT NULL")
    op.create_index("ix_files_expires", "files", ["expires_at"], postgresql_where=timed, sqlite_where=timed)
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("input_file_id", sa.Text(), nullable=False),
        sa.Column("completion_window", sa.Text(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("errors", sa.JSON(), nullable=True),
        sa.Column("failed_at", MOMENT, nullable=True),
        sa.Column("cancelled_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_tenant", "batches", ["tenant", "id"])
    waiting = sa.text("job_id IS NULL AND failed_at IS NULL AND cancelled_at IS NULL")
    op.create_index("ix_batches_waiting", "batches", ["id"], postgresql_where=waiting, sqlite_where=waiting)


def downgrade() -> None:
    op.drop_table("batches")
    op.drop_table("files")

"""What a worker's device is doing, as its last heartbeat told."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("load", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "load")

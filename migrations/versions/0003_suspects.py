"""Which items of a chunk were in flight when its worker died."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("chunks", sa.Column("suspects", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("chunks", "suspects")

"""Workers that are told to claim nothing more, and the memory that their models take."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("quiet", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("models_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for name in ("models_bytes", "memory_bytes", "quiet"):
        op.drop_column("workers", name)

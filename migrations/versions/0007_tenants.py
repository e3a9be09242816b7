"""What tenants may do: their weight, quotas, rate limit and models."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Float(53), nullable=False),
        sa.Column("max_items", sa.BigInteger(), nullable=True),
        sa.Column("max_tokens", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_tenants"),
        sa.CheckConstraint("weight > 0", name="ck_tenants_weight"),
        sa.CheckConstraint("max_items >= 0 AND max_tokens >= 0 AND requests_per_minute > 0", name="ck_tenants_limits"),
    )


def downgrade() -> None:
    op.drop_table("tenants")

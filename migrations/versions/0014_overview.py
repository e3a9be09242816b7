"""What the dashboard counts by: jobs by tenant and state, chunks by the time at which they were finished."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

FINISHED = sa.text("finished_at IS NOT NULL")


def upgrade() -> None:
    op.create_index("ix_jobs_counts", "jobs", ["tenant", "state", "control", "expires_at"])
    op.create_index("ix_chunks_finished", "chunks", ["finished_at"], postgresql_where=FINISHED, sqlite_where=FINISHED)


def downgrade() -> None:
    op.drop_index("ix_chunks_finished", "chunks")
    op.drop_index("ix_jobs_counts", "jobs")

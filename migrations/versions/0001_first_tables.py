"""The first tables: jobs, blocks, chunks, results, workers, leaders, models."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LIVE = sa.text("state IN ('queued', 'running')")
PENDING = sa.text("state = 'pending'")
RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    _jobs()
    _blocks()
    _chunks()
    _results()
    _workers()
    _leaders()
    _models()


def downgrade() -> None:
    for table in ("models", "leaders", "workers", "results", "chunks", "blocks", "jobs"):
        op.drop_table(table)


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_revision", sa.Text(), nullable=True),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("keep", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("in_force", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Float(precision=53), nullable=False),
        sa.Column("turn", sa.Float(precision=53), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("control", sa.Text(), nullable=False),
        sa.Column("n_items", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_chunks", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("sealed_at", MOMENT, nullable=True),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("first_eta_at", MOMENT, nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.Column("deadline_at", MOMENT, nullable=True),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        sa.Column("schedule_run_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'completed', 'expired', 'failed')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished"),
        ),
        sa.CheckConstraint("control IN ('run', 'pause', 'cancel')", name=op.f("ck_jobs_control")),
        sa.CheckConstraint(
            "sealed_at IS NOT NULL OR state NOT IN ('queued', 'running', 'completed', 'expired')",
            name=op.f("ck_jobs_sealed"),
        ),
        sa.CheckConstraint(
            "state IN ('loading', 'queued', 'running', 'completed', 'failed', 'expired', 'cancelled')",
            name=op.f("ck_jobs_state"),
        ),
        sa.CheckConstraint("n_items >= 0 AND n_chunks >= 0", name=op.f("ck_jobs_counts")),
        sa.CheckConstraint("weight > 0", name=op.f("ck_jobs_weight")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("tenant", "idempotency_key", name=op.f("uq_jobs_tenant_idempotency_key")),
    )
    op.create_index("ix_jobs_live", "jobs", ["queue", "tenant", "turn"], postgresql_where=LIVE, sqlite_where=LIVE)
    op.create_index("ix_jobs_retry_of", "jobs", ["retry_of"])
    op.create_index("ix_jobs_state", "jobs", ["state", "id"])


def _blocks() -> None:
    op.create_table(
        "blocks",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("seq_lo", sa.BigInteger(), nullable=False),
        sa.Column("n_items", sa.Integer(), nullable=False),
        sa.Column("encoding", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("seq_lo >= 0 AND n_items > 0", name=op.f("ck_blocks_span")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_blocks_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blocks")),
        sa.UniqueConstraint("job_id", "seq_lo", name=op.f("uq_blocks_job_id_seq_lo")),
    )


def _chunks() -> None:
    op.create_table(
        "chunks",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("block_id", sa.BigInteger(), nullable=False),
        sa.Column("seq_lo", sa.BigInteger(), nullable=False),
        sa.Column("seq_hi", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Float(precision=53), server_default="0", nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("errors", sa.Integer(), server_default="0", nullable=False),
        sa.Column("not_before", MOMENT, nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_s", sa.Float(precision=53), nullable=True),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("n_ok", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_error", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tokens_in", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tokens_out", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_chunks_lease")),
        sa.CheckConstraint("state <> 'done' OR n_ok + n_error = seq_hi - seq_lo", name=op.f("ck_chunks_done")),
        sa.CheckConstraint(
            "state <> 'running' OR (lease_token IS NOT NULL AND lease_s > 0 AND worker_id IS NOT NULL)",
            name=op.f("ck_chunks_holder"),
        ),
        sa.CheckConstraint(
            "state IN ('held', 'pending', 'running', 'done', 'split', 'cancelled')", name=op.f("ck_chunks_state")
        ),
        sa.CheckConstraint("cost >= 0", name=op.f("ck_chunks_cost")),
        sa.CheckConstraint(
            "n_ok >= 0 AND n_error >= 0 AND n_ok + n_error <= seq_hi - seq_lo", name=op.f("ck_chunks_counts")
        ),
        sa.CheckConstraint("seq_lo >= 0 AND seq_hi > seq_lo", name=op.f("ck_chunks_span")),
        sa.ForeignKeyConstraint(["block_id"], ["blocks.id"], name=op.f("fk_chunks_block_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_chunks_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunks")),
        postgresql_with={"fillfactor": "80", "autovacuum_vacuum_scale_factor": "0.02"},
    )
    op.create_index("ix_chunks_job", "chunks", ["job_id", "seq_lo"])
    op.create_index(
        "ix_chunks_model",
        "chunks",
        ["queue", "model", sa.literal_column("priority DESC"), "turn", "id"],
        postgresql_where=PENDING,
        sqlite_where=PENDING,
    )
    op.create_index(
        "ix_chunks_queue",
        "chunks",
        ["queue", sa.literal_column("priority DESC"), "turn", "id"],
        postgresql_where=PENDING,
        sqlite_where=PENDING,
    )
    op.create_index("ix_chunks_running", "chunks", ["id"], postgresql_where=RUNNING, sqlite_where=RUNNING)


def _results() -> None:
    op.create_table(
        "results",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("custom_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("tokens_in", sa.Integer(), nullable=False),
        sa.Column("tokens_out", sa.Integer(), nullable=False),
        sa.Column("truncated_tokens", sa.Integer(), nullable=False),
        sa.Column("windows", sa.Integer(), nullable=False),
        sa.Column("kept", sa.Text(), nullable=True),
        sa.CheckConstraint("(status = 'ok') = (error_code IS NULL)", name=op.f("ck_results_error")),
        sa.CheckConstraint(
            "(status = 'ok') = (output IS NOT NULL OR vector IS NOT NULL)", name=op.f("ck_results_output")
        ),
        sa.CheckConstraint("status IN ('ok', 'error')", name=op.f("ck_results_status")),
        sa.CheckConstraint("seq >= 0", name=op.f("ck_results_seq")),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_results")),
        sqlite_with_rowid=False,
    )


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("heartbeat_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )


def _leaders() -> None:
    op.create_table(
        "leaders",
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_leaders")),
    )


def _models() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_models")),
    )

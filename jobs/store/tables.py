"""The tables, the same on PostgreSQL and SQLite; CHECK constraints make illegal rows impossible."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    false,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import text

from jobs.states import FINAL, CanaryState, ChunkState, Control, DeliveryState, ExportState, JobState, RunState

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

Serial = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself only for a column declared INTEGER."""


class Utc(TypeDecorator[datetime]):
    """A moment, timezone-aware on the Python side on both databases; SQLite keeps it as UTC text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _one_of(column: str, values: Any) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("request_hash", LargeBinary, nullable=False),
    Column("task", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_revision", Text),
    Column("params", JSON, nullable=False),
    Column("keep", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("in_force", JSON(none_as_null=True)),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("weight", Float(53), nullable=False),
    Column("turn", Float(53), nullable=False, server_default="0"),
    Column("state", Text, nullable=False),
    Column("control", Text, nullable=False),
    Column("n_items", BigInteger, nullable=False, server_default="0"),
    Column("n_chunks", BigInteger, nullable=False, server_default="0"),
    Column("created_at", Utc, nullable=False),
    Column("sealed_at", Utc),
    Column("started_at", Utc),
    Column("first_eta_at", Utc),
    Column("finished_at", Utc),
    Column("deadline_at", Utc),
    Column("expires_at", Utc),
    Column("error", Text),
    Column("retry_of", Uuid),
    Column("schedule_run_id", BigInteger),
    Column("webhook_id", Text),
    Column("traceparent", Text),
    # What the canary is to be, which items it has (once the job is sealed), and what came of it.
    Column("canary", JSON(none_as_null=True)),
    Column("canary_state", Text),
    Column("max_error_share", Float(53)),
    Column("errors_after", Integer),
    Column("on_errors", Text),
    # Results that count no more in the share, because the job was resumed in spite of them.
    Column("forgiven_ok", BigInteger),
    Column("forgiven_error", BigInteger),
    # When it was last resumed or approved: what it did before tells nothing of its rate.
    Column("went_on_at", Utc),
    UniqueConstraint("tenant", "idempotency_key"),
    CheckConstraint(_one_of("state", JobState), name="state"),
    CheckConstraint(_one_of("control", Control), name="control"),
    CheckConstraint("weight > 0", name="weight"),
    CheckConstraint("n_items >= 0 AND n_chunks >= 0", name="counts"),
    CheckConstraint(f"({_one_of('state', sorted(FINAL))}) = (finished_at IS NOT NULL)", name="finished"),
    CheckConstraint(_one_of("canary_state", CanaryState), name="canary_state"),
    CheckConstraint("max_error_share >= 0 AND max_error_share < 1", name="max_error_share"),
    CheckConstraint("on_errors IN ('pause', 'fail')", name="on_errors"),
    CheckConstraint(
        "sealed_at IS NOT NULL OR state NOT IN ('queued', 'running', 'completed', 'expired')", name="sealed"
    ),
)
_LIVE_JOB = text("state IN ('queued', 'running')")
Index(
    "ix_jobs_live",
    jobs.c.queue,
    jobs.c.tenant,
    jobs.c.turn,
    postgresql_where=_LIVE_JOB,
    sqlite_where=_LIVE_JOB,
)
SUPERVISED = text(
    "sealed_at IS NOT NULL AND finished_at IS NULL AND (canary_state = 'running' OR max_error_share IS NOT NULL)"
)
"""Spelled out, not bound, so that the planners see that the partial index will do. With a condition on the state,
SQLite would rather go through all live jobs by another index."""
Index("ix_jobs_supervised", jobs.c.id, postgresql_where=SUPERVISED, sqlite_where=SUPERVISED)
Index("ix_jobs_state", jobs.c.state, jobs.c.id)
Index("ix_jobs_tenant", jobs.c.tenant, jobs.c.id)
Index("ix_jobs_retry_of", jobs.c.retry_of)
# Lists in these orders; they hold all that finding a page takes, so that no wide row is read for it.
Index("ix_jobs_by_items", jobs.c.tenant, jobs.c.n_items, jobs.c.id, jobs.c.expires_at)
Index("ix_jobs_by_end", jobs.c.tenant, jobs.c.finished_at, jobs.c.id, jobs.c.expires_at)
_ENDED = text("finished_at IS NOT NULL")
Index(
    "ix_jobs_finished",
    jobs.c.finished_at,
    jobs.c.state,
    jobs.c.tenant,
    jobs.c.expires_at,
    postgresql_where=_ENDED,
    sqlite_where=_ENDED,
)
WAITING = text("sealed_at IS NOT NULL AND finished_at IS NULL AND state <> 'loading'")
"""Jobs that are queued or running, in words that lead SQLite to this index and no other query away from its own."""
Index("ix_jobs_waiting", jobs.c.sealed_at, postgresql_where=WAITING, sqlite_where=WAITING)
Index("ix_jobs_counted", jobs.c.state, jobs.c.control, jobs.c.expires_at, jobs.c.tenant)
_GONE = text("expires_at IS NOT NULL")
Index("ix_jobs_gone", jobs.c.expires_at, postgresql_where=_GONE, sqlite_where=_GONE)

blocks = Table(
    "blocks",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("seq_lo", BigInteger, nullable=False),
    Column("n_items", Integer, nullable=False),
    Column("encoding", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("job_id", "seq_lo"),
    CheckConstraint("seq_lo >= 0 AND n_items > 0", name="span"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("block_id", BigInteger, ForeignKey("blocks.id"), nullable=False),
    Column("seq_lo", BigInteger, nullable=False),
    Column("seq_hi", BigInteger, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("turn", Float(53), nullable=False, server_default="0"),
    Column("cost", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("errors", Integer, nullable=False, server_default="0"),
    Column("not_before", Utc),
    Column("lease_token", Text),
    Column("lease_s", Float(53)),
    Column("lease_until", Utc),
    Column("worker_id", Text),
    Column("n_ok", Integer, nullable=False, server_default="0"),
    Column("n_error", Integer, nullable=False, server_default="0"),
    Column("tokens_in", BigInteger, nullable=False, server_default="0"),
    Column("tokens_out", BigInteger, nullable=False, server_default="0"),
    Column("started_at", Utc),
    Column("finished_at", Utc),
    Column("last_error", Text),
    # JSON: how often each item that was in flight when a worker died has ended one alone. Null: none is known.
    Column("suspects", Text),
    CheckConstraint(_one_of("state", ChunkState), name="state"),
    CheckConstraint("seq_lo >= 0 AND seq_hi > seq_lo", name="span"),
    CheckConstraint("cost >= 0", name="cost"),
    CheckConstraint("n_ok >= 0 AND n_error >= 0 AND n_ok + n_error <= seq_hi - seq_lo", name="counts"),
    CheckConstraint("state <> 'done' OR n_ok + n_error = seq_hi - seq_lo", name="done"),
    CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
    CheckConstraint(
        "state <> 'running' OR (lease_token IS NOT NULL AND lease_s > 0 AND worker_id IS NOT NULL)", name="holder"
    ),
    # Room on each page, so that a renewal (no index holds `lease_until`) stays on it; quick vacuum of claimed entries.
    postgresql_with={"fillfactor": "80", "autovacuum_vacuum_scale_factor": "0.02"},
)
_PENDING = text("state = 'pending'")
_RUNNING = text("state = 'running'")
Index(
    "ix_chunks_queue",
    chunks.c.queue,
    chunks.c.priority.desc(),
    chunks.c.turn,
    chunks.c.id,
    postgresql_where=_PENDING,
    sqlite_where=_PENDING,
)
Index(
    "ix_chunks_model",
    chunks.c.queue,
    chunks.c.model,
    chunks.c.priority.desc(),
    chunks.c.turn,
    chunks.c.id,
    postgresql_where=_PENDING,
    sqlite_where=_PENDING,
)
Index("ix_chunks_running", chunks.c.id, postgresql_where=_RUNNING, sqlite_where=_RUNNING)
Index("ix_chunks_job", chunks.c.job_id, chunks.c.seq_lo)
# None of these holds what a save of a part changes, but for errors: such a save stays on its page.
Index("ix_chunks_finished", chunks.c.finished_at, postgresql_where=_ENDED, sqlite_where=_ENDED)
_FAILED = text("n_error > 0 AND finished_at IS NOT NULL")
Index(
    "ix_chunks_failed",
    chunks.c.finished_at,
    chunks.c.tenant,
    chunks.c.n_error,
    postgresql_where=_FAILED,
    sqlite_where=_FAILED,
)

results = Table(
    # No foreign key: checking it for every row halves the rate of COPY; `chunks` holds the job.
    "results",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("custom_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("output", Text),
    Column("vector", LargeBinary),
    Column("error_code", Text),
    Column("error", Text),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("truncated_tokens", Integer, nullable=False),
    Column("windows", Integer, nullable=False),
    Column("kept", Text),
    CheckConstraint("seq >= 0", name="seq"),
    CheckConstraint("status IN ('ok', 'error')", name="status"),
    CheckConstraint("(status = 'ok') = (error_code IS NULL)", name="error"),
    CheckConstraint("(status = 'ok') = (output IS NOT NULL OR vector IS NOT NULL)", name="output"),
    sqlite_with_rowid=False,
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("models", JSON, nullable=False),
    Column("queues", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("load", JSON(none_as_null=True)),
    # It is to claim nothing more, until it is woken.
    Column("quiet", Boolean, nullable=False, server_default=false()),
    # Of its device, and of them what loaded models take.
    Column("memory_bytes", BigInteger),
    Column("models_bytes", BigInteger),
    Column("started_at", Utc, nullable=False),
    Column("heartbeat_at", Utc, nullable=False),
)

leaders = Table(
    "leaders",
    metadata,
    Column("role", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("until", Utc, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc),
    Column("revoked_at", Utc),
    UniqueConstraint("digest"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc),
    # The ids of the parts it is read from, in order. Null: its bytes lie under its own id.
    Column("parts", JSON(none_as_null=True)),
    CheckConstraint("bytes >= 0", name="bytes"),
)
Index("ix_files_tenant", files.c.tenant, files.c.id)
_TIMED = text("expires_at IS NOT NULL")
Index("ix_files_expires", files.c.expires_at, postgresql_where=_TIMED, sqlite_where=_TIMED)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("metadata", Text),
    Column("keep_s", Integer),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("completed_at", Utc),
    Column("cancelled_at", Utc),
    Column("file_id", Text),
    CheckConstraint("bytes >= 0", name="bytes"),
    CheckConstraint("(completed_at IS NULL) = (file_id IS NULL)", name="completed"),
)
Index("ix_uploads_expires", uploads.c.expires_at)

parts = Table(
    # A row is there until a file is read from the part, or until the part's bytes are gone.
    "parts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("upload_id", Text, ForeignKey("uploads.id"), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("upload_id", "position"),
    CheckConstraint("position >= 0 AND bytes > 0", name="span"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("metadata", JSON(none_as_null=True)),
    Column("priority", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("job_id", Uuid),
    Column("errors", JSON(none_as_null=True)),
    Column("failed_at", Utc),
    Column("cancelled_at", Utc),
    Column("output_keep_s", Integer),
    Column("ended_as", JSON(none_as_null=True)),
    Column("traceparent", Text),
)
Index("ix_batches_tenant", batches.c.tenant, batches.c.id)
_KEPT_FOR_A_TIME = text("output_keep_s IS NOT NULL AND ended_as IS NULL")
Index("ix_batches_kept", batches.c.id, postgresql_where=_KEPT_FOR_A_TIME, sqlite_where=_KEPT_FOR_A_TIME)
_WITHOUT_JOB = text("job_id IS NULL AND failed_at IS NULL AND cancelled_at IS NULL")
Index("ix_batches_waiting", batches.c.id, postgresql_where=_WITHOUT_JOB, sqlite_where=_WITHOUT_JOB)

tenants = Table(
    # A tenant needs no row: without one it has weight 1 and no limits.
    "tenants",
    metadata,
    Column("name", Text, primary_key=True),
    Column("weight", Float(53), nullable=False),
    Column("max_items", BigInteger),
    Column("max_tokens", BigInteger),
    Column("requests_per_minute", Integer),
    Column("models", JSON(none_as_null=True)),
    CheckConstraint("weight > 0", name="weight"),
    CheckConstraint("max_items >= 0 AND max_tokens >= 0 AND requests_per_minute > 0", name="limits"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("next_due_at", Utc),
    Column("seen", Text),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("tenant", "name"),
)
_FIRES = text("next_due_at IS NOT NULL")
Index("ix_schedules_due", schedules.c.next_due_at, postgresql_where=_FIRES, sqlite_where=_FIRES)

schedule_runs = Table(
    # A due time is fired once, whoever fires it: the constraint says so.
    "schedule_runs",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("schedule_id", Text, ForeignKey("schedules.id"), nullable=False),
    Column("due_at", Utc, nullable=False),
    Column("state", Text, nullable=False),
    Column("not_before", Utc),
    Column("created_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("job_id", Uuid),
    Column("n_items", BigInteger),
    Column("note", Text),
    UniqueConstraint("schedule_id", "due_at"),
    CheckConstraint(_one_of("state", RunState), name="state"),
    CheckConstraint("(state = 'firing') = (not_before IS NOT NULL)", name="firing"),
    CheckConstraint("(state = 'firing') = (ended_at IS NULL)", name="ended"),
    CheckConstraint("(state = 'submitted') = (job_id IS NOT NULL)", name="submitted"),
)
_FIRING = text("state = 'firing'")
Index(
    "ix_schedule_runs_firing",
    schedule_runs.c.not_before,
    postgresql_where=_FIRING,
    sqlite_where=_FIRING,
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("events", JSON, nullable=False),
    Column("secret", Text, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("not_before", Utc),
    Column("disabled_at", Utc),
    Column("disabled_because", Text),
    CheckConstraint("failures >= 0", name="failures"),
    CheckConstraint("(disabled_at IS NULL) = (disabled_because IS NULL)", name="disabled"),
)
Index("ix_webhooks_tenant", webhooks.c.tenant, webhooks.c.id)

deliveries = Table(
    # No foreign key to jobs: an event outlives its job.
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, ForeignKey("webhooks.id"), nullable=False),
    Column("event", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", Utc),
    Column("created_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("status", Integer),
    Column("error", Text),
    # A transaction that is repeated because its answer was lost announces nothing twice.
    UniqueConstraint("webhook_id", "subject", "event"),
    CheckConstraint(_one_of("state", DeliveryState), name="state"),
    CheckConstraint("(state = 'pending') = (due_at IS NOT NULL)", name="due"),
    CheckConstraint("(state = 'pending') = (ended_at IS NULL)", name="ended"),
)
_UNDELIVERED = text("state = 'pending'")
Index(
    "ix_deliveries_due",
    deliveries.c.webhook_id,
    deliveries.c.due_at,
    postgresql_where=_UNDELIVERED,
    sqlite_where=_UNDELIVERED,
)
Index("ix_deliveries_webhook", deliveries.c.webhook_id, deliveries.c.id)
Index("ix_deliveries_created", deliveries.c.created_at)

seen = Table(
    # An item of the corpus NAME. Whether it counts as seen is asked of its result, so that nothing has to be counted
    # when a job ends. No foreign key: the row outlives its job, and is then without one, its result having been ok.
    "seen",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("custom_id", Text),
    Column("job_id", Uuid),
    Column("seq", BigInteger, nullable=False),
    Column("vanished_at", Utc),
    UniqueConstraint("tenant", "name", "key"),
)
_LINKED = text("job_id IS NOT NULL")
Index("ix_seen_job", seen.c.job_id, seen.c.seq, postgresql_where=_LINKED, sqlite_where=_LINKED)
_VANISHED = text("vanished_at IS NOT NULL")
Index(
    "ix_seen_vanished",
    seen.c.tenant,
    seen.c.name,
    seen.c.id,
    postgresql_where=_VANISHED,
    sqlite_where=_VANISHED,
)

cache = Table(
    "cache",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("fingerprint", LargeBinary, primary_key=True),
    Column("output", Text),
    Column("vector", LargeBinary),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("truncated_tokens", Integer, nullable=False),
    Column("windows", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("used_at", Utc, nullable=False),
    CheckConstraint("output IS NOT NULL OR vector IS NOT NULL", name="output"),
    CheckConstraint("bytes > 0", name="bytes"),
)
Index("ix_cache_used", cache.c.used_at, cache.c.bytes)

exports = Table(
    # No foreign key: whoever takes a job away takes its export along.
    "exports",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("target", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", Utc),
    Column("ended_at", Utc),
    Column("n_results", BigInteger),
    Column("error", Text),
    CheckConstraint(_one_of("state", ExportState), name="state"),
    CheckConstraint("(state = 'due') = (due_at IS NOT NULL)", name="due"),
)
_TO_EXPORT = text("state = 'due'")
Index("ix_exports_due", exports.c.due_at, postgresql_where=_TO_EXPORT, sqlite_where=_TO_EXPORT)

throughput = Table(
    # What ended in a half hour, numbered since 1970. A row without tenant says how far they are summarised.
    "throughput",
    metadata,
    Column("half_hour", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", Text, primary_key=True),
    Column("task", Text, primary_key=True),
    Column("items", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("spec", JSON, nullable=False),
)

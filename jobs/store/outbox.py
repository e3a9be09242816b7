"""The outbox of webhooks: news of an event is written in the very transaction that makes it true, and sent later."""

from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select

from jobs.schemas import DIRECT_LABEL
from jobs.states import DeliveryState, JobState
from jobs.store import ids
from jobs.store.clock import now
from jobs.store.dialect import Database
from jobs.store.tables import batches, deliveries, schedule_runs, schedules, webhooks


def job_ended(database: Database, connection: Connection, job: Row[Any], state: str, error: str | None = None) -> None:
    """Announce a job's end to the webhooks of its tenant that listen to it, and the end of the batch that it was."""
    if DIRECT_LABEL in job.labels:
        return
    found = _listeners(connection, job.tenant)
    if not found:
        return
    about = {"id": ids.public(job.id), "state": state, "task": job.task, "model": job.model, "labels": job.labels}
    if error is not None:
        about["error"] = error
    event = f"job.{state}"
    wanted = [hook.id for hook in found if event in hook.events or hook.id == job.webhook_id]
    _write(database, connection, wanted, event, ids.public(job.id), about)
    if job.schedule_run_id is not None and state in (JobState.FAILED, JobState.EXPIRED):
        _run_ended(database, connection, job, error or f"its job is {state}")
    if job.idempotency_key is not None:
        mine = select(batches.c.id).where(batches.c.id == job.idempotency_key, batches.c.tenant == job.tenant)
        if connection.execute(mine).first() is not None:
            batch_ended(database, connection, job.tenant, job.idempotency_key, state)


def batch_ended(database: Database, connection: Connection, tenant: str, batch_id: str, state: str) -> None:
    """Announce a batch's end."""
    event = f"batch.{state}"
    wanted = [hook.id for hook in _listeners(connection, tenant) if event in hook.events]
    _write(database, connection, wanted, event, batch_id, {"id": batch_id})


def run_failed(
    database: Database, connection: Connection, tenant: str, schedule_id: str, name: str, due_at: datetime, why: str
) -> None:
    """Announce that a due time of a schedule came to nothing: no job could be made of it, or its job failed."""
    event = "schedule.run_failed"
    wanted = [hook.id for hook in _listeners(connection, tenant) if event in hook.events]
    about = {"id": schedule_id, "name": name, "due_at": due_at.isoformat(), "error": why}
    _write(database, connection, wanted, event, f"{schedule_id}/{due_at.isoformat()}", about)


def _run_ended(database: Database, connection: Connection, job: Row[Any], why: str) -> None:
    """Announce that the job of a schedule's run came to nothing."""
    due = select(schedules.c.id, schedules.c.name, schedule_runs.c.due_at).join(schedule_runs)
    run = connection.execute(due.where(schedule_runs.c.id == job.schedule_run_id)).one_or_none()
    if run is not None:  # the schedule may be removed by now
        run_failed(database, connection, job.tenant, run.id, run.name, run.due_at, why)


def tried(database: Database, connection: Connection, webhook_id: str) -> str:
    """Announce nothing, to see whether it arrives; the delivery's id."""
    delivery_id = _new_id()
    _write(database, connection, [webhook_id], "webhook.test", delivery_id, {"id": webhook_id}, delivery_id)
    return delivery_id


def _listeners(connection: Connection, tenant: str) -> list[Any]:
    wanted = select(webhooks.c.id, webhooks.c.events).where(webhooks.c.tenant == tenant)
    # Held, so that none is deleted before its deliveries refer to it.
    held = wanted.where(webhooks.c.disabled_at.is_(None)).with_for_update(read=True, key_share=True)
    return [*connection.execute(held)]


def _write(
    database: Database,
    connection: Connection,
    webhook_ids: list[str],
    event: str,
    subject: str,
    about: dict[str, Any],
    delivery_id: str | None = None,
) -> None:
    if not webhook_ids:
        return
    moment: datetime = connection.execute(select(now())).scalar_one()
    for webhook_id in webhook_ids:
        new_id = delivery_id or _new_id()
        # Both at once: what Standard Webhooks asks for, and what the OpenAI SDK reads.
        body = {
            "id": new_id,
            "object": "event",
            "type": event,
            "created_at": int(moment.timestamp()),
            "timestamp": moment.isoformat(),
            "data": about,
        }
        row = database.insert(deliveries).values(
            id=new_id,
            webhook_id=webhook_id,
            event=event,
            subject=subject,
            body=orjson.dumps(body).decode(),
            state=DeliveryState.PENDING,
            due_at=moment,
            created_at=moment,
        )
        connection.execute(row.on_conflict_do_nothing())


def _new_id() -> str:
    return f"msg_{ids.new_id().hex}"

"""Schedules made and taken up again, checked before anything is stored."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobs.corpus import Fields
from jobs.errors import InvalidParams
from jobs.exporting import checked
from jobs.schedules import times
from jobs.schemas import MOST_NAME, Schedule, ScheduleSpec
from jobs.tasks import resolve

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.store import Store


def add(store: "Store", client: "Client", name: str, spec: ScheduleSpec, *, tenant: str = "default") -> Schedule:
    """A new schedule of this name. Raises InvalidParams, InvalidInput, UnknownTask, UnknownModel, ModelMismatch."""
    times.check(spec)
    task, given = resolve(spec.task, spec.params)
    Fields.of(spec, task.main_field)
    registry = client.registry_of(tenant)
    registry.check(task, spec.model or registry.only(task).name, given)
    if not name or len(name) > MOST_NAME or "\0" in name:
        raise InvalidParams(f"a schedule's name has 1 to {MOST_NAME} characters; given: {name[:200]!r}")
    if spec.sink is not None:
        spec = spec.model_copy(update={"sink": checked(spec.sink, client.settings, tenant)})
    first = next(times.after(spec, datetime.now(UTC)), None)
    if first is None:
        raise InvalidParams(f"ends_at {spec.ends_at} leaves no time at which schedule {name!r} is due")
    return store.schedules.create(tenant, name, spec, first)


def resume(store: "Store", schedule_id: str) -> Schedule:
    """A paused schedule goes on with its next due time. Raises UnknownSchedule."""
    found = store.schedules.get(schedule_id)
    return store.schedules.resume(found.id, next(times.after(found.spec, datetime.now(UTC)), None))

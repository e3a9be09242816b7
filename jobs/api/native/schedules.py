"""The schedules of the caller's tenant. Those made here read sources that the operator has named; others are made on
the command line, by whoever may read the machine's files."""

from typing import Annotated

from fastapi import APIRouter, Query

from jobs import connections
from jobs.api.access import Caller
from jobs.api.native.shapes import ScheduleInfo, ScheduleRunPage, ScheduleWanted
from jobs.api.problems import documented
from jobs.api.service import Admin, Reader, Serves, Service
from jobs.connections import PREFIX
from jobs.corpus import Fields
from jobs.schedules import making
from jobs.schedules.times import explained
from jobs.schemas import Schedule, ScheduleRun, ScheduleSpec
from jobs.tasks import find

MOST = 100

router = APIRouter(prefix="/schedules", tags=["schedules"])


@router.get("", summary="The schedules, and when each is due next")
def index(service: Serves, caller: Reader) -> list[ScheduleInfo]:
    return [_shown(each) for each in service.store.schedules.list(caller.tenant)]


@router.post("", status_code=201, responses=documented(409), summary="A new schedule over a named source")
def create(wanted: ScheduleWanted, service: Serves, caller: Admin) -> ScheduleInfo:
    """It fires from its next due time on, with what its tenant may use then."""
    given = wanted.model_dump(exclude={"name", "source", "sink"})
    fields = Fields.of(wanted, find(wanted.task).main_field)
    connections.source(service.settings, wanted.source, caller.tenant, fields)
    target = None if wanted.sink is None else PREFIX + wanted.sink
    spec = ScheduleSpec(**given, inputs=(PREFIX + wanted.source,), sink=target)
    return _shown(making.add(service.store, service.client, wanted.name, spec, tenant=caller.tenant))


@router.get("/{schedule_id}", responses=documented(404))
def look(schedule_id: str, service: Serves, caller: Reader) -> ScheduleInfo:
    return _shown(_mine(service, caller, schedule_id))


@router.get("/{schedule_id}/runs", responses=documented(404), summary="What became of its times, the last one first")
def runs(
    schedule_id: str,
    service: Serves,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 20,
    before: Annotated[int | None, Query(ge=0, le=2**62, description="`next` of the page before.")] = None,
) -> ScheduleRunPage:
    mine = _mine(service, caller, schedule_id)
    found = service.store.schedules.runs(mine.id, limit=limit + 1, before=before)
    return ScheduleRunPage(data=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


@router.post("/{schedule_id}/pause", responses=documented(404))
def pause(schedule_id: str, service: Serves, caller: Admin) -> ScheduleInfo:
    return _shown(service.store.schedules.pause(_mine(service, caller, schedule_id).id))


@router.post("/{schedule_id}/resume", responses=documented(404))
def resume(schedule_id: str, service: Serves, caller: Admin) -> ScheduleInfo:
    return _shown(making.resume(service.store, _mine(service, caller, schedule_id).id))


@router.post("/{schedule_id}/run", status_code=201, responses=documented(404), summary="A run at this moment")
def run(schedule_id: str, service: Serves, caller: Admin) -> ScheduleRun:
    return service.store.schedules.run_now(_mine(service, caller, schedule_id).id)


@router.delete("/{schedule_id}", status_code=204, responses=documented(404), summary="Delete it; its jobs stay")
def delete(schedule_id: str, service: Serves, caller: Admin) -> None:
    service.store.schedules.delete(_mine(service, caller, schedule_id).id)


def _mine(service: Service, caller: Caller, schedule_id: str) -> Schedule:
    return service.store.schedules.get(schedule_id, caller.tenant)


def _shown(found: Schedule) -> ScheduleInfo:
    return ScheduleInfo(**found.model_dump(), explained=explained(found.spec))

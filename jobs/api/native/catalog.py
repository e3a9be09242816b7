"""What there is to work with: tasks, models, workers."""

from fastapi import APIRouter

from jobs.api.native.shapes import ConnectionInfo, ModelInfo, TaskInfo, TenantInfo, WorkerInfo
from jobs.api.problems import HttpProblem, documented
from jobs.api.service import Admin, Reader, Serves
from jobs.connections import usable
from jobs.errors import UnknownModel, UnknownTask
from jobs.models import ModelSpec
from jobs.tasks import AnyTask, all_tasks, find
from jobs.upkeep import LIVE_S

router = APIRouter(tags=["catalog"])


@router.get("/tasks", summary="The tasks, with their JSON schemas")
def tasks(caller: Reader) -> list[TaskInfo]:
    return [_task(each) for each in all_tasks()]


@router.get("/tasks/{name}", responses=documented(404))
def task(name: str, caller: Reader) -> TaskInfo:
    try:
        return _task(find(name))
    except UnknownTask as error:
        raise HttpProblem(404, "unknown_task", str(error)) from error


@router.get("/models", summary="The models that jobs may name")
def models(service: Serves, caller: Reader) -> list[ModelInfo]:
    return [_model(each) for each in service.client.registry_of(caller.tenant).list()]


@router.get("/models/{name}", responses=documented(404))
def model(name: str, service: Serves, caller: Reader) -> ModelInfo:
    try:
        return _model(service.client.registry_of(caller.tenant).get(name))
    except UnknownModel as error:
        raise HttpProblem(404, "unknown_model", str(error)) from error


@router.get("/connections", summary="Sources and sinks that the operator has named")
def connections(service: Serves, caller: Reader) -> list[ConnectionInfo]:
    found = usable(service.settings, caller.tenant)
    return [
        ConnectionInfo(name=name, source=each.source is not None, sink=each.sink is not None)
        for name, each in sorted(found.items())
    ]


@router.get("/workers", summary="The workers that are alive")
def workers(service: Serves, caller: Admin) -> list[WorkerInfo]:
    rows = service.store.workers.live(LIVE_S)
    return [WorkerInfo(**{name: getattr(row, name) for name in WorkerInfo.model_fields}) for row in rows]


@router.post("/workers/{worker_id}/quiet", status_code=204, responses=documented(404))
def quiet(worker_id: str, service: Serves, caller: Admin) -> None:
    """It claims nothing more and finishes what it holds, so that it can be ended without a trace."""
    service.store.workers.quiet(worker_id, on=True)


@router.post("/workers/{worker_id}/wake", status_code=204, responses=documented(404))
def wake(worker_id: str, service: Serves, caller: Admin) -> None:
    """It goes on after it was quiet."""
    service.store.workers.quiet(worker_id, on=False)


@router.get("/tenant", summary="What the caller's tenant may do, and what it has in line")
def tenant(service: Serves, caller: Reader) -> TenantInfo:
    allowed, used = service.store.tenants.get(caller.tenant), service.store.tenants.used(caller.tenant)
    return TenantInfo(**allowed.model_dump(), used=used)


def _task(found: AnyTask) -> TaskInfo:
    return TaskInfo(
        name=found.name,
        aliases=found.aliases,
        summary=found.summary,
        main_field=found.main_field,
        item_schema=found.input.model_json_schema(),
        params_schema=found.params.model_json_schema(),
        output_schema=found.output.model_json_schema(mode="serialization"),
    )


def _model(spec: ModelSpec) -> ModelInfo:
    """Without the places where its files lie."""
    return ModelInfo(**{name: getattr(spec, name) for name in ModelInfo.model_fields})

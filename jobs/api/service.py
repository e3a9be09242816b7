"""What every request works with, and how a route asks for it."""

from typing import TYPE_CHECKING, Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from jobs.api.access import Access, Caller
from jobs.api.indexes import Indexes
from jobs.api.limits import RateLimits
from jobs.api.metrics import Metrics
from jobs.api.openai.batching import Batching
from jobs.api.openai.storage import Storage
from jobs.api.watching import Watching
from jobs.errors import InvalidState, UnknownJob
from jobs.schemas import Job
from jobs.store import ids

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.settings import Settings
    from jobs.store import Store


READERS = 2
"""Requests that read a whole job at once; the others' threads stay free meanwhile."""
_BEARER = HTTPBearer(auto_error=False, description="A key, `tm_...`; not needed on loopback as long as there is none.")
"""For OpenAPI alone: `Access` decides."""


class Service:
    """One deployment, as the API serves it."""

    def __init__(self, settings: "Settings", store: "Store", client: "Client", access: Access) -> None:
        self.settings, self.store, self.client, self.access = settings, store, client, access
        self.watching = Watching(store.jobs.pulses, store.jobs.get)
        self.limits = RateLimits(store.tenants.get, settings.requests_per_minute)
        self.metrics = Metrics(store)
        self.storage = Storage(settings)
        self.batching = Batching(settings, store, client, self.storage)
        self.indexes = Indexes(store, settings.max_index_bytes)
        self.readers = CapacityLimiter(READERS)

    def job(self, caller: Caller, job_id: str) -> Job:
        """The caller's job of that whole id. Raises UnknownJob, also for a job of somebody else."""
        ids.parse(job_id)
        job = self.store.jobs.get(job_id)
        if job.tenant != caller.tenant:
            raise UnknownJob(f"no job {job_id!r}")
        return job

    def readable(self, caller: Caller, job_id: str, *, partial: bool) -> Job:
        """The caller's job, which has ended unless `partial` results will do. Raises UnknownJob, InvalidState."""
        job = self.job(caller, job_id)
        if not (job.state.final or partial):
            done = f"{job.counts.ok + job.counts.error:,} of {job.counts.total:,} items have a result"
            raise InvalidState(f"{job.id} is {job.state}, {done}; wait for its end, or take those with partial: true")
        return job


# What waits for nothing is a coroutine: FastAPI runs anything else in a thread, which costs more than these do.


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _caller(request: Request, service: "Serves", _: Annotated[object, Depends(_BEARER)]) -> Caller:
    caller = service.access.caller(request.headers.get("authorization"))
    service.limits.count(caller.tenant)
    return caller


async def _reader(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    caller.need("read")
    return caller


async def _submitter(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    caller.need("submit")
    return caller


async def _admin(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    caller.need("admin")
    return caller


Serves = Annotated[Service, Depends(_service)]
Reader = Annotated[Caller, Depends(_reader)]
"""Somebody who may look at jobs of their tenant."""
Submitter = Annotated[Caller, Depends(_submitter)]
"""Somebody who may submit and steer them, too."""
Admin = Annotated[Caller, Depends(_admin)]
"""Somebody who may manage keys, and see the machines."""

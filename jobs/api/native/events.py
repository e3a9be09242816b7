"""Server-sent events: a job as it changes, until it ends."""

from collections.abc import AsyncIterator

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from jobs.api.problems import documented
from jobs.api.service import Reader, Serves, Service
from jobs.api.watching import pulse_of
from jobs.errors import StoreUnavailable, UnknownJob
from jobs.schemas import Job
from jobs.store.values import Pulse

STREAM = "text/event-stream"
ALIVE_S = 15.0
"""A comment is sent when nothing has happened for so long, so that proxies keep the connection."""

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {STREAM: {"schema": {"type": "string"}}}}, **documented(404)},
    summary="A job as it changes, as server-sent events",
)
async def events(job_id: str, service: Serves, caller: Reader) -> StreamingResponse:
    """An event `job` with the whole job for each change, at once for how it is now; `end` when it has ended."""
    job = await run_sync(service.job, caller, job_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_changes(service, job), media_type=STREAM, headers=headers)


async def _changes(service: Service, job: Job) -> AsyncIterator[bytes]:
    seen: Pulse | None = None
    while True:
        if (now := pulse_of(job)) != seen:
            seen = now
            yield _event("job", job.model_dump_json())
        if job.state.final:
            yield _event("end", f'{{"state":"{job.state}"}}')
            return
        if not await service.watching.changed(job.id, now, ALIVE_S):
            yield b": alive\n\n"
            continue
        try:
            job = await service.watching.job(job.id)
        except UnknownJob:
            yield _event("end", '{"state":"deleted"}')
            return
        except StoreUnavailable:
            continue


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()

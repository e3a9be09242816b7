"""Jobs of requests that wait for their answer: looked at until they are answered, then deleted."""

import asyncio
from contextlib import suppress

from anyio.to_thread import run_sync

from jobs.api.problems import HttpProblem
from jobs.api.service import Service
from jobs.errors import InvalidState, UnknownJob
from jobs.schemas import Result
from jobs.store.results import results_of

LOOKS_S = (0.01, 0.25)
"""Between two looks for the answer: at first, and most."""


async def answers(service: Service, job_id: str, count: int, longest_s: float, *, instead: str) -> list[Result]:
    """All results of a job of so many items, which is deleted, answered or not. Raises HttpProblem when the job fails
    or takes too long; `instead` says what else can be done then."""
    try:
        return await _results(service, job_id, count, longest_s, instead)
    finally:
        await asyncio.shield(run_sync(_put_away, service, job_id))


async def _results(service: Service, job_id: str, count: int, longest_s: float, instead: str) -> list[Result]:
    loop = asyncio.get_running_loop()
    until, wait_s = loop.time() + longest_s, LOOKS_S[0]
    while True:
        rows = await run_sync(service.store.results.rows, job_id, 0, count)
        if len(rows) == count:
            return results_of(rows)
        job = await run_sync(service.store.jobs.get, job_id)
        if job.state.final and job.state != "completed":
            raise HttpProblem(500, "job_failed", job.error or f"the job is {job.state}")
        if loop.time() > until:
            raise HttpProblem(504, "timeout", f"no answer within {longest_s:g} s; {instead}")
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 1.5, LOOKS_S[1])


def _put_away(service: Service, job_id: str) -> None:
    """The job is of no use to anybody any more; one that is not done is given up."""
    with suppress(InvalidState, UnknownJob):
        if not service.store.jobs.finish(job_id):
            service.store.jobs.cancel(job_id)
    with suppress(InvalidState, UnknownJob):
        service.store.jobs.delete(job_id)

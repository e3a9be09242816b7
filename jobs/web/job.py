"""One job: how far it is, what happened to it, what can be done with it."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import Response

from jobs.api.problems import HttpProblem
from jobs.api.service import Service
from jobs.errors import UnknownJob
from jobs.schemas import Job
from jobs.states import CanaryState, Control
from jobs.web import snippets
from jobs.web.pages import Look, Looks, moved, page

router = APIRouter()

STEPS: dict[str, Callable[[Service, str], Any]] = {
    "pause": lambda service, job_id: service.client.pause(job_id),
    "resume": lambda service, job_id: service.client.resume(job_id),
    "approve": lambda service, job_id: service.client.approve(job_id),
    "retry": lambda service, job_id: service.client.retry(job_id).id,
}
"""What can be done to a job at once; what cannot be undone is asked for first (`bulk`). An id is that of the job to be
looked at then."""
SAMPLES = 3


@page(router, "/jobs/{job_id}", "job.html", parts=("head", "pace", "strip", "failures", "events"))
def show(look: Look) -> Mapping[str, Any]:
    job, insight = found(look), look.service.store.insight
    return {
        "job": job,
        "steps": steps(job) if look.steers else (),
        "cells": insight.strip(job.id),
        "phases": insight.phases(job.id),
        "pace": insight.pace(job.id),
        "failed": insight.failures(job.id, samples=SAMPLES) if job.counts.error else (),
        "trouble": insight.trouble(job.id),
        "events": insight.events(job.id),
        "sent": insight.deliveries(job.id),
        "export": look.service.store.exports.get(job.id),
        "snippets": snippets.of(job, str(look.request.base_url)),
    }


@router.post("/jobs/{job_id}/{step}")
def steer(job_id: str, step: str, look: Looks) -> Response:
    look.caller.need("submit")
    if step not in STEPS:
        raise HttpProblem(404, "not_found", f"there is no {step[:50]!r} for a job")
    done = STEPS[step](look.service, look.service.job(look.caller, job_id).id)
    return moved(f"/jobs/{done if isinstance(done, str) else job_id}")


@router.post("/jobs/{job_id}/deliveries/{delivery_id}")
def redeliver(job_id: str, delivery_id: str, look: Looks, webhook: Annotated[str, Form()]) -> Response:
    """Send a webhook's news of this job again."""
    look.caller.need("admin")
    job = look.service.job(look.caller, job_id)
    look.service.store.webhooks.get(webhook, look.caller.tenant)
    look.service.store.webhooks.redeliver(webhook, delivery_id)
    return moved(f"/jobs/{job.id}#events")


def found(look: Look) -> Job:
    """The job of the page's address. Raises UnknownJob."""
    job_id = look.request.path_params["job_id"]
    try:
        return look.service.job(look.caller, job_id)
    except ValueError as error:
        raise UnknownJob(f"no job {job_id[:100]!r}") from error


def steps(job: Job) -> list[str]:
    """What can be done to the job as it is."""
    if job.state.final:
        left = job.counts.error or job.counts.pending
        return (["retry"] if left else []) + ["delete"]
    if job.canary is not None and job.canary.state is CanaryState.WAITING:
        return ["approve", "cancel"]
    return ["resume" if job.control is Control.PAUSE else "pause", "cancel"]

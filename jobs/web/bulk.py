"""Several jobs at once: asked for, counted, confirmed, done."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Form
from fastapi.responses import Response

from jobs.api.problems import HttpProblem
from jobs.api.service import Service
from jobs.errors import TextmillError
from jobs.web import filters
from jobs.web.joblist import Where
from jobs.web.pages import Look, Looks, moved, rendered

MOST = 500
"""Jobs of one confirmation: a form has at most 1,000 fields."""
NAMED = 10
"""Of those that could not be done, so many are told with the reason."""

router = APIRouter()


class Action(NamedTuple):
    """What can be done to several jobs."""

    asks: str
    done: str
    means: str
    do: Callable[[Service, str], Any]


ACTIONS = {
    "cancel": Action(
        "Cancel", "cancelled", "Their results so far are kept.", lambda service, job: service.client.cancel(job)
    ),
    "retry": Action(
        "Retry",
        "retried",
        "Each becomes a new job of the items without an ok result.",
        lambda service, job: service.client.retry(job),
    ),
    "delete": Action(
        "Delete",
        "deleted",
        "Their items and results are gone for good.",
        lambda service, job: service.store.jobs.delete(job),
    ),
}


@router.post("/jobs/bulk")
def bulk(
    look: Looks,
    action: Annotated[str, Form()],
    job: Annotated[list[str] | None, Form()] = None,
    all: Annotated[bool, Form()] = False,
    q: Annotated[str, Form()] = "",
    sort: Annotated[str, Form()] = "",
    sure: Annotated[int | None, Form()] = None,
) -> Response:
    """Ask first; once it is `sure` of how many, do it. Jobs of other tenants do not exist."""
    look.caller.need("submit")
    if action not in ACTIONS:
        raise HttpProblem(422, "invalid_request", f"action {action[:50]!r} is unknown; there are: {', '.join(ACTIONS)}")
    where, wanted = Where(q, sort), ACTIONS[action]
    chosen = _matching(look, q) if all else list(dict.fromkeys(job or []))
    more, chosen = len(chosen) > MOST, chosen[:MOST]
    given: dict[str, Any] = {"action": action, "wanted": wanted, "chosen": chosen, "where": where, "more": more}
    if not chosen or sure != len(chosen):
        return rendered("confirm.html", look.request, look, **given)
    failed: list[tuple[str, str]] = []
    for each in chosen:
        try:
            wanted.do(look.service, look.service.job(look.caller, each).id)
        except TextmillError as error:
            failed.append((each, str(error)))
    if not failed:
        return moved(where.url())
    done = len(chosen) - len(failed)
    return rendered("bulk.html", look.request, look, **given, done=done, failed=failed[:NAMED], n_failed=len(failed))


def _matching(look: Look, q: str) -> list[str]:
    """The jobs that the filter finds, one more than are done at once.

    Raises HttpProblem (422) where a part of it is not understood: without that part it finds more jobs than were meant.
    """
    asked = filters.parse(q)
    if asked.wrong:
        raise HttpProblem(422, "invalid_filter", f"nothing was done: {'; '.join(asked.wrong)}")
    return look.service.store.overview.matching(look.caller.tenant, asked.filter, MOST + 1)

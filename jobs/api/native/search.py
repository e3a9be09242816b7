"""What `textmill search` does: the results of an embed job that are nearest to a text, a vector or an item."""

from functools import partial
from typing import Self

from anyio.to_thread import run_sync
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from jobs.api.asking import answers
from jobs.api.problems import documented
from jobs.api.service import Reader, Serves, Service
from jobs.schemas import CustomId, Found, Frozen, Job
from jobs.search import Index, query_vector, submit_query, with_items

MOST_FOUND = 1000
MOST_BYTES = 64 * 2**20
"""Of the items in one answer, which is in memory as a whole: one alone may have 16 MiB."""
MOST_NUMBERS = 65_536
"""Of a vector; what a job of embed may have."""
LONGEST_S = 60.0
"""How long a query may wait for a worker: clients wait a little longer for an answer."""

router = APIRouter(tags=["results"])


class Query(BaseModel):
    """What is searched for: one of `text`, `vector` and `like`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    text: str | None = Field(default=None, min_length=1)
    """Embedded by the job's model with the job's params, ahead of all other work."""
    vector: list[FiniteFloat] | None = Field(default=None, min_length=1, max_length=MOST_NUMBERS)
    """As long as the job's vectors are; its own length does not count."""
    like: CustomId | None = None
    """The `custom_id` of an item of the job: what is nearest to it."""
    top_k: int = Field(default=10, ge=1, le=MOST_FOUND)
    """So many results."""
    partial: bool = False
    """Whether a job that still runs is searched by the results it has; without, it is refused."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in ("text", "vector", "like") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"one of text, vector and like is wanted; given: {', '.join(given) or 'none'}")
        return self


class Nearest(Frozen):
    data: list[Found]
    """The nearest first."""
    vectors: int
    """How many were compared: items without a result have none."""


@router.post(
    "/jobs/{job_id}/search",
    responses=documented(404, 409, 500, 501, 504),
    summary="The nearest results of an embed job",
)
async def search(job_id: str, wanted: Query, service: Serves, caller: Reader) -> Nearest:
    """By the cosine of their vectors, each of which is compared. The first search of a job reads its vectors; the
    server keeps them for a while."""
    job = await run_sync(partial(service.readable, caller, job_id, partial=wanted.partial))
    index = await _index(service, job)
    vector = wanted.vector if wanted.text is None else await _embedded(service, job, wanted.text)
    return await run_sync(_nearest, service, job, index, wanted, vector)


async def _index(service: Service, job: Job) -> Index:
    kept = await run_sync(service.indexes.kept, job.id)
    return kept if kept is not None else await run_sync(service.indexes.read, job.id, limiter=service.readers)


async def _embedded(service: Service, job: Job, text: str) -> list[float]:
    handle = await run_sync(submit_query, service.client, job, text, job.queue)
    instead = f"a worker that serves queue {job.queue!r} is needed to embed the query"
    [answer] = await answers(service, handle.id, 1, LONGEST_S, instead=instead)
    return query_vector(text, answer)


def _nearest(service: Service, job: Job, index: Index, wanted: Query, vector: list[float] | None) -> Nearest:
    if wanted.like is not None:
        hits = index.like(wanted.like, wanted.top_k)
    else:
        hits = index.nearest(vector or [], wanted.top_k)
    return Nearest(data=with_items(service.store, job.id, hits, MOST_BYTES), vectors=len(index))

"""The ASGI application: middleware, errors, routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

from jobs.api import metrics, native, problems, root
from jobs.api.access import SAFE, Access
from jobs.api.gate import Gate
from jobs.api.native.tus import Tus
from jobs.api.openai import routes as openai
from jobs.api.service import Service
from jobs.client import Client
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.store import Store

THREADS = 8
"""Requests that work at once: as many as the store has connections. Those that wait for a change take none."""

STREAMED = (
    f"{native.PREFIX}/jobs/upload",
    f"{native.PREFIX}/uploads/[^/]+",
    f"{openai.PREFIX}/files",
    f"{openai.PREFIX}/uploads/[^/]+/parts",
    "/jobs/new",
)
"""Paths whose bodies may be as large as a job's items."""


def create_app(settings: Settings, store: Store, queue: Queue, *, open_to_all: bool) -> FastAPI:
    """The API of a deployment. `open_to_all`: without keys as long as there is none, for loopback addresses."""
    access = Access(store.keys, open_to_all=open_to_all)
    service = Service(settings, store, Client(settings, store=store, queue=queue), access)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = THREADS
        service.batching.start()
        yield
        await service.batching.close()
        await service.watching.close()

    app = FastAPI(
        title="Textmill",
        version=version("textmill"),
        description="Bulk NLP jobs on your own machines: every item exactly once.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        separate_input_output_schemas=False,
        # Requests that change something are traced; those who poll would drown them.
        telemetry={"operation_spans": False, "exclude": lambda scope: scope.get("method") in SAFE},
    )
    app.state.service = service
    plain = app.openapi
    app.openapi = lambda: problems.described(plain())  # type: ignore[method-assign]
    problems.install(app)
    app.include_router(native.router)
    app.include_router(openai.router)
    app.include_router(root.router)
    app.add_middleware(metrics.Measured, metrics=service.metrics, prefixes=(native.PREFIX, openai.PREFIX))
    app.add_middleware(Tus, prefix=f"{native.PREFIX}/uploads")
    app.add_middleware(
        Gate,
        hosts=settings.api_hosts,
        most=settings.max_request_bytes,
        streamed=STREAMED,
        most_streamed=settings.max_job_bytes,
    )

    return app

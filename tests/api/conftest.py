"""A real server on a free port, over both databases, and clients that ask it; work is done when a test says so."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from jobs.api.server import ApiServer
from jobs.cli.serving import server
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.store import Store
from tests.worker.conftest import MakeShift, make_shift, residency

__all__ = ["make_shift", "residency"]

Serve = Callable[..., ApiServer]
Connect = Callable[..., "Api"]


@pytest.fixture
def serve(store: Store, settings: Callable[..., Settings]) -> Iterator[Serve]:
    """Starts servers; keyword arguments are settings."""
    started: list[tuple[ApiServer, Queue]] = []

    def start(**overrides: Any) -> ApiServer:
        made = settings(**{"api_port": 0, "redis_url": "redis://127.0.0.1:1/0", **overrides})
        queue = Queue(made)
        served = server(made, store, queue)
        served.start()
        started.append((served, queue))
        return served

    yield start
    for served, queue in started:
        served.stop()
        queue.close()


class Api(httpx2.Client):
    """Asks the native API of one server."""

    def __init__(self, server: ApiServer, secret: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        super().__init__(base_url=f"{server.url}/api/v1", headers=headers, timeout=30, trust_env=False)

    def job(self, items: list[Any], **wanted: Any) -> Any:
        """A job submitted: classify with the fake engine, unless told otherwise."""
        answer = self.post("/jobs", json={"task": "classify", "model": "fake", "items": items, **wanted})
        assert answer.status_code == 201, answer.text
        return answer.json()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients of servers, with a key's secret or without."""
    with ExitStack() as stack:
        yield lambda server, secret=None: stack.enter_context(Api(server, secret))


@pytest.fixture
def api(serve: Serve, connect: Connect) -> Api:
    """A client of a server without keys."""
    return connect(serve())


@pytest.fixture
def work(make_shift: MakeShift, store: Store) -> Callable[[], None]:
    """Does all the work there is, and finishes its jobs."""

    def do() -> None:
        make_shift().run()
        for job_id in store.jobs.finishable():
            store.jobs.finish(job_id)

    return do

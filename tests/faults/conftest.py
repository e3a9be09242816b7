"""After every fault: no process, handle or connection is left over (I9)."""

from collections.abc import Iterator

import pytest

from tests.deployment import Deploy
from tests.leftovers import check_children, check_connections, check_process, children

OWN_CONNECTIONS = 8
"""PostgreSQL connections that the test's own stores keep."""


@pytest.fixture
def deploy(deploy: Deploy, request: pytest.FixtureRequest) -> Iterator[Deploy]:
    """The deployments of a test, looked over at its end."""
    before, made = children(), []

    def make(**overrides: object) -> object:
        made.append(deploy(**overrides))
        return made[-1]

    yield make  # type: ignore[misc]
    for mill in made:
        for worker in mill.workers:
            if worker.alive:
                check_process(worker.pid)
            worker.kill()
        check_connections(mill.store, OWN_CONNECTIONS)
    check_children(before)

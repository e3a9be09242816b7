"""A worker without Celery: shifts in this process, on both databases, with the fake engine."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from jobs.models import Registry
from jobs.settings import Settings
from jobs.store import Store
from worker.devices import Device
from worker.meter import Meter
from worker.note import Note
from worker.residency import Residency
from worker.shift import Shift
from worker.watchdog import Watchdog

MakeShift = Callable[..., Shift]
CPU = Device("cpu", "cpu", 2**30, 1, shared=False)


class Exited(BaseException):
    """Stands for the end of the process."""

    def __init__(self, code: int) -> None:
        self.code = code


def leave(code: int) -> NoReturn:
    raise Exited(code)


@pytest.fixture
def residency(store: Store, settings: Callable[..., Settings]) -> Iterator[Residency]:
    """The loaded models of this test's worker."""
    made = Residency(settings(), CPU, Registry(store).get)
    yield made
    made.close()


@pytest.fixture
def make_shift(store: Store, settings: Callable[..., Settings], residency: Residency) -> MakeShift:
    """A shift of a worker; keyword arguments are settings."""

    def make(*, worker_id: str = "w1", queues: tuple[str, ...] = ("default",), **overrides: Any) -> Shift:
        return Shift(
            store=store,
            settings=settings(**{"lease_s": 10.0, **overrides}),
            residency=residency,
            watchdog=Watchdog(lambda reason: None, leave),
            meter=Meter(),
            note=Note(None, worker_id),
            worker_id=worker_id,
            queues=queues,
        )

    return make

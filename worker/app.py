"""The Celery app of a worker and its single Celery task: `celery -A worker.app worker`."""

from functools import cache
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.worker.control import inspect_command

from jobs.queue import SHIFT, celery_app
from jobs.settings import Settings, load_settings
from worker.bootsteps import Fitness, Mill, machine

if TYPE_CHECKING:
    app: Celery


def build(settings: Settings) -> Celery:
    """The app for these settings."""
    built = celery_app(settings)
    built.conf.broker_transport = "worker.consumer:Transport"
    built.textmill = settings
    for step in (Fitness, Mill):
        built.steps["worker"].add(step)
    built.task(name=SHIFT, ignore_result=True)(shift)
    return built


def shift(queue: Any = None) -> dict[str, int] | None:
    """A hint's work: a shift that starts on its queue. None when the hint meant nothing here."""
    tally = machine().work(queue)
    return None if tally is None else {"chunks": tally.chunks, "items": tally.items, "errors": tally.errors}


@inspect_command(name="textmill")  # type: ignore[untyped-decorator]
def show(state: Any) -> dict[str, Any]:
    """Models, totals and ignored hints of a worker: `celery -A worker.app inspect textmill`."""
    return machine().info()


@cache
def _app() -> Celery:
    built = build(load_settings())
    built.set_default()
    return built


def __getattr__(name: str) -> Any:
    """`worker.app.app`, made from the settings when it is first asked for: importing this module reads nothing."""
    if name in ("app", "celery"):
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What Celery's worker starts and stops for Textmill: the check that it fits, and the machine."""

import gc
import os
import threading
import time
from typing import Any

from celery import bootsteps, signals
from celery.concurrency.thread import TaskPool
from celery.worker.state import maybe_shutdown

from jobs.endings import UNFIT
from jobs.errors import SchemaOutdated, StoreUnavailable, TextmillError
from jobs.tasks import all_tasks
from worker.backoff import backoff
from worker.machine import Machine, log

LEAST_VISIBILITY_S = 60
"""The shortest visibility timeout of any attached worker wins; below this, hints come back while they wait."""

_machine: Machine | None = None
_told = False
_refused = False


def machine() -> Machine:
    """This process's machine. Raises RuntimeError before the worker has started."""
    if _machine is None:
        raise RuntimeError("this process is no Textmill worker")
    return _machine


def told_to_end() -> bool:
    """Whether a signal asked this worker to end."""
    return _told


def refused() -> bool:
    """Whether this worker found, once it had started, that it cannot run here. Celery 5.7 keeps the exit code of a step
    to itself when it is called from a program."""
    return _refused


class Fitness(bootsteps.StartStopStep):  # type: ignore[misc]
    """Refuses to start where work would be lost, before the pool is made."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        problems = unfit(parent.app.conf, parent.pool_cls, parent.concurrency, options.get("autoscale"))
        if problems:
            log.critical("this worker cannot start: %s", "; ".join(problems))
            raise SystemExit(UNFIT)


class Mill(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the machine after the pool and before the consumer, which never becomes ready while Redis is absent."""

    requires = (Fitness, "celery.worker.components:Pool")

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._machine: Machine | None = None

    def start(self, parent: Any) -> None:
        global _machine
        try:
            queues = list(parent.app.amqp.queues.consume_from)
            self._machine = _machine = Machine(parent.app.textmill, queues=queues)
            self._machine.watch()
            _wait_for_schema(self._machine)
        except SchemaOutdated as error:
            raise _unfit_exit(error) from error
        all_tasks()  # imports them now, not in the first job's time
        _calm_the_collector()
        # At SIGQUIT Celery 5.7 calls it for a shift that a hint started, and waits for that; its threads pool raises.
        parent.pool.terminate_job = lambda *_, **__: self._hurry()
        self._machine.start()
        signals.task_received.connect(self._on_hint, weak=False)
        signals.worker_shutting_down.connect(self._on_signal, weak=False)
        log.info("worker %s on %s serves %s", _machine.id, _machine.device.name, ", ".join(_machine.queues))

    def stop(self, parent: Any) -> None:
        self._end(None)

    def terminate(self, parent: Any) -> None:
        self._end(0.0)

    def _end(self, grace_s: float | None) -> None:
        signals.task_received.disconnect(self._on_hint)
        if self._machine is not None:
            self._machine.stop(grace_s)
            self._machine.close()
            self._machine = None

    def _on_hint(self, **_: Any) -> None:
        if self._machine is not None:
            self._machine.wake()

    def _on_signal(self, how: str = "Warm", **_: Any) -> None:
        """SIGQUIT, or Ctrl-C twice: Celery would take notice once the machine has stopped, which it is waiting for."""
        global _told
        _told = True
        if how == "Cold":
            self._hurry()

    def _hurry(self) -> None:
        # In a thread: a signal handler may have interrupted the very code that would have to be called here.
        if self._machine is not None:
            threading.Thread(target=self._machine.stop, args=(0.0,), name="textmill-hurry", daemon=True).start()


def unfit(conf: Any, pool: Any, concurrency: Any, autoscale: Any = None) -> list[str]:
    """What keeps a Celery worker from being a Textmill worker, in words."""
    problems = []
    if os.environ.get("REMAP_SIGTERM"):
        problems.append("REMAP_SIGTERM is set, which loses running work at SIGTERM outside the prefork pool; unset it")
    if not (isinstance(pool, type) and issubclass(pool, TaskPool)):
        problems.append(f"the pool is {getattr(pool, '__module__', pool)}; a shift needs --pool threads")
    if concurrency != 1 or autoscale:
        problems.append(f"concurrency is {autoscale or concurrency}; a process runs one shift: --concurrency 1")
    if refused := sorted(set(conf.accept_content) - {"json", "application/json"}):
        problems.append(f"accept_content has {', '.join(refused)}; only json is safe to read from a queue")
    visible = (conf.broker_transport_options or {}).get("visibility_timeout", 0)
    if visible < LEAST_VISIBILITY_S:
        problems.append(f"visibility_timeout is {visible} s; at least {LEAST_VISIBILITY_S} s")
    return problems


def _calm_the_collector() -> None:
    """Thousands of items are alive at any time, and none of them in a cycle: looking through them for cycles took a
    third of the time around the model."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def _wait_for_schema(made: Machine) -> None:
    """A database that is down at the start is waited for; one of another revision is not. Raises SchemaOutdated."""
    for wait in backoff():
        try:
            made.store.check_schema()
            return
        except StoreUnavailable as error:
            log.warning("waiting for the database: %s", error)
        _sleep_unless_stopped(wait)


def _sleep_unless_stopped(seconds: float) -> None:
    """Raises what Celery's signal handlers ask for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        maybe_shutdown()
        time.sleep(0.1)


def _unfit_exit(error: TextmillError) -> SystemExit:
    global _refused
    _refused = True
    log.critical("this worker cannot start: %s", error)
    return SystemExit(UNFIT)

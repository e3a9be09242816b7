"""Makes jobs of due times: which are due is decided in SQL, reading the inputs is done in threads."""

import logging
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from jobs import connections, corpus
from jobs.errors import (
    EmptyInput,
    IdempotencyConflict,
    InvalidState,
    NothingNew,
    StoreUnavailable,
    TextmillError,
    UsageError,
)
from jobs.schedules import times
from jobs.schemas import Job
from jobs.states import JobState, RunState
from jobs.store.schedules import Firing
from jobs.tasks import find

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.corpus import Source
    from jobs.settings import Settings
    from jobs.store import Store

AT_ONCE = 4
"""Runs whose inputs are read at the same time."""
DUE_AT_ONCE = 1000
HOLD_S = 60.0
"""A run whose process died is another's after so long; the leader's rounds hold on to those that are worked on."""
HOLD_AGAIN_S = 15.0
QUEUED_S = 2.0
"""How often a run that waits for the one before looks again."""
log = logging.getLogger("textmill.schedules")


class Scheduler:
    """Whoever leads upkeep has it work; `round` returns at once."""

    def __init__(self, store: "Store", client: "Client", settings: "Settings") -> None:
        self._store, self._client, self._settings = store, client, settings
        self._threads: set[threading.Thread] = set()
        self._runs: set[int] = set()
        """Those that are being worked on."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._held_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether runs are being worked on."""
        return bool(self._threads)

    def round(self) -> int:
        """How many due times became runs. Raises StoreUnavailable."""
        self._stop.clear()
        moment, due = self._store.schedules.due(DUE_AT_ONCE)
        begun = 0
        for schedule in due:
            plan = times.plan(schedule, moment)
            fired = [(each, times.begins_at(schedule, each)) for each in plan.fired]
            begun += self._store.schedules.fire(schedule, fired, plan.missed, plan.next_due_at)
        self._hold()
        for _ in range(min(AT_ONCE - len(self._threads), self._store.schedules.ready(AT_ONCE))):
            thread = threading.Thread(target=self._serve, name="textmill-schedules", daemon=True)
            with self._lock:
                self._threads.add(thread)
            thread.start()
        return begun

    def stop(self, wait_s: float = 1.0) -> None:
        """What is not done in time is gone on with by whoever leads next."""
        self._stop.set()
        until = time.monotonic() + wait_s
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _hold(self) -> None:
        with self._lock:
            runs = list(self._runs)
        if runs and time.monotonic() > self._held_at + HOLD_AGAIN_S:
            self._held_at = time.monotonic()
            self._store.schedules.hold(runs, HOLD_S)

    def _serve(self) -> None:
        """One run after the other, until there is none."""
        try:
            while not self._stop.is_set() and (firing := self._store.schedules.take(HOLD_S)) is not None:
                with self._lock:
                    self._runs.add(firing.run_id)
                self._work(firing)
        except StoreUnavailable as error:
            log.warning("schedules: %s", error)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _work(self, firing: Firing) -> None:
        try:
            self._fire(firing)
        except StoreUnavailable as error:
            log.warning("schedule %s: %s", firing.schedule.name, error)
        except UsageError as error:
            self._fail(firing, str(error))
        except Exception as error:
            log.exception("schedule %s failed", firing.schedule.name)
            self._fail(firing, f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._runs.discard(firing.run_id)

    def _fail(self, firing: Firing, why: str) -> None:
        log.warning("schedule %s, due %s: %s", firing.schedule.name, firing.due_at.isoformat(), why)
        try:
            self._store.schedules.end(firing, RunState.FAILED, why)
        except TextmillError as error:
            log.warning("schedule %s: %s", firing.schedule.name, error)

    def _fire(self, firing: Firing) -> None:
        """Make the run's job, unless a policy or the inputs say otherwise. Raises UsageError, StoreUnavailable."""
        key = f"{firing.schedule.id}:{firing.due_at.isoformat()}"
        job_id = self._store.jobs.keyed(firing.schedule.tenant, key)
        made = None if job_id is None else self._store.jobs.get(job_id)
        if made is not None and made.state is not JobState.LOADING:  # by a process that died before it could say so
            self._submitted(firing, made, None)
            return
        if made is None and not self._is_its_turn(firing):
            return
        source = _source(firing, self._settings)
        seen = source.fingerprint() if _looks(firing) else None
        if made is None and seen is not None and seen == firing.seen:
            if firing.schedule.spec.on_change_s is not None:
                self._store.schedules.forget(firing)
            else:
                self._store.schedules.end(firing, RunState.EMPTY, "the inputs are as they were")
            return
        try:
            self._submitted(firing, self._submit(firing, source, key, made), seen)
        except (EmptyInput, NothingNew) as error:
            self._store.schedules.end(firing, RunState.EMPTY, str(error))

    def _is_its_turn(self, firing: Firing) -> bool:
        """What the overlap policy says, while earlier runs are not over."""
        run, job_id = self._store.schedules.before(firing)
        policy = firing.schedule.spec.overlap
        if run is None and job_id is None:
            return True
        if policy == "skip":
            self._store.schedules.end(firing, RunState.SKIPPED, "the run before is not over")
            return False
        if policy == "cancel_previous" and run is None and job_id is not None:
            try:
                self._store.jobs.cancel(job_id)
            except InvalidState:
                log.info("%s has just ended", job_id)
            return True
        self._store.schedules.wait(firing.run_id, QUEUED_S)
        return False

    def _submit(self, firing: Firing, source: "Source", key: str, made: Job | None) -> Job:
        """The job. One that a process left half loaded is gone on with, unless the inputs have changed since."""
        spec = firing.schedule.spec
        deadline = None if spec.deadline_s is None else firing.due_at + timedelta(seconds=spec.deadline_s)

        def submit() -> Job:
            handle = self._client.submit(
                spec.task,
                source,
                model=spec.model,
                params=spec.params,
                priority=spec.priority,
                weight=spec.weight,
                queue=spec.queue,
                labels={**spec.labels, "schedule": firing.schedule.name},
                keep=spec.keep,
                idempotency_key=key,
                deadline_at=deadline,
                on_invalid=spec.on_invalid,
                tenant=firing.schedule.tenant,
                webhook=spec.webhook,
                sink=spec.sink and spec.sink.replace("{schedule}", firing.schedule.name),
                schedule_run=firing.run_id,
                incremental=firing.schedule.id if spec.incremental else None,
            )
            return handle.job

        try:
            return submit()
        except IdempotencyConflict:
            if made is None:
                raise
            self._store.jobs.discard(made.id)
            return submit()

    def _submitted(self, firing: Firing, job: Job, seen: str | None) -> None:
        self._store.schedules.submitted(firing, job.id, job.counts.total, seen)
        told = "schedule %s, due %s: %s with %d items"
        log.info(told, firing.schedule.name, firing.due_at.isoformat(), job.id, job.counts.total, extra={"job": job.id})


def _looks(firing: Firing) -> bool:
    """Whether it matters that the inputs have changed."""
    return firing.schedule.spec.only_new or firing.schedule.spec.on_change_s is not None


def _source(firing: Firing, settings: "Settings") -> "Source":
    spec = firing.schedule.spec
    wanted = corpus.Fields.of(spec, find(spec.task).main_field)
    if spec.inputs[0].startswith(connections.PREFIX):
        name = spec.inputs[0].removeprefix(connections.PREFIX)
        return connections.source(settings, name, firing.schedule.tenant, wanted)
    return corpus.open_source(
        spec.inputs,
        text_field=wanted.text,
        id_field=wanted.id,
        main_field=wanted.main,
        rows=wanted.rows,
        max_line_bytes=settings.max_line_bytes,
        form=spec.format,
    )

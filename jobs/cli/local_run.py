"""One local run, step by step: submit or find again, see it through, write, sum up."""

import hashlib
import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import orjson

from jobs.cli import ERROR, INTERRUPTED, ITEMS_FAILED, WAITS, output
from jobs.cli.choice import choose
from jobs.cli.inputs import Noticed, open_inputs, refuse_overwriting
from jobs.cli.loading import filtered, left_out
from jobs.cli.progress import done, waiting, waits
from jobs.cli.reporters import reporter
from jobs.cli.session import registry, store
from jobs.cli.signals import interruptible
from jobs.cli.summary import interrupted, summary, summary_json
from jobs.cli.workers import Absence
from jobs.client import Client
from jobs.corpus import Fields, Rows
from jobs.corpus.rows import EVERY_ROW
from jobs.errors import NothingNew, TextmillError
from jobs.local.embedded import attend, mill
from jobs.local.mill import Mill
from jobs.schemas import Job
from jobs.settings import Settings, load_settings
from jobs.states import Control, JobState
from jobs.store import Store
from jobs.tasks import resolve, validate_params

if TYPE_CHECKING:
    from jobs.corpus import AnySink, Source
    from jobs.handle import JobHandle

TRY_AGAIN = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
"""A job that ended so is left as it is; the same command begins a new one."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What was typed."""

    task: str
    inputs: tuple[str, ...]
    output: str = "-"
    model: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    text_field: str | None = None
    id_field: str | None = None
    rows: Rows = EVERY_ROW
    format: str | None = None
    query: str | None = None
    """What is read of an input that is a database."""
    keep: tuple[str, ...] = ()
    on_invalid: Literal["reject", "skip"] = "reject"
    priority: int = 0
    incremental: str | None = None
    supervised: dict[str, Any] = field(default_factory=dict)
    """Canary and error budget, as `Client.submit` takes them."""
    as_json: bool = False


class LocalRun:
    """Does what a wish says; `go` is called once."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._task, self._params = resolve(wish.task, wish.params)
        self._reporter = reporter(sys.stderr, as_json=wish.as_json)
        self._job: Job | None = None
        self._elsewhere: str | None = None

    def go(self) -> int:
        """The exit code. Ctrl-C, SIGTERM and a closed terminal end it politely; nothing is lost."""
        validate_params(self._task, self._params)
        settings = load_settings()
        refuse_overwriting(self._wish.inputs, self._wish.output)
        sink = output.open_sink(self._wish.output, self._task, self._wish.keep)
        try:
            with interruptible(), _session(settings) as (client, store):
                return self._see_through(client, store, settings, sink)
        except KeyboardInterrupt:
            self._reporter.close()
            self._reporter.note(interrupted(self._job, self._elsewhere))
            return INTERRUPTED
        finally:
            self._reporter.close()

    def estimate(self) -> int:
        """Print what the wish would be as a job; the exit code."""
        from jobs.cli.dry_run import estimated, exit_code, looked_at, told

        wish = self._wish
        with interruptible(), _session(load_settings()) as (client, store):
            found = estimated(
                client,
                looked_at(store, client, self._task, wish.model),
                task=wish.task,
                inputs=wish.inputs,
                params=wish.params,
                text_field=wish.text_field,
                id_field=wish.id_field,
                rows=wish.rows,
                form=wish.format,
                query=wish.query,
                keep=wish.keep,
            )
        print(found.model_dump_json() if wish.as_json else told(found))
        return exit_code(found, wish.on_invalid)

    def _see_through(self, client: Client, store: Store, settings: Settings, sink: "AnySink") -> int:
        machine = mill(settings, store, role="run", say=self._reporter.note)
        try:
            handle, job = self._submit(client, store, settings, machine)
            export = output.Export(handle, sink)
            if not job.state.final:
                job = self._follow(handle, store, machine, export)
            return self._finish(job, export)
        except NothingNew as nothing:
            self._reporter.note(str(nothing))
            return 0
        except KeyboardInterrupt:
            self._say_goodbye(machine, settings)
            raise
        finally:
            sink.discard()
            machine.stop()

    def _submit(self, client: Client, store: Store, settings: Settings, machine: Mill) -> "tuple[JobHandle, Job]":
        """The job of this very command: the one it left behind, or a new one."""
        wish = self._wish
        fields = Fields(main=self._task.main_field, text=wish.text_field, id=wish.id_field, rows=wish.rows)
        with open_inputs(
            wish.inputs, settings, fields, form=wish.format, query=wish.query, say=self._reporter.note
        ) as source:
            model, queue = choose(store, client.registry, self._task, wish.model), settings.queues[0]
            key = self._key(model, queue, source.fingerprint())
            for attempt in itertools.count(1):
                # An incremental job may turn out to have no items.
                begin = (lambda: None) if wish.incremental is not None else partial(_begin, machine)
                noticed = Noticed(source, self._reporter.note, on_long=begin)
                key_now = key if attempt == 1 else f"{key}-{attempt}"
                left = self._left(client, store, key_now)
                handle = left or self._submit_one(client, model, queue, noticed, key_now, source.labels)
                self._job = job = handle.refresh()
                if job.state not in TRY_AGAIN and not self._is_written(job):
                    break
        for notice in (*filtered(source), *left_out(handle, settings)):
            self._reporter.note(notice)
        if handle.loaded is None:
            self._greet(client, job)
        return handle, job

    def _left(self, client: Client, store: Store, key: str) -> "JobHandle | None":
        """The incremental job that this command left with all its items: asked again, they might not be new."""
        job_id = store.jobs.keyed("default", key) if self._wish.incremental is not None else None
        handle = None if job_id is None else client.get(job_id)
        return None if handle is None or handle.job.state is JobState.LOADING else handle

    def _is_written(self, job: Job) -> bool:
        """Whether it is an earlier incremental job, whose results this command has written already."""
        if self._wish.incremental is None or job.state is not JobState.COMPLETED:
            return False
        assert job.finished_at is not None
        try:
            written_at = os.stat(self._wish.output).st_ctime  # of its renaming into place
        except FileNotFoundError:
            return self._wish.output == "-"
        return written_at >= job.finished_at.timestamp()

    def _submit_one(
        self, client: Client, model: str, queue: str, source: "Source", key: str, labels: Mapping[str, str]
    ) -> "JobHandle":
        return client.submit(
            self._task.name,
            source,
            model=model,
            params=self._params,
            priority=self._wish.priority,
            queue=queue,
            labels=labels,
            keep=self._wish.keep,
            idempotency_key=key,
            on_invalid=self._wish.on_invalid,
            **self._wish.supervised,
            incremental=self._wish.incremental,
        )

    def _key(self, model: str, queue: str, fingerprint: str | None) -> str:
        """What makes it the same command: task, model, params, the input's content, the output's name.

        Beside those: what decides the output's content, and a queue that this worker serves.
        """
        wish = self._wish
        name = wish.output if wish.output == "-" else os.path.abspath(wish.output)
        parts = [self._task.name, model, self._params, fingerprint, name, wish.keep, wish.on_invalid, queue]
        parts += [] if wish.incremental is None else [wish.incremental]
        return "run-" + hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:48]

    def _greet(self, client: Client, job: Job) -> None:
        """Say how an earlier run of this command left it."""
        if job.priority != self._wish.priority and not job.state.final:
            self._reporter.note(f"{job.id} keeps the priority it was begun with: {job.priority}")
        if job.canary is None and self._wish.supervised.get("canary") and not job.state.final:
            self._reporter.note(f"{job.id} was begun without a canary, and goes on without one")
        if job.state == JobState.COMPLETED:
            self._reporter.note(f"{job.id} is done already; its results are written again without running the model")
        elif done(job):
            self._reporter.note(
                f"{job.id} goes on where it was left: {done(job):,} of {job.counts.total:,} items are done"
            )
        if job.control == Control.PAUSE and not job.state.final and not waits(job):
            why = f" ({job.error})" if job.error else ""
            self._reporter.note(f"{job.id} was paused{why}; it goes on now")
            client.resume(job.id)

    def _follow(self, handle: "JobHandle", store: Store, machine: Mill, export: output.Export) -> Job:
        """See the job to its end, whoever's machine works on it."""
        said: str | None = None
        absence = Absence(store, handle.refresh().queue)
        for job in attend(machine, handle.refresh, self._reporter.note):
            self._job = job
            self._reporter.show(job)
            owner = machine.owner()
            self._elsewhere = str(owner) if owner else None
            if self._elsewhere and self._elsewhere != said and not job.state.final:
                said = self._elsewhere
                self._reporter.note(f"{said} works in this home already; the job goes there")
            if self._elsewhere and not job.state.final and (missing := absence.noticed()):
                self._reporter.note(missing)
            export.advance()
            if waits(job) or job.error:
                break
        self._reporter.close()
        return job

    def _finish(self, job: Job, export: output.Export) -> int:
        if waits(job):
            self._reporter.note(f"{waiting(job)}; the same command then goes on")
            return WAITS
        if not job.state.final:
            self._reporter.note(f"{job.id} is {job.error}\n  look: textmill results {job.id}; the same command goes on")
            return ERROR
        if job.state != JobState.COMPLETED:
            why = f": {job.error}" if job.error else ""
            self._reporter.note(f"{job.id} {job.state}{why}\n  results so far: textmill results {job.id}")
            return ERROR
        tally = export.finish()
        sum_up = summary_json if self._wish.as_json else summary
        print(sum_up(job, tally, self._wish.output), file=sys.stderr)
        return ITEMS_FAILED if tally.errors else 0

    def _say_goodbye(self, machine: Mill, settings: Settings) -> None:
        self._reporter.close()
        if machine.running:
            self._reporter.note(
                f"stopping; the worker may finish what it holds ({settings.grace_s:g} s at most, Ctrl-C ends it now)"
            )


def _begin(machine: Mill) -> None:
    """Start the worker while the input is still being read. What goes wrong shows when it is waited for."""
    with suppress(TextmillError):
        machine.try_start()


@contextmanager
def _session(settings: Settings) -> Iterator[tuple[Client, Store]]:
    with store(settings) as opened:
        opened.check_schema()
        registry(opened, settings)
        with Client(settings, store=opened) as client:
            yield client, opened

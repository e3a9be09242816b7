"""The client: submit a job, follow it, read its results."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self, get_args

import orjson
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from jobs import connections, tracing
from jobs.chaining import lineage, results
from jobs.corpus import Fields, ItemSource, Named, Source
from jobs.corpus.memory import Given
from jobs.corpus.source import FileSource
from jobs.errors import (
    InvalidParams,
    InvalidState,
    QueueUnavailable,
    QuotaExceeded,
    StoreUnavailable,
    UnknownWebhook,
    UsageError,
)
from jobs.estimating import Survey
from jobs.exporting import checked
from jobs.fingerprints import Fingerprints
from jobs.handle import JobHandle
from jobs.incremental import Unseen
from jobs.intake import Intake, Loaded, OnInvalid
from jobs.models import ModelSpec, Registry
from jobs.patterns import Pattern, is_pattern
from jobs.retries import RetrySource
from jobs.schemas import ERRORS_AFTER, Estimate, InvalidLine, Job, JobSpec, OnErrors
from jobs.settings import Settings, load_settings
from jobs.states import JobState
from jobs.tasks import AnyTask, explain, resolve, validate_params

if TYPE_CHECKING:
    from jobs.queue import Queue
    from jobs.store import Store

HINT_REST_S = 10.0
"""After Redis did not answer, hints are left out for so long: a worker looks by itself every few seconds."""

BESIDE_THE_REQUEST = {
    *("idempotency_key", "priority", "webhook", "sink", "traceparent", "schedule_run"),
    *("canary", "go_on", "max_error_share", "errors_after", "on_errors"),
}
"""What of a job changes none of its results."""

_log = logging.getLogger(__name__)


class Client:
    """Submits jobs to a deployment and reads them: the one its settings name, by default the home on this machine.

    May be shared by threads. As a context manager it closes what it opened itself.
    """

    def __new__(cls, settings: "Settings | str | None" = None, *_: Any, **given: Any) -> Any:
        """`Client("https://...", api_key=...)` is a client of a server: `jobs.remote.client.HttpClient`."""
        if not isinstance(settings, str):
            return super().__new__(cls)
        from jobs.remote.client import HttpClient

        return HttpClient(settings, **given)

    def __init__(
        self, settings: Settings | None = None, store: "Store | None" = None, queue: "Queue | None" = None
    ) -> None:
        self._settings = settings or load_settings()
        self._owns_store, self._owns_queue = store is None, queue is None
        self._store = store or _open_store(self._settings)
        self._queue = queue or _open_queue(self._settings)
        self._no_hint_until = 0.0
        self.registry = Registry(self._store)
        """The models that jobs may name."""

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._settings

    def registry_of(self, tenant: str) -> Registry:
        """The models that jobs of this tenant may name."""
        return Registry(self._store, self._store.tenants.get(tenant).allows)

    def submit(
        self,
        task: str,
        items: "Iterable[Given] | Source | Named | JobHandle",
        *,
        model: str | None = None,
        params: Mapping[str, Any] | None = None,
        priority: int = 0,
        weight: float = 1.0,
        queue: str = "default",
        labels: Mapping[str, str] | None = None,
        keep: Sequence[str] = (),
        idempotency_key: str | None = None,
        deadline_at: datetime | None = None,
        on_invalid: OnInvalid = "reject",
        retry_of: str | None = None,
        tenant: str = "default",
        webhook: str | None = None,
        sink: str | None = None,
        schedule_run: int | None = None,
        canary: int | None = None,
        go_on: bool = False,
        max_error_share: float | None = None,
        errors_after: int = ERRORS_AFTER,
        on_errors: OnErrors = "pause",
        incremental: str | None = None,
    ) -> JobHandle:
        """The job, with all its items stored and ready for workers.

        `items`: texts, dicts or Items, a source (`jobs.corpus.open_source`), one that is `Named`, or the handle of an
        ended job whose task gives texts: its ok results are the items. `model` may be left out when only one
        serves the task; a pattern of names (`opus-mt-{source}-{target}`) sends each item to the model of its languages.
        With an `idempotency_key` the call is safe to repeat: it gives the same job, and goes on with one that was left
        half loaded. `on_invalid="skip"` goes on without the items that are refused; the handle's `loaded` lists them.
        `webhook`: the id of one that is told how the job ended. `sink`: where upkeep writes the results once the job
        has completed: a file, a URL, a table (docs/corpora.md). `incremental`: the name of a corpus, whose items are
        left out that an earlier job of that name has an ok result of; an item is known by its `custom_id`, else by its
        own fields. Another model, revision or param makes all of them new.

        `canary`: so many items, from the shortest to the longest, are run first; then the job is paused until
        `approve`, or with `go_on` goes on by itself. `max_error_share`: when more of the items than this fail, counted
        from `errors_after` results on, the job is paused, or fails (`on_errors`).

        Raises UnknownTask, UnknownModel, ModelMismatch, InvalidParams, InvalidInput, InvalidItems,
        QuotaExceeded, IdempotencyConflict, StoreUnavailable; and NothingNew, which is no failure, when an incremental
        job would have no items. Nothing is run unless it returns.
        """
        if on_invalid not in get_args(OnInvalid):
            raise InvalidParams(f"on_invalid is {on_invalid!r}; it may be: {', '.join(get_args(OnInvalid))}")
        found, given = resolve(task, params)
        if isinstance(items, JobHandle):
            fields = Fields(main=found.main_field)
            earlier = results(self._store, items.id, fields)
            items = FileSource([earlier.input], fields, self._settings.max_line_bytes)
            labels = {**lineage([earlier]), **(labels or {})}
        elif isinstance(items, Named):
            fields = Fields(main=found.main_field, text=items.text_field, id=items.id_field)
            items = connections.source(self._settings, items.name, tenant, fields)
        registry = self.registry_of(tenant)
        served = registry.check(found, model or registry.only(found).name, given)
        spec = _spec(
            task=found.name,
            model=served.name,
            params=given,
            priority=priority,
            weight=weight,
            queue=queue,
            labels=dict(labels or {}),
            keep=tuple(keep),
            idempotency_key=idempotency_key,
            deadline_at=deadline_at,
            retry_of=retry_of,
            tenant=tenant,
            webhook=webhook,
            sink=None if sink is None else checked(sink, self._settings, tenant),
            schedule_run=schedule_run,
            canary=canary,
            go_on=go_on,
            max_error_share=max_error_share,
            errors_after=errors_after,
            on_errors=on_errors,
        )
        if webhook is not None and not self._knows(webhook, tenant):
            raise InvalidParams(f"webhook {webhook!r} is none of tenant {tenant!r} (`textmill webhooks list`)")
        if len(orjson.dumps(spec.params)) > self._settings.max_params_bytes:
            most = self._settings.max_params_bytes
            raise InvalidParams(f"the params are longer than {most:,} bytes as JSON (setting max_params_bytes)")
        pattern = registry.pattern(served.name) if is_pattern(served.name) else None
        unseen = None
        if incremental is not None:
            prints = Fingerprints(found, validate_params(found, spec.params), served, find=registry.get)
            unseen = Unseen(self._store.seen, tenant, incremental, prints)
        with tracing.span("textmill.submit") as span:
            spec = spec.model_copy(update={"traceparent": tracing.current()})
            handle = self._submit(found, spec, served, pattern, items, on_invalid, unseen)
            if span is not None:
                span.set_attribute("textmill.job", handle.id)
        return handle

    def estimate(
        self,
        task: str,
        items: Iterable[Given] | Source,
        *,
        model: str | ModelSpec | None = None,
        params: Mapping[str, Any] | None = None,
        keep: Sequence[str] = (),
        tenant: str = "default",
    ) -> Estimate:
        """What these items would be as a job. Nothing is stored or run; lines that cannot be items are listed.

        `model` may be one that is not registered (`jobs.models.inspect`). Raises UnknownTask, UnknownModel,
        ModelMismatch, InvalidParams, InvalidInput, StoreUnavailable.
        """
        found, given = resolve(task, params)
        registry = self.registry_of(tenant)
        if isinstance(model, ModelSpec):
            served = registry.serves(model, found, given)
        else:
            served = registry.check(found, model or registry.only(found).name, given)
        spec = _spec(task=found.name, model=served.name, params=given, keep=tuple(keep), tenant=tenant)
        pattern = registry.pattern(served.name) if is_pattern(served.name) else None
        source = items if isinstance(items, Source) else ItemSource(items, found.main_field)
        intake = Intake(found, spec, source, settings=self._settings, on_invalid="skip", pattern=pattern)
        try:
            return self._estimate(found, served, spec, intake)
        finally:
            intake.close()

    def get(self, job_id: str) -> JobHandle:
        """The job of that id, or of a unique prefix of it. Raises UnknownJob."""
        return JobHandle(self._store, self._store.jobs.resolve(job_id))

    def list(
        self,
        *,
        states: Sequence[JobState] | None = None,
        tenant: str | None = None,
        task: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> Sequence[Job]:
        """Jobs, newest first; `before` is the id to go on from."""
        return self._store.jobs.list(states=states, tenant=tenant, task=task, limit=limit, before=before)

    def cancel(self, job_id: str) -> Job:
        """Stop the job; results so far are kept. Raises InvalidState from another final state."""
        return self.get(job_id).cancel()

    def pause(self, job_id: str) -> Job:
        """Let the job rest: what is running goes back as soon as its worker hears of it."""
        return self.get(job_id).pause()

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on."""
        job = self.get(job_id).resume()
        self._hint(job.queue)
        return job

    def approve(self, job_id: str) -> Job:
        """Let the rest of a job follow its canary. Raises InvalidState for a job that has none, or has ended."""
        job = self.get(job_id).approve()
        self._hint(job.queue)
        return job

    def retry(self, job_id: str) -> JobHandle:
        """A new job of the items that have no ok result, neither in this job nor in any retry of it.

        Raises InvalidState while the job or a retry of it runs, or when all items are ok.
        """
        job = self.get(job_id).refresh()
        if not job.state.final:
            raise InvalidState(f"{job.id} is {job.state}; only a job that has ended can be retried")
        for other in map(self._store.jobs.get, self._store.retries.chain(job.id)):
            if not other.state.final:
                raise InvalidState(f"{other.id}, of the same items, is {other.state}; wait for it or cancel it first")
        left = RetrySource(self._store, job.id)
        if left.empty:
            raise InvalidState(f"{job.id} has no items without an ok result; there is nothing to retry")
        return self.submit(
            job.task,
            left,
            model=job.model,
            params=job.params,
            priority=job.priority,
            weight=job.weight,
            queue=job.queue,
            labels=job.labels,
            keep=job.keep,
            retry_of=job.id,
            tenant=job.tenant,
            webhook=job.webhook if job.webhook is not None and self._knows(job.webhook, job.tenant) else None,
        )

    def close(self) -> None:
        """Close the connections that this client opened."""
        if self._owns_store:
            self._store.close()
        if self._owns_queue:
            self._queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _estimate(self, task: AnyTask, served: ModelSpec, spec: JobSpec, intake: Intake) -> Estimate:
        survey = Survey(task, validate_params(task, spec.params), served)
        for run in intake.survey():
            survey.add(run)
        return Estimate(
            task=task.name,
            model=served.name,
            items=survey.items,
            invalid=intake.refusals.total,
            problems=tuple(InvalidLine(**asdict(problem)) for problem in intake.refusals.first),
            duplicates=survey.duplicates,
            tokens=survey.tokens(),
            long=survey.long_texts(),
            chunks=survey.chunks,
            time=self._store.supervision.expected(task.name, served.name, survey.cost, survey.chunks),
        )

    def _knows(self, webhook: str, tenant: str) -> bool:
        try:
            self._store.webhooks.get(webhook, tenant)
        except UnknownWebhook:
            return False
        return True

    def _submit(
        self,
        task: AnyTask,
        spec: JobSpec,
        served: ModelSpec,
        pattern: Pattern | None,
        items: Iterable[Given] | Source,
        on_invalid: OnInvalid,
        unseen: Unseen | None,
    ) -> JobHandle:
        source = items if isinstance(items, Source) else ItemSource(items, task.main_field)
        digest = _request_hash(spec, source, on_invalid, unseen)
        intake = Intake(
            task, spec, source, settings=self._settings, on_invalid=on_invalid, pattern=pattern, unseen=unseen
        )
        try:
            whole, revision = intake.begin(), served.revision
            create = partial(self._store.jobs.create, spec, request_hash=digest, model_revision=revision, whole=whole)
            job, created = create()
            if unseen is not None and not created and job.state is JobState.LOADING:
                self._store.jobs.discard(job.id)  # what it holds depends on what was seen then
                job, created = create()
            loaded = None
            if job.state is JobState.LOADING:
                job, loaded = self._fill(job, spec, intake, created)
            elif created:
                loaded = intake.loaded(job.id, job.counts.total)
        finally:
            intake.close()
        if loaded is not None:
            self._hint(job.queue)
        return JobHandle(self._store, job.id, loaded, seen=job)

    def _fill(self, job: Job, spec: JobSpec, intake: Intake, created: bool) -> tuple[Job, Loaded | None]:
        """Load and seal a job; the job now, and what was loaded. None: somebody else with the same key did."""
        try:
            loaded = intake.load(self._store, job.id, resumed=not created)
            return self._store.jobs.seal(job.id, intake.picks()), loaded
        except InvalidState:
            now = self._store.jobs.get(job.id)
            if now.state in (JobState.LOADING, JobState.FAILED, JobState.CANCELLED):
                raise
            return now, None
        except BaseException as error:
            self._abandon(job, spec, error)
            raise

    def _hint(self, queue: str) -> None:
        """Tell a worker that there is work. Without it the work only starts a few seconds later."""
        if time.monotonic() < self._no_hint_until:
            return
        try:
            self._queue.hint(queue)
        except QueueUnavailable as error:
            self._no_hint_until = time.monotonic() + HINT_REST_S
            _log.warning("no hint was sent, workers will find the job by themselves: %s", error)

    def _abandon(self, job: Job, spec: JobSpec, error: BaseException) -> None:
        """Settle a job that is not loaded to its end: it fails. With a key it stays as it is, as the same call goes on
        with it; but when it was refused it is taken back, or the same call would be given what failed. So is what a
        quota had no room for."""
        if isinstance(error, StoreUnavailable):
            return
        keyed, refused = spec.idempotency_key is not None, isinstance(error, UsageError)
        try:
            if isinstance(error, QuotaExceeded) or (keyed and refused):
                self._store.jobs.discard(job.id)
            elif not keyed:
                self._store.jobs.fail(job.id, f"its items were not all submitted: {_why(error)}")
        except StoreUnavailable:
            _log.warning("%s could not be marked as failed; upkeep will do it", job.id)


def _why(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__


def _open_store(settings: Settings) -> "Store":
    from jobs.store import Store

    settings.home.mkdir(parents=True, exist_ok=True)
    return Store.open(settings.effective_database_url, lease_s=settings.lease_s)


def _open_queue(settings: Settings) -> "Queue":
    from jobs.queue import Queue

    return Queue(settings)


def _spec(**fields: Any) -> JobSpec:
    """The request, checked. Raises InvalidParams naming each wrong argument."""
    try:
        spec = JobSpec(**fields)
        text = spec.model_dump_json()
        # As a worker will read them: what JSON has no word for (a tuple, a set) is a list.
        params = json.loads(text)["params"]
        orjson.dumps(params)
    except ValidationError as error:
        raise InvalidParams("\n".join(explain(error))) from error
    except (PydanticSerializationError, TypeError, ValueError) as error:
        raise InvalidParams(f"an argument of the job cannot be stored: {error}") from error
    if "\\u0000" in text:
        raise InvalidParams("a NUL character cannot be stored; it stands in one of the job's arguments")
    return spec.model_copy(update={"params": params})


def _request_hash(spec: JobSpec, source: Source, on_invalid: OnInvalid, unseen: Unseen | None) -> bytes:
    """What an idempotency key stands for: the job asked for, and the items where they are known beforehand.

    How soon it is wanted, who is told and what would stop it is no part of it: the same key with another priority gives
    the job as it is.
    """
    asked = spec.model_dump(mode="json", exclude=BESIDE_THE_REQUEST)
    items = source.fingerprint() if spec.idempotency_key is not None else None
    corpus = [] if unseen is None else [unseen.name]
    parts = orjson.dumps([asked, items, on_invalid, *corpus], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(parts).digest()

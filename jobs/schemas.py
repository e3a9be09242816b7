"""What callers see: jobs, items, results and progress, as frozen pydantic models."""

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from jobs.errors import ItemErrorCode
from jobs.states import CanaryState, Control, DeliveryState, JobState, RunState

CustomId = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]
"""Any Unicode but NUL, which PostgreSQL cannot store; unique in its job."""


def _once_each(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A task's, a model's or a field's."""
MOST_LABELS, MOST_KEPT = 64, 64
MOST_NAME = 128
"""Characters of a tenant's or a schedule's name."""


QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
JobLabels = Annotated[dict[Name, Annotated[str, StringConstraints(max_length=1024)]], Field(max_length=MOST_LABELS)]
KeptFields = Annotated[tuple[Name, ...], AfterValidator(_once_each), Field(max_length=MOST_KEPT)]


MOST_CANARY = 1000
"""Items of a canary: each becomes a chunk of its own."""
ERRORS_AFTER = 100
OnErrors = Literal["pause", "fail"]
"""What becomes of a job that has spent its error budget."""
CanaryItems = Annotated[int, Field(ge=1, le=MOST_CANARY)]
ErrorShare = Annotated[float, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    """A value: immutable, and strict about names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Item(BaseModel):
    """What every task's item may carry beside its own fields; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    custom_id: CustomId | None = None
    """The item's name, unique in its job; `null`: its position, counted from 0."""
    params: dict[str, Any] | None = None
    """Params that lie over the job's for this item alone."""


class JobSpec(Frozen):
    """What a producer asks for, before the registry and the task have checked it."""

    task: Name
    model: Name
    params: dict[str, Any] = Field(default_factory=dict)
    queue: QueueName = "default"
    tenant: str = Field(default="default", min_length=1, max_length=MOST_NAME)
    priority: int = Field(default=0, ge=-100, le=100)
    """Higher is claimed first."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """A job of weight 3 gets three times the work of a job of weight 1 beside it."""
    labels: JobLabels = Field(default_factory=dict)
    keep: KeptFields = ()
    """Item fields that come back, untouched, under `kept`."""
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=256)
    deadline_at: datetime | None = None
    """The job expires at this time if it has not finished."""
    retry_of: str | None = None
    webhook: str | None = Field(default=None, min_length=1, max_length=64)
    """The id of a webhook of the tenant that hears how the job ended, whatever else it listens to."""
    traceparent: str | None = Field(default=None, max_length=256)
    """The trace that the submit belongs to (W3C Trace Context)."""
    sink: str | None = Field(default=None, min_length=1, max_length=4096)
    """Where upkeep writes the results once the job has completed."""
    schedule_run: int | None = None
    """The run of a schedule that made it."""
    canary: CanaryItems | None = None
    """So many items, from the shortest to the longest, are run before the rest may."""
    go_on: bool = False
    """The rest follows the canary by itself, unless too many of its items fail; else somebody has to approve."""
    max_error_share: ErrorShare | None = None
    """When more of the items than this fail, the job is paused or fails."""
    errors_after: int = Field(default=ERRORS_AFTER, ge=1, le=2**31 - 1)
    """The share counts from so many results on."""
    on_errors: OnErrors = "pause"

    @model_validator(mode="after")
    def _go_on_after_something(self) -> Self:
        if self.go_on and self.canary is None:
            raise ValueError("go_on says what follows a canary, and there is none")
        return self


class Counts(Frozen):
    total: int = 0
    ok: int = 0
    error: int = 0
    pending: int = 0


class Rate(Frozen):
    items_per_s: float = 0.0
    tokens_per_s: float = 0.0


class Usage(Frozen):
    """Tokens of one result or of a whole job."""

    input_tokens: int = 0
    output_tokens: int = 0
    truncated_tokens: int = 0
    """Input tokens the model did not see, under `long_text=truncate`."""
    windows: int = 1
    """How many pieces a long text was read in."""


class JobUsage(Frozen):
    input_tokens: int = 0
    output_tokens: int = 0


class TimeEstimate(Frozen):
    """How long some work takes."""

    seconds: float
    early_s: float
    late_s: float
    """Nine times in ten it takes between these two. `early_s` 0: perhaps it is much quicker, since so few items were
    run that starting took most of the time."""
    known_from: Literal["past jobs", "canary"]
    jobs: int = 0
    """How many past jobs of the same task and model the rate is known from."""


class Bin(Frozen):
    up_to: int
    """Tokens; more than those of the bin before."""
    items: int


class TokenCounts(Frozen):
    """The tokens of a job's texts, without what prompts add."""

    counted_by: Literal["tokenizer", "bytes"]
    """The model's own tokenizer, or a rough measure by bytes."""
    total: int
    answers: int
    """Most tokens that may come out of all items together."""
    shortest: int
    median: int
    p90: int
    """Nine in ten have no more."""
    longest: int
    histogram: tuple[Bin, ...]


class LongTexts(Frozen):
    """Texts that are longer than the model reads."""

    limit: int
    long_text: Literal["truncate", "split", "error"]
    """What happens to them: their end is not read, they are read in windows, or the item fails."""
    items: int
    tokens_lost: int = 0
    windows: int = 0
    """About as many pieces they are read in."""


class InvalidLine(Frozen):
    line: int
    code: str
    message: str
    file: str | None = None


class Estimate(Frozen):
    """What an input would be as a job; nothing was stored or run."""

    task: str
    model: str
    items: int
    invalid: int
    """Lines that cannot be items."""
    problems: tuple[InvalidLine, ...]
    """The first 1,000 of them."""
    duplicates: int
    """Items whose text an item before them has."""
    tokens: TokenCounts
    long: LongTexts | None
    """Null: nobody knows how much the model reads."""
    chunks: int
    time: TimeEstimate | None
    """Null: no job of this task on this model has ended yet."""


class Canary(Frozen):
    """The items that are run before the rest of a job may, and what came of them."""

    state: CanaryState
    items: int
    go_on: bool = False
    ok: int = 0
    error: int = 0
    error_share: float = 0.0
    usage: JobUsage = JobUsage()
    rest: TimeEstimate | None = None
    """How long the other items will take; null: not known yet."""


class Job(Frozen):
    """A job as it stands now; see DATA in the documentation for the shape on the wire."""

    id: str
    task: str
    model: str
    model_revision: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    state: JobState
    control: Control = Control.RUN
    queue: str = "default"
    tenant: str = "default"
    priority: int = 0
    weight: float = 1.0
    labels: dict[str, str] = Field(default_factory=dict)
    keep: tuple[str, ...] = ()
    counts: Counts = Counts()
    progress: float = 0.0
    """Share of items with a result, 0 to 1."""
    rate: Rate = Rate()
    eta_at: datetime | None = None
    """When it will have ended, at the rate of the last minute."""
    eta_early_at: datetime | None = None
    eta_late_at: datetime | None = None
    """Nine times in ten it ends between these two, if work goes on as it did: the fewer chunks the rate is known from,
    the further they are apart."""
    first_eta_at: datetime | None = None
    """The first forecast there was, to be set beside the outcome."""
    usage: JobUsage = JobUsage()
    in_force: dict[str, Any] | None = None
    """What the worker ran with: the model's own generation defaults, dtype, engine and mode."""
    created_at: datetime
    sealed_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    late: bool = False
    """It will miss its deadline at the rate of the last minute."""
    late_by_s: float | None = None
    """By how much: `eta_at` less `deadline_at`."""
    canary: Canary | None = None
    max_error_share: float | None = None
    errors_after: int | None = None
    on_errors: OnErrors | None = None
    error: str | None = None
    """Why it failed or expired, or why it was paused."""
    retry_of: str | None = None
    webhook: str | None = None
    schedule: str | None = None


Scope = Literal["read", "submit", "admin"]
"""What an API key is for: to look at jobs and results; to submit and steer jobs, too; and to manage keys, too."""


class Key(Frozen):
    """An API key, without its secret."""

    id: str
    tenant: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


DIRECT_LABEL = "textmill:direct"
"""The label of a job that is the answer to one request: nobody is told of its end but who waits for it."""


Overlap = Literal["skip", "queue", "cancel_previous"]
"""When a run is due while the one before is not over: leave it out, let it wait, or cancel the one before."""
Misfire = Literal["skip", "last", "all"]
"""When due times were missed, as nobody was there to fire: leave them out, fire the last one, or all of them."""


class Selection(BaseModel):
    """Which rows and columns of an input become items; `jobs.corpus.Fields.of` reads it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text_field: Name | None = None
    """The input's field for the task's main field, where it has another name."""
    id_field: Name | None = None
    """The input's field for `custom_id`, where it has another name."""
    map: dict[str, str] = Field(default_factory=dict)
    """An item's field, and the input's column that it is; `doc.body` is the `body` inside of `doc`."""
    template: str | None = None
    """The main field, made of columns: `Title: {title}`."""
    where: str | None = None
    """Only rows of which this is true: `lang = 'en' and stars >= 4`."""
    limit: int | None = None
    """Only so many rows, the first."""
    sample: int | None = None
    """Only so many rows, drawn by chance and left in their order."""
    seed: int = 0
    """Of the sample: the same seed draws the same rows of the same input."""


class ScheduleSpec(Selection):
    """What a schedule submits, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    task: Name
    inputs: tuple[Annotated[str, StringConstraints(min_length=1, max_length=4096)], ...] = Field(
        min_length=1, max_length=1000
    )
    """Files and folders on the machines that fire, as the command line takes them."""
    format: Name | None = None
    model: Name | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    queue: QueueName = "default"
    priority: int = Field(default=0, ge=-100, le=100)
    weight: float = Field(default=1.0, gt=0, le=1000)
    labels: JobLabels = Field(default_factory=dict)
    keep: KeptFields = ()
    on_invalid: Literal["reject", "skip"] = "reject"
    webhook: str | None = Field(default=None, min_length=1, max_length=64)
    sink: str | None = Field(default=None, min_length=1, max_length=4096)
    """Where upkeep writes each run's results; `{job}`, `{date}` and `{schedule}` in it are the job's."""

    cron: str | None = Field(default=None, max_length=256)
    """A cron expression: minute, hour, day, month, weekday."""
    every_s: float | None = Field(default=None, ge=1, le=366 * 86_400)
    on_change_s: float | None = Field(default=None, ge=1, le=366 * 86_400)
    """Look so often whether the inputs have changed; a job is made only then."""
    timezone: str = "UTC"
    """Of the cron expression."""
    overlap: Overlap = "skip"
    misfire: Misfire = "last"
    jitter_s: float = Field(default=0.0, ge=0, le=86_400)
    """Each run is up to so much later, so that many schedules do not fire at once."""
    deadline_s: float | None = Field(default=None, gt=0)
    """A run's job expires so long after its due time."""
    only_new: bool = False
    """Inputs that are as they were at the last run make no job."""
    incremental: bool = False
    """Only items that are new or changed since the earlier runs are submitted."""
    ends_at: AwareDatetime | None = None
    """Nothing is due after this time."""


class Schedule(Frozen):
    """A recurring job."""

    id: str
    tenant: str
    name: str
    spec: ScheduleSpec
    paused: bool
    next_due_at: datetime | None
    """None: it is paused, or has ended."""
    created_at: datetime


class ScheduleRun(Frozen):
    """One due time of a schedule, and what became of it."""

    id: int
    schedule_id: str
    due_at: datetime
    state: RunState
    created_at: datetime
    ended_at: datetime | None
    job_id: str | None
    n_items: int | None
    note: str | None
    """Why there is no job."""


class Tenant(Frozen):
    """What a tenant may do. Null: without a limit of its own."""

    name: str = Field(min_length=1, max_length=MOST_NAME)
    weight: float = Field(default=1.0, gt=0, le=1000)
    """A tenant of weight 3 gets three times the work of one of weight 1 beside it."""
    max_items: int | None = Field(default=None, ge=0, le=2**62)
    """Most items that wait or run at once."""
    max_tokens: int | None = Field(default=None, ge=0, le=2**62)
    """Most estimated tokens that wait or run at once."""
    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    """Most requests to one server of the HTTP API."""
    models: tuple[Name, ...] | None = Field(default=None, max_length=1000)
    """The models it may use and see, by name or with `*` and `?` in it."""

    def allows(self, model: str) -> bool:
        """Whether the tenant may use the model."""
        return self.models is None or any(fnmatchcase(model, each) for each in self.models)


class Used(Frozen):
    """What a tenant has waiting and running."""

    items: int
    tokens: int
    """Estimated."""


EVENTS = (
    *(f"job.{state}" for state in ("completed", "failed", "expired", "cancelled")),
    *(f"batch.{state}" for state in ("completed", "failed", "expired", "cancelled")),
    "schedule.run_failed",
)
"""What a webhook can listen to."""


class Webhook(Frozen):
    """Where a tenant wants to hear of events, without the secret that signs what is sent there."""

    id: str
    tenant: str
    url: str
    events: tuple[str, ...]
    created_at: datetime
    failures: int
    """Failed tries since the last one that was taken."""
    disabled_at: datetime | None = None
    disabled_because: str | None = None


class Delivery(Frozen):
    """The news of one event on its way to one webhook."""

    id: str
    """The `webhook-id` of every try: whoever has seen it knows the event already."""
    webhook_id: str
    event: str
    subject: str
    """The job or batch it is about."""
    state: DeliveryState
    attempts: int
    due_at: datetime | None
    """When it is tried next."""
    created_at: datetime
    ended_at: datetime | None
    status: int | None
    """What the last try was answered, if it was."""
    error: str | None
    """Why the last try failed."""


class ResultError(Frozen):
    code: ItemErrorCode
    message: str


class Result(Frozen):
    """The outcome of one item. Written once, never changed."""

    seq: int
    custom_id: str
    status: Literal["ok", "error"]
    output: dict[str, Any] | None = None
    error: ResultError | None = None
    usage: Usage = Usage()
    kept: dict[str, Any] = Field(default_factory=dict)


class Found(Frozen):
    """A result that a search found."""

    rank: int
    """1: the nearest."""
    seq: int
    custom_id: str
    score: float
    """Cosine of the angle between its vector and the query's."""
    item: dict[str, Any] | None = None
    """The item as it was submitted."""

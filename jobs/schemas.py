"""What callers see: jobs, items, results and progress, as frozen pydantic models."""

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from jobs.errors import ItemErrorCode
from jobs.states import Control, DeliveryState, JobState, RunState

CustomId = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]
"""Any Unicode but NUL, which PostgreSQL cannot store; unique in its job."""


def _once_each(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A task's, a model's or a field's."""
MOST_LABELS, MOST_KEPT = 64, 64


QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
JobLabels = Annotated[dict[Name, Annotated[str, StringConstraints(max_length=1024)]], Field(max_length=MOST_LABELS)]
KeptFields = Annotated[tuple[Name, ...], AfterValidator(_once_each), Field(max_length=MOST_KEPT)]


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
    tenant: str = Field(default="default", min_length=1, max_length=128)
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
    schedule_run: int | None = None
    """The run of a schedule that made it."""


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
    usage: JobUsage = JobUsage()
    in_force: dict[str, Any] | None = None
    """What the worker ran with: the model's own generation defaults, dtype, engine and mode."""
    created_at: datetime
    sealed_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    error: str | None = None
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


class ScheduleSpec(BaseModel):
    """What a schedule submits, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    task: Name
    inputs: tuple[Annotated[str, StringConstraints(min_length=1, max_length=4096)], ...] = Field(
        min_length=1, max_length=1000
    )
    """Files and folders on the machines that fire, as the command line takes them."""
    format: Name | None = None
    text_field: Name | None = None
    id_field: Name | None = None
    model: Name | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    queue: QueueName = "default"
    priority: int = Field(default=0, ge=-100, le=100)
    weight: float = Field(default=1.0, gt=0, le=1000)
    labels: JobLabels = Field(default_factory=dict)
    keep: KeptFields = ()
    on_invalid: Literal["reject", "skip"] = "reject"
    webhook: str | None = Field(default=None, min_length=1, max_length=64)

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

    name: str = Field(min_length=1, max_length=128)
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

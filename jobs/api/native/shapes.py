"""What callers send to the native API, and what comes back beside jobs and results."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from jobs.intake import Loaded, OnInvalid
from jobs.schemas import (
    ERRORS_AFTER,
    EVENTS,
    MOST_NAME,
    CanaryItems,
    Delivery,
    ErrorShare,
    Frozen,
    Job,
    JobLabels,
    KeptFields,
    Key,
    Misfire,
    Name,
    OnErrors,
    Overlap,
    QueueName,
    Schedule,
    ScheduleRun,
    Scope,
    Selection,
    Tenant,
    Used,
    Webhook,
)

MOST_JOBS, MOST_RESULTS = 100, 10_000


class Wanted(BaseModel):
    """What every way to submit a job says beside its items."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    task: Name
    """A task or an alias of one (`textmill tasks`)."""
    model: Name | None = None
    """A name of the registry; may be left out when only one model serves the task."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The task's params; unknown ones are errors."""
    priority: int = Field(default=0, ge=-100, le=100)
    """Higher is claimed first. Above 0 only with an admin's key."""
    queue: QueueName = "default"
    labels: JobLabels = Field(default_factory=dict)
    keep: KeptFields = ()
    """Item fields that come back, untouched, under `kept`."""
    deadline_at: AwareDatetime | None = None
    """The job expires at this time if it has not finished."""
    webhook: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """The id of a webhook that is told how the job ended, whatever else it listens to."""
    sink: Name | None = None
    """A connection that the operator has named (`GET /connections`); the results go there when it completes."""
    canary: CanaryItems | None = None
    """So many items, from the shortest to the longest, are run before the rest may: it waits for `approve`."""
    go_on: bool = False
    """The rest follows the canary by itself, unless too many of its items fail."""
    max_error_share: ErrorShare | None = None
    """When more of the items than this fail, the job is paused or fails."""
    errors_after: int = Field(default=ERRORS_AFTER, ge=1, le=2**31 - 1)
    """The share counts from so many results on."""
    on_errors: OnErrors = "pause"
    """What becomes of the job then."""
    on_invalid: OnInvalid = "reject"
    """Whether a line that cannot be an item refuses the whole job, or is left out and listed."""


class WithItems(Selection):
    """Items, or the file or source that they are in, and what of that becomes items."""

    model_config = ConfigDict(extra="forbid")

    items: list[Any] | None = Field(default=None, min_length=1)
    """Objects in the task's shape, or texts, which stand for its main field."""
    file: str | None = Field(default=None, min_length=1, max_length=100)
    """The id of an uploaded file (`file-...`), instead of `items`."""
    source: Name | None = None
    """A connection that the operator has named (`GET /connections`), instead of `items`."""
    format: Literal["jsonl", "csv", "text"] | None = None
    """What the file is; JSON Lines if left out."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(each is not None for each in (self.items, self.file, self.source)) != 1:
            raise ValueError("give one of items, a file and a source")
        of_files = ("format", *Selection.model_fields)
        named = [name for name in of_files if getattr(self, name)]
        if self.items is not None and named:
            raise ValueError(f"{named[0]} says something of a file, and items are given")
        if self.source is not None and self.format is not None:
            raise ValueError("format says something of a file; a source has the one that the operator gave it")
        return self


class Submission(Wanted, WithItems):
    """A job with its items, or with the file that they are in."""


class Estimation(WithItems):
    """What would be a job."""

    task: Name
    model: Name | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    keep: KeptFields = ()


class Skipped(Frozen):
    line: int
    code: str
    message: str


class Submitted(Job):
    """The job, and what of the input was left out under `on_invalid=skip`."""

    skipped: int = 0
    problems: tuple[Skipped, ...] = ()
    """The first 1,000 lines that were left out."""


class JobPage(Frozen):
    data: list[Job]
    """Newest first."""
    next: str | None
    """To be given as `before` for the next page; null: this is the last one."""


class ConnectionInfo(Frozen):
    """What the operator has named, without where it lies."""

    name: str
    source: bool
    """Jobs and schedules may read it."""
    sink: bool
    """Results may be written there."""


class ScheduleWanted(Selection):
    """A schedule over a source that the operator has named."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=MOST_NAME)
    task: Name
    source: Name
    """A connection (`GET /connections`)."""
    sink: Name | None = None
    """A connection, where each run's results go."""
    model: Name | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    queue: QueueName = "default"
    labels: JobLabels = Field(default_factory=dict)
    keep: KeptFields = ()
    on_invalid: OnInvalid = "reject"
    webhook: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    cron: str | None = Field(default=None, max_length=256)
    """A cron expression: minute, hour, day, month, weekday. One of `cron`, `every_s` and `on_change_s` is wanted."""
    every_s: float | None = Field(default=None, ge=1, le=366 * 86_400)
    on_change_s: float | None = Field(default=None, ge=1, le=366 * 86_400)
    """Look so often whether the source has changed; a job is made only then."""
    timezone: str = Field(default="UTC", max_length=64)
    overlap: Overlap = "skip"
    misfire: Misfire = "last"
    jitter_s: float = Field(default=0.0, ge=0, le=86_400)
    deadline_s: float | None = Field(default=None, gt=0, le=366 * 86_400)
    only_new: bool = False
    """Sources that are as they were at the last run make no job."""
    incremental: bool = False
    """Only items that are new or changed since the earlier runs are submitted."""
    ends_at: AwareDatetime | None = None


class TaskInfo(Frozen):
    name: str
    aliases: tuple[str, ...]
    summary: str
    main_field: str
    """What a bare text stands for."""
    item_schema: dict[str, Any]
    params_schema: dict[str, Any]
    output_schema: dict[str, Any]


class ModelInfo(Frozen):
    name: str
    tasks: tuple[str, ...]
    kind: str
    engine: str
    dtype: str | None
    revision: str | None
    dimensions: int | None
    context_tokens: int | None
    note: str


class TenantInfo(Tenant):
    used: Used


class WorkerInfo(Frozen):
    id: str
    host: str
    pid: int
    device: str
    models: tuple[str, ...]
    """Loaded at the moment."""
    queues: tuple[str, ...]
    state: str
    load: Mapping[str, float] | None
    """Busy share, padding share, tokens/s, tokens a batch and so on, where it has worked."""
    quiet: bool
    """It was told to claim nothing more."""
    memory_bytes: int | None
    """Of its device."""
    models_bytes: int | None
    """What loaded models take of it."""


class KeyWanted(Frozen):
    name: str = Field(min_length=1, max_length=128)
    scopes: tuple[Scope, ...] = Field(default=("submit",), min_length=1)
    expires_at: AwareDatetime | None = None


class NewKey(Key):
    secret: str
    """Shown this once."""


class WebhookWanted(Frozen):
    url: str = Field(min_length=1, max_length=2048)
    """https:// and a public host, or one in the setting `webhook_networks`."""
    events: tuple[Literal[EVENTS], ...] = EVENTS  # type: ignore[valid-type]
    """What it listens to; `[]`: only to jobs that name it."""


class NewWebhook(Webhook):
    secret: str
    """Signs what is sent there; shown this once."""


class ScheduleInfo(Schedule):
    explained: str
    """When it is due, in plain words."""


class ScheduleRunPage(Frozen):
    data: list[ScheduleRun]
    """Newest first."""
    next: int | None
    """To be given as `before` for the next page; null: this is the last one."""


class DeliveryPage(Frozen):
    data: list[Delivery]
    """Newest first."""
    next: str | None
    """To be given as `before` for the next page; null: this is the last one."""


def submitted(job: Job, loaded: Loaded | None) -> Submitted:
    """The answer to a submit."""
    left_out = loaded.problems if loaded is not None else ()
    return Submitted(
        **job.model_dump(),
        skipped=loaded.skipped if loaded is not None else 0,
        problems=tuple(Skipped(line=each.line, code=each.code, message=each.message) for each in left_out),
    )

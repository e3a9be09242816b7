"""Jobs as people read them: one in full, many as a table."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobs.cli import ERROR, ITEMS_FAILED
from jobs.cli.progress import canary, done, lateness, waits
from jobs.cli.table import facts, table
from jobs.durations import duration
from jobs.errors import UsageError
from jobs.schemas import Job
from jobs.states import Control, JobState

if TYPE_CHECKING:
    from jobs.store.exports import Export


def view(job: Job, export: "Export | None" = None) -> str:
    """One job, a fact a line."""
    return facts(
        [
            ("job", job.id),
            ("task", job.task),
            ("model", job.model),
            ("revision", job.model_revision),
            ("params", ", ".join(f"{name}={value!r}" for name, value in job.params.items())),
            ("labels", ", ".join(f"{name}={value}" for name, value in job.labels.items())),
            ("state", state(job)),
            ("error", job.error),
            ("items", _items(job)),
            ("canary", canary(job)),
            ("stops", _budget(job)),
            ("tokens", f"{job.usage.input_tokens:,} in, {job.usage.output_tokens:,} out" if done(job) else None),
            ("speed", _speed(job)),
            ("left", _left(job)),
            ("queue", f"{job.queue}, priority {job.priority}"),
            ("created", _moment(job.created_at)),
            ("started", _moment(job.started_at)),
            ("first ETA", _first_eta(job)),
            ("finished", _moment(job.finished_at)),
            ("deadline", _moment(job.deadline_at)),
            ("late", lateness(job)),
            ("retry of", job.retry_of),
            ("sink", sink(export)),
        ]
    )


def sink(export: "Export | None") -> str | None:
    """How far the results are on their way to the job's sink."""
    if export is None:
        return None
    told = {
        "waiting": "once the job has completed",
        "done": f"{export.n_results or 0:,} results written {_moment(export.ended_at)}",
        "failed": f"given up: {export.error}; again with: textmill deliver {export.job_id}",
    }
    due = f"try {export.attempts + 1} at {_moment(export.due_at)}; {export.error}" if export.error else "being written"
    return f"{export.target}: {told.get(export.state, due)}"


def listing(jobs: Sequence[Job]) -> str:
    """Jobs as a table."""
    if not jobs:
        return "no jobs yet; begin with: textmill submit classify texts.txt --model fake"
    rows = [
        (job.id, job.task, job.model, state(job), f"{done(job):,}/{job.counts.total:,}", job.counts.error, _age(job))
        for job in jobs
    ]
    return table(("JOB", "TASK", "MODEL", "STATE", "DONE", "FAILED", "CREATED"), rows)


def state(job: Job) -> str:
    """The state, with the pause that is no state."""
    if waits(job):
        return f"{job.state}, waits for approval"
    return f"{job.state}, paused" if job.control == Control.PAUSE and not job.state.final else str(job.state)


def exit_code(job: Job) -> int:
    """What a command that saw the job end exits with."""
    if job.state != JobState.COMPLETED:
        return ERROR
    return ITEMS_FAILED if job.counts.error else 0


def states_of(names: Sequence[str]) -> list[JobState]:
    """The states of these names. Raises UsageError naming the known ones."""
    unknown = [name for name in names if name not in set(JobState)]
    if unknown:
        raise UsageError(f"unknown state {unknown[0]!r}; known: {', '.join(JobState)}")
    return [JobState(name) for name in names]


def _items(job: Job) -> str:
    counts = job.counts
    text = f"{done(job):,} of {counts.total:,} done ({job.progress:.0%})"
    return text + (f": {counts.ok:,} ok, {counts.error:,} failed" if counts.error else "")


def _budget(job: Job) -> str | None:
    if job.max_error_share is None:
        return None
    stops = "is paused" if job.on_errors == "pause" else "fails"
    return f"{stops} when more than {job.max_error_share:.4g} of {job.errors_after:,} or more items fail"


def _first_eta(job: Job) -> str | None:
    """The first forecast, and how far off it was."""
    if job.first_eta_at is None or job.finished_at is None:
        return _moment(job.first_eta_at)
    off = (job.finished_at - job.first_eta_at).total_seconds()
    return f"{_moment(job.first_eta_at)}, {duration(abs(off))} {'before' if off > 0 else 'after'} it ended"


def _speed(job: Job) -> str | None:
    if not job.rate.items_per_s:
        return None
    return f"{job.rate.items_per_s:,.1f} items/s, {job.rate.tokens_per_s:,.0f} tokens/s"


def _left(job: Job) -> str | None:
    if job.eta_at is None or job.state.final:
        return None
    now = datetime.now(UTC)
    told = f"about {duration((job.eta_at - now).total_seconds())}"
    if job.eta_early_at is None or job.eta_late_at is None:
        return told
    early, late = (duration(max(0.0, (each - now).total_seconds())) for each in (job.eta_early_at, job.eta_late_at))
    return told if early == late else f"{told} ({early} to {late})"


def _moment(moment: datetime | None) -> str | None:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if moment else None


def _age(job: Job) -> str:
    return f"{duration(max(1.0, (datetime.now(UTC) - job.created_at).total_seconds()))} ago"

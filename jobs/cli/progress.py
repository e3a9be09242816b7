"""A job's progress in words: how far it is, how fast it goes, how long it takes yet."""

from datetime import UTC, datetime

from jobs.durations import duration
from jobs.schemas import Job, TimeEstimate

BAR, LEAST_BAR = 32, 12
"""Columns of a live line's bar, and those that still say something."""


def plain(job: Job, load: str = "") -> str:
    """A job in one line; `load` is what the devices do."""
    return f"{job.task} {job.id}: {done(job):,}/{job.counts.total:,} {figures(job, load)}"


def live(job: Job, load: str = "", *, columns: int) -> str:
    """A job in one line of at most so many columns, with a bar that takes what the words leave of them."""
    total = f"{job.counts.total:,}" if job.counts.total else "?"
    words = f"{done(job):,}/{total} {figures(job, load)}"
    room = columns - len(f"{job.task}  {words}")
    bar = f" {_bar(job, min(BAR, room))}" if room >= LEAST_BAR else ""
    return f"{job.task}{bar} {words}"[:columns]


def figures(job: Job, load: str = "") -> str:
    """What stands beside the bar."""
    parts = [state(job)]
    if job.rate.items_per_s:
        parts.append(f"{job.rate.items_per_s:,.1f} items/s")
    if job.rate.tokens_per_s:
        parts.append(f"{job.rate.tokens_per_s:,.0f} tokens/s")
    if job.eta_at is not None and not job.state.final:
        parts.append(f"{duration((job.eta_at - datetime.now(UTC)).total_seconds())} left")
    if late := lateness(job):
        parts.append(late)
    if job.counts.error:
        parts.append(f"{job.counts.error:,} failed")
    return ", ".join(parts) + (f"; {load}" if load else "")


def waits(job: Job) -> bool:
    """Whether somebody has to approve of its canary."""
    return job.canary is not None and job.canary.state == "waiting" and not job.state.final


def waiting(job: Job) -> str:
    """What came of a canary that waits for approval, and what to type next."""
    lines = [f"{job.id} waits for approval; {canary(job)}", f"  look: textmill results {job.id}"]
    return "\n".join([*lines, f"  go on: textmill approve {job.id}"])


def canary(job: Job) -> str | None:
    """What the canary is, and what came of it."""
    if (told := job.canary) is None:
        return None
    words = f"canary of {told.items:,} items: {told.ok:,} ok, {told.error:,} failed"
    words += f", {told.usage.input_tokens:,} tokens in, {told.usage.output_tokens:,} out"
    if told.rest is not None:
        words += f"; the rest takes {span(told.rest)}"
    return words


def lateness(job: Job) -> str | None:
    """Whether it will miss its deadline, and by how much; None: it will not, or nobody knows."""
    if job.late_by_s is None or job.deadline_at is None or job.eta_early_at is None:
        return None
    sure = "will" if job.eta_early_at > job.deadline_at else "may"
    return f"{sure} miss its deadline by about {duration(job.late_by_s)}"


def span(time: TimeEstimate) -> str:
    """`about 12 min (8 min to 20 min)`."""
    if not time.early_s:
        return f"at most about {duration(time.late_s)}"
    return f"about {duration(time.seconds)} ({duration(time.early_s)} to {duration(time.late_s)})"


def state(job: Job) -> str:
    """The state, with the pause that is no state."""
    if waits(job):
        return f"{job.state} (waits for approval)"
    paused = job.control == "pause" and not job.state.final
    return f"{job.state} (paused)" if paused else str(job.state)


def done(job: Job) -> int:
    """Items that have a result."""
    return job.counts.ok + job.counts.error


def _bar(job: Job, columns: int) -> str:
    inner = columns - 2
    full = inner * done(job) // max(1, job.counts.total)
    return f"[{'#' * full}{'-' * (inner - full)}]"

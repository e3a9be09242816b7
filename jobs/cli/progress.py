"""A job's progress in words: how far it is, how fast it goes, how long it takes yet."""

from datetime import UTC, datetime

from jobs.schemas import Job

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
    if job.counts.error:
        parts.append(f"{job.counts.error:,} failed")
    return ", ".join(parts) + (f"; {load}" if load else "")


def state(job: Job) -> str:
    """The state, with the pause that is no state."""
    paused = job.control == "pause" and not job.state.final
    return f"{job.state} (paused)" if paused else str(job.state)


def done(job: Job) -> int:
    """Items that have a result."""
    return job.counts.ok + job.counts.error


def duration(seconds: float) -> str:
    """`850 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`."""
    whole = max(0, round(seconds))
    if 0 <= seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, size, below, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit}" + (f" {whole % size // part} {below}" if whole % size // part else "")
    return f"{whole} s"


def _bar(job: Job, columns: int) -> str:
    inner = columns - 2
    full = inner * done(job) // max(1, job.counts.total)
    return f"[{'#' * full}{'-' * (inner - full)}]"

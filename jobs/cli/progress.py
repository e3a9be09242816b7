"""How a job's progress is shown: a live line on a terminal, JSON lines for programs, a few plain lines otherwise."""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TextIO

from jobs.schemas import Job

if TYPE_CHECKING:
    from rich.progress import Progress

JSON_INTERVAL_S = 1.0
PLAIN_INTERVAL_S = 10.0


class Reporter(Protocol):
    """Shows a job as it goes on."""

    def show(self, job: Job, load: str = "") -> None:
        """Take the job's present state, and what the devices do; what is shown, and how often, is the reporter's
        matter."""
        ...

    def note(self, text: str) -> None:
        """Say something that is not progress, such as a worker's restart."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def reporter(stream: TextIO | None, *, as_json: bool) -> Reporter:
    """The reporter that suits the stream; None: it was closed before we began."""
    if stream is None:
        return PlainLines(open(os.devnull, "w", encoding="utf-8"))  # for as long as the process lives
    if as_json:
        return JsonLines(stream)
    return LiveLine(stream) if stream.isatty() else PlainLines(stream)


class JsonLines:
    """One line of JSON an interval, one for every new state; notes on stderr, as JSON too."""

    def __init__(self, stream: TextIO, interval_s: float = JSON_INTERVAL_S) -> None:
        self._stream, self._due = stream, _Due(interval_s)

    def show(self, job: Job, load: str = "") -> None:
        if self._due(job):
            print(job.model_dump_json(), file=self._stream, flush=True)

    def note(self, text: str) -> None:
        print(json.dumps({"note": text}), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to put back."""


class PlainLines:
    """One plain line when the state changes, and now and then between."""

    def __init__(self, stream: TextIO, interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._stream, self._due = stream, _Due(interval_s)

    def show(self, job: Job, load: str = "") -> None:
        if self._due(job):
            print(_joined(plain(job), load), file=self._stream, flush=True)

    def note(self, text: str) -> None:
        print(f"textmill: {text}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to put back."""


class LiveLine:
    """A bar that is drawn again in place. rich is loaded when the first is made."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)
        self._progress: Progress | None = None

    def show(self, job: Job, load: str = "") -> None:
        if self._progress is None:
            self._progress = _bar(self._console)
            self._progress.add_task(job.task, total=job.counts.total or None, figures="")
            self._progress.start()
        task = self._progress.task_ids[0]
        total = job.counts.total or None
        self._progress.update(task, total=total, completed=done(job), figures=_joined(figures(job), load))

    def note(self, text: str) -> None:
        self._console.print(f"textmill: {text}", markup=False, soft_wrap=True)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _joined(figures: str, load: str) -> str:
    return f"{figures}; {load}" if load else figures


def plain(job: Job) -> str:
    """A job in one line."""
    return f"{job.task} {job.id}: {done(job):,}/{job.counts.total:,} {figures(job)}"


def figures(job: Job) -> str:
    """What stands beside the bar."""
    parts = [_state(job)]
    if job.rate.items_per_s:
        parts.append(f"{job.rate.items_per_s:,.1f} items/s")
    if job.rate.tokens_per_s:
        parts.append(f"{job.rate.tokens_per_s:,.0f} tokens/s")
    if job.eta_at is not None and not job.state.final:
        parts.append(f"{duration((job.eta_at - datetime.now(UTC)).total_seconds())} left")
    if job.counts.error:
        parts.append(f"{job.counts.error:,} failed")
    return ", ".join(parts)


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


def _state(job: Job) -> str:
    paused = job.control == "pause" and not job.state.final
    return f"{job.state} (paused)" if paused else str(job.state)


def _bar(console: "object") -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    assert isinstance(console, Console)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    return Progress(*columns, console=console, refresh_per_second=4)


class _Due:
    """Whether a line is to be printed now: a new state, or the interval is over."""

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s, self._clock = interval_s, clock
        self._last, self._state = float("-inf"), ""

    def __call__(self, job: Job) -> bool:
        now, state = self._clock(), _state(job)
        if state == self._state and (job.state.final or now - self._last < self._interval_s):
            return False
        self._last, self._state = now, state
        return True

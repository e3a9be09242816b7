"""How a job's progress is shown: a live line on a terminal, JSON lines for programs, a few plain lines otherwise."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol, TextIO

import click

from jobs.cli.progress import live, plain, state
from jobs.schemas import Job

JSON_INTERVAL_S = 1.0
PLAIN_INTERVAL_S = 10.0
LIVE_INTERVAL_S = 0.25
COLUMNS = 80
"""Of a terminal that does not say how wide it is."""

BEGIN, CLEAR = "\r", "\x1b[K"
"""Back to the line's beginning; away with what stands right of here."""


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
    return LiveLine(stream) if _is_terminal(stream) else PlainLines(stream)


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
            print(plain(job, load), file=self._stream, flush=True)

    def note(self, text: str) -> None:
        print(f"textmill: {text}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to put back."""


class LiveLine:
    """A bar that is drawn again in place, with notes above it; they come from another thread, too."""

    def __init__(self, stream: TextIO, interval_s: float = LIVE_INTERVAL_S) -> None:
        self._stream, self._due = stream, _Due(interval_s)
        self._shown: tuple[Job, str] | None = None
        self._one_at_a_time = threading.Lock()

    def show(self, job: Job, load: str = "") -> None:
        with self._one_at_a_time:
            self._shown = job, load
            if self._due(job):
                self._draw()

    def note(self, text: str) -> None:
        with self._one_at_a_time:
            if self._shown is None:
                self._write(f"textmill: {text}\n")
            else:
                self._write(f"{BEGIN}{CLEAR}textmill: {text}\n")
                self._draw()

    def close(self) -> None:
        with self._one_at_a_time:
            if self._shown is not None:
                self._draw("\n")
                self._shown = None

    def _draw(self, end: str = "") -> None:
        assert self._shown is not None
        job, load = self._shown
        # Not in the last column: there some terminals go on to the next line, others erase what stands in it.
        line = live(job, load, columns=self._columns() - 1)
        self._write(f"{BEGIN}{line}{CLEAR}{end}")

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or COLUMNS
        except OSError:
            return COLUMNS

    def _write(self, text: str) -> None:
        click.echo(text, file=self._stream, nl=False)


def _is_terminal(stream: TextIO) -> bool:
    """Whether a line can be drawn again on it; a dumb terminal (an editor's) only takes lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class _Due:
    """Whether a line is to be printed now: a new state, or the interval is over."""

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s, self._clock = interval_s, clock
        self._last, self._state = float("-inf"), ""

    def __call__(self, job: Job) -> bool:
        now, now_state = self._clock(), state(job)
        if now_state == self._state and (job.state.final or now - self._last < self._interval_s):
            return False
        self._last, self._state = now, now_state
        return True

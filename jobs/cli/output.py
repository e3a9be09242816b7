"""Writes a job's results to a sink, counting on the way what a summary wants to say."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.errors import OutputError
from jobs.schemas import Result

ADVANCE_S = 0.5
"""Longest time that writing results keeps the progress line waiting."""

if TYPE_CHECKING:
    from jobs.corpus import Sink
    from jobs.handle import JobHandle
    from jobs.tasks import AnyTask


@dataclass
class Tally:
    """What was written."""

    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Failed items by error code."""
    truncated_items: int = 0
    truncated_tokens: int = 0
    reader_left: bool = False
    """The reader of the pipe wanted no more; the rest was not written."""

    def add(self, result: Result) -> None:
        """Count one result."""
        if result.error is None:
            self.ok += 1
        else:
            self.errors[result.error.code.value] += 1
        if result.usage.truncated_tokens:
            self.truncated_items += 1
            self.truncated_tokens += result.usage.truncated_tokens


def open_sink(target: str, task: "AnyTask") -> "Sink":
    """Where the results of this task go. Raises InvalidInput or OutputError before anything is run for them."""
    from jobs import corpus

    sink = corpus.open_sink(target, columns=tuple(task.output.model_fields))
    sink.check()
    return sink


def write(results: Iterable[Result], sink: "Sink", tally: Tally | None = None) -> Tally:
    """Write all of them, counting on. A pipe whose reader leaves early (`| head`) is no error. Raises OutputError."""
    tally = tally or Tally()
    try:
        with sink:
            for result in results:
                tally.add(result)
                if not tally.reader_left:
                    _write_one(sink, result, tally)
    except OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):
            raise
        _leave(tally)
    return tally


class Export:
    """A job's results on their way to a sink while the job runs: always the items that come next, none left out.

    Standard output gets nothing before `finish`: what went down a pipe cannot be taken back.
    """

    def __init__(self, handle: "JobHandle", sink: "Sink") -> None:
        self._handle, self._sink, self._tally, self._last = handle, sink, Tally(), -1

    def advance(self) -> None:
        """Write what has come since, for a moment: whoever calls shows progress too. Raises OutputError."""
        if self._sink.path is None:
            return
        until = time.monotonic() + ADVANCE_S
        for result in self._handle.results(after=self._last):
            if result.seq != self._last + 1 or time.monotonic() > until:
                return
            self._tally.add(result)
            self._sink.write(result)
            self._last = result.seq

    def finish(self) -> Tally:
        """Write the rest; the output appears under its name. Raises OutputError."""
        return write(self._handle.results(after=self._last), self._sink, self._tally)


def _write_one(sink: "Sink", result: Result, tally: Tally) -> None:
    try:
        sink.write(result)
    except OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):
            raise
        _leave(tally)


def _leave(tally: Tally) -> None:
    from jobs.cli import forget_stdout

    tally.reader_left = True
    forget_stdout()

"""Writes a job's results to a sink, counting on the way what a summary wants to say."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.errors import OutputError
from jobs.store.encoding import result_line

CUT = '"finish_reason":"length"'
"""In an output as the worker writes it, it is this field and nothing else: within a text the quotes are escaped."""
ADVANCE_S = 0.5
"""Longest time that writing results keeps the progress line waiting."""

if TYPE_CHECKING:
    from jobs.corpus import AnySink
    from jobs.handle import JobHandle
    from jobs.store.values import ResultRow
    from jobs.tasks import AnyTask


@dataclass
class Tally:
    """What was written."""

    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Failed items by error code."""
    truncated_items: int = 0
    truncated_tokens: int = 0
    cut_outputs: int = 0
    """Outputs of which a text ended at `max_new_tokens`."""
    reader_left: bool = False
    """The reader of the pipe wanted no more; the rest was not written."""

    def add(self, row: "ResultRow") -> None:
        """Count one result."""
        if row.error_code is None:
            self.ok += 1
        else:
            self.errors[row.error_code] += 1
        if row.truncated_tokens:
            self.truncated_items += 1
            self.truncated_tokens += row.truncated_tokens
        if row.output is not None and CUT in row.output:
            self.cut_outputs += 1


def open_sink(target: str, task: "AnyTask", keep: Sequence[str]) -> "AnySink":
    """Where the results of this task go, with the kept fields. Raises InvalidInput or OutputError before
    anything is run for them."""
    from jobs import corpus
    from jobs.exporting import kinds

    sink = corpus.open_sink(target, columns=kinds(task), kept=keep)
    sink.check()
    return sink


def write(rows: Iterable["ResultRow"], sink: "AnySink", tally: Tally | None = None) -> Tally:
    """Write all of them, counting on. A pipe whose reader leaves early (`| head`) is no error. Raises OutputError."""
    tally = tally or Tally()
    try:
        with sink:
            for row in rows:
                tally.add(row)
                if not tally.reader_left:
                    _write_one(sink, row, tally)
    except OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):
            raise
        _leave(tally)
    return tally


class Export:
    """A job's results on their way to a sink while the job runs: always the items that come next, none left out.

    Standard output, a pipe or a device gets nothing before `finish`: what went there cannot be taken back.
    """

    def __init__(self, handle: "JobHandle", sink: "AnySink") -> None:
        self._handle, self._sink, self._tally, self._last = handle, sink, Tally(), -1

    def advance(self) -> None:
        """Write what has come since, for a moment: whoever calls shows progress too. Raises OutputError."""
        if self._sink.direct:
            return
        until = time.monotonic() + ADVANCE_S
        for row in self._handle.rows(after=self._last):
            if row.seq != self._last + 1 or time.monotonic() > until:
                return
            self._tally.add(row)
            self._sink.write_line(result_line(row))
            self._last = row.seq

    def finish(self) -> Tally:
        """Write the rest; the output appears under its name. Raises OutputError."""
        return write(self._handle.rows(after=self._last), self._sink, self._tally)


def _write_one(sink: "AnySink", row: "ResultRow", tally: Tally) -> None:
    try:
        sink.write_line(result_line(row))
    except OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):
            raise
        _leave(tally)


def _leave(tally: Tally) -> None:
    from jobs.cli import forget_stdout

    tally.reader_left = True
    forget_stdout()

"""The lines of an input that were refused: the first thousand at hand, all of them in a file."""

import logging
import secrets
import time
from pathlib import Path
from typing import BinaryIO

import orjson

from jobs.errors import InvalidItems, Problem

KEPT = 1000
REPORT_AGE_S = 30 * 86_400.0
"""Reports of this age are removed when a new one is begun."""
MESSAGE_CHARS = 500

_log = logging.getLogger(__name__)


class Refusals:
    """Collects problems. The report, one JSON object a line, is begun with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stream: BinaryIO | None = None
        self._told = False
        self.first: list[Problem] = []
        self.total = 0
        self.report: Path | None = None
        """None: nothing was refused, or the report could not be written, which the log tells."""

    def add(self, problem: Problem) -> None:
        """Remember one more."""
        if self.total == 0:
            self._begin()
        self.total += 1
        if len(self.first) < KEPT:
            self.first.append(problem)
        self._write(problem)

    def error(self) -> InvalidItems:
        """All that was refused, as the error a submit raises."""
        self._complete()
        self._told = True
        return InvalidItems(self.first, self.total, str(self.report) if self.report else None)

    def settle(self, job_id: str) -> None:
        """Complete the report under the job's name, where `report_of` finds it."""
        self._complete()
        self._told = True
        if self.report is not None:
            try:
                self.report = self.report.replace(report_of(self._folder, job_id))
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Let go of a report that nobody was told of."""
        self._complete()
        if self.report is not None and not self._told:
            self.report.unlink(missing_ok=True)

    def _complete(self) -> None:
        try:
            if self._stream is not None:
                self._stream.close()
        except OSError as error:
            self._give_up(error)
        self._stream = None

    def _begin(self) -> None:
        path = self._folder / f"refused-{secrets.token_hex(8)}.jsonl"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _prune(self._folder)
            self._stream = path.open("xb")
            self.report = path
        except OSError as error:
            self._give_up(error)

    def _write(self, problem: Problem) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(orjson.dumps(problem, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """A report that cannot be written must not hide the problems themselves."""
        _log.warning("the report of refused lines cannot be written in %s: %s", self._folder, error)
        self._stream = self.report = None


def report_of(folder: Path, job_id: str) -> Path:
    """Where the lines that a job was begun without are listed; no file: there were none, or it is long ago."""
    return folder / f"refused-{job_id}.jsonl"


def _prune(folder: Path) -> None:
    for old in folder.glob("refused-*.jsonl"):
        if time.time() - old.stat().st_mtime > REPORT_AGE_S:
            old.unlink(missing_ok=True)


def shortened(message: str) -> str:
    """A message without what a hostile line could blow it up with: length, line ends, what is not UTF-8."""
    flat = " ".join(message.split()).encode(errors="backslashreplace").decode()
    return flat if len(flat) <= MESSAGE_CHARS else flat[: MESSAGE_CHARS - 3] + "..."

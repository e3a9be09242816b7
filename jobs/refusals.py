"""The lines of an input that were refused: the first thousand at hand, all of them in a file."""

import logging
import secrets
from pathlib import Path
from typing import BinaryIO

import orjson

from jobs.errors import InvalidItems, Problem

KEPT = 1000
MESSAGE_CHARS = 500

_log = logging.getLogger(__name__)


class Refusals:
    """Collects problems. The report, one JSON object a line, is begun with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stream: BinaryIO | None = None
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
        self.close()
        return InvalidItems(self.first, self.total, str(self.report) if self.report else None)

    def close(self) -> None:
        """Complete the report."""
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


def shortened(message: str) -> str:
    """A message without what a hostile line could blow it up with: length, line ends, what is not UTF-8."""
    flat = " ".join(message.split()).encode(errors="backslashreplace").decode()
    return flat if len(flat) <= MESSAGE_CHARS else flat[: MESSAGE_CHARS - 3] + "..."

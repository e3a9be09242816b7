"""A terminal of the tests' own, and its screen as a person sees it."""

import os
import re
import select
import termios
from typing import TextIO


class Terminal:
    """A pseudo-terminal: what is written to `stream`, and what stands on its screen then."""

    def __init__(self, columns: int) -> None:
        self._screen, other = os.openpty()
        self.stream: TextIO = os.fdopen(other, "w", encoding="utf-8")
        self.resize(columns)
        self._rows, self._at = [""], 0

    def resize(self, columns: int) -> None:
        self._columns = columns
        termios.tcsetwinsize(self.stream.fileno(), (24, columns))

    def rows(self) -> list[str]:
        """The screen's lines so far."""
        while select.select([self._screen], [], [], 0)[0]:
            for part in re.findall(r"\r\n|\r|\x1b\[K|[^\r\n\x1b]", os.read(self._screen, 65_536).decode()):
                self._take(part)
        return self._rows

    def close(self) -> None:
        self.stream.close()
        os.close(self._screen)

    def _take(self, part: str) -> None:
        if part == "\r\n":
            self._rows.append("")
            self._at = 0
        elif part == "\r":
            self._at = 0
        elif part == "\x1b[K":
            self._rows[-1] = self._rows[-1][: self._at]
        else:
            if self._at == self._columns:
                self._take("\r\n")
            self._rows[-1] = self._rows[-1][: self._at] + part + self._rows[-1][self._at + 1 :]
            self._at += 1

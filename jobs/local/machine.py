"""Who runs the machine of a home: a lock that the kernel frees when its holder dies."""

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

Role = Literal["run", "up"]
FILE = "machine.lock"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds the lock."""

    pid: int
    role: Role

    def __str__(self) -> str:
        return f"`textmill {self.role}` (process {self.pid})"


class MachineLock:
    """The right to run broker, worker and upkeep in a home. One process has it at a time."""

    def __init__(self, home: Path, role: Role) -> None:
        self._path, self._role = home / FILE, role
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Whether this process has the lock now. Does not wait."""
        if self._file is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        self._sign(file)
        return True

    def release(self) -> None:
        """Let the next one have it."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None

    def _sign(self, file: IO[str]) -> None:
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "role": self._role}))
        file.flush()


def owner(home: Path) -> Owner | None:
    """Who runs the machine of this home now; None: nobody."""
    with suppress(OSError, ValueError, TypeError), (home / FILE).open("r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Owner(**json.loads(file.read()))
    return None

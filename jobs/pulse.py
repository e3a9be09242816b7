"""How a process of a deployment shows on its own machine that it goes on: a small file, written anew every second.

The process holds a lock on its file, which the kernel frees when it dies, whatever kills it. So a reader tells a dead
process (nobody holds the lock) from a hung one (locked, and silent for longer than it said it would be). Times are the
monotonic clock's, which all processes of a machine share on Linux and macOS; a jump of the wall clock hangs nobody.
"""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

log = logging.getLogger("textmill.pulse")

Role = Literal["worker", "supervisor", "upkeep"]
FOLDER = "run"
FORGET_S = 86_400.0
"""A file that nobody wrote for so long is swept away: its machine or container is gone."""


class Seen(NamedTuple):
    """A process that lives, as it last showed itself."""

    role: Role
    pid: int
    at: float
    """When, on the monotonic clock."""
    until: float
    """A silence that lasts past this is a hang."""
    facts: Mapping[str, Any]

    def silent_s(self) -> float:
        return time.monotonic() - self.at

    @property
    def hung(self) -> bool:
        return time.monotonic() > self.until


class Pulse:
    """This process's file. What cannot be written is said once: nothing may die of its own health report."""

    def __init__(self, home: Path, role: Role) -> None:
        self._role: Role = role
        self._path = _path(home, role, os.getpid())
        self._handle: int | None = None
        self._length = 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sweep(self._path.parent)
            self._handle = _locked(self._path)
        except OSError as error:
            self._fail(error)

    def beat(self, quiet_s: float, **facts: Any) -> None:
        """Show that this process goes on, and for how long it may be silent now."""
        if self._handle is None:
            return
        now = time.monotonic()
        told = {"role": self._role, "pid": os.getpid(), "at": now, "until": now + quiet_s, **facts}
        text = json.dumps(told).encode()
        # One write over the whole of the one before: a reader never finds the end of an older, longer text.
        self._length = max(self._length, len(text))
        try:
            os.pwrite(self._handle, text.ljust(self._length), 0)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Take the file away: this process ends as it should."""
        if self._handle is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    def _fail(self, error: OSError) -> None:
        log.warning("health cannot be reported in %s: %s", self._path, error)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def pulses(home: Path) -> list[Seen]:
    """The processes of this home that live on this machine (or in this container)."""
    found = (_seen(path) for path in sorted((home / FOLDER).glob(f"{socket.gethostname()}-*.pulse")))
    return [seen for seen in found if seen is not None]


def pulse_of(home: Path, role: Role, pid: int) -> Seen | None:
    """One process, as it last showed itself; None before it did, and once it has ended."""
    return _seen(_path(home, role, pid))


def remains_of(home: Path, role: Role, pid: int) -> Seen | None:
    """What a process that has ended showed last, if it could not take its file away. The file is removed."""
    path = _path(home, role, pid)
    with suppress(OSError):
        text = path.read_bytes()
        path.unlink()
        return _read(text)
    return None


def _path(home: Path, role: Role, pid: int) -> Path:
    return home / FOLDER / f"{socket.gethostname()}-{pid}-{role}.pulse"


def _seen(path: Path) -> Seen | None:
    with suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(file.read()) or _read(path.read_bytes())  # it may be in the middle of writing
        if file.read(1):  # else its process is about to take the lock
            path.unlink()
    return None


def _locked(path: Path) -> int:
    """The file, emptied, with its lock: not one that a reader has just removed as a dead process's."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle).st_ino:
                os.ftruncate(handle, 0)
                return handle
        os.close(handle)


def _read(text: bytes) -> Seen | None:
    with suppress(ValueError, KeyError, TypeError):
        facts = json.loads(text)
        return Seen(facts.pop("role"), facts.pop("pid"), facts.pop("at"), facts.pop("until"), facts)
    return None


def _sweep(folder: Path) -> None:
    for path in folder.glob("*.pulse"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGET_S:
                path.unlink()

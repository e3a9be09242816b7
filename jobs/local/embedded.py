"""Puts a home's mill together, and keeps a job attended until it is final."""

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

from jobs.errors import StoreUnavailable
from jobs.local.machine import Role
from jobs.local.mill import Mill, Say
from jobs.local.process import LOG_BYTES
from jobs.logs import formatter
from jobs.queue import Queue
from jobs.schemas import Job
from jobs.settings import Settings
from jobs.store import Store
from jobs.upkeep import Upkeep

POLL_S = (0.05, 0.25)
"""How often a job is looked at: at first, and later."""
EMBEDDED_LEASE_S = 20.0
"""Unless a lease is set: what a killed worker held goes on after so long, and renewal on the same machine is quick."""
FULL_BYTES = 2**20
"""Less free disk than this, and no result can be counted on to be saved."""
READY_S = 60.0
"""A worker that announced itself within this time is up."""


def mill(settings: Settings, store: Store, *, role: Role, say: Say, port: int | None = None) -> Mill:
    """The machine of the settings' home, not started yet."""
    if "lease_s" not in settings.model_fields_set:
        settings = settings.model_copy(update={"lease_s": EMBEDDED_LEASE_S})
    queue = Queue(settings)

    def ready(pid: int) -> bool:
        try:
            return any(row.pid == pid and row.host == socket.gethostname() for row in store.workers.live(READY_S))
        except StoreUnavailable:
            return False

    def upkeep() -> Upkeep:
        _keep_log(settings)
        return Upkeep(store, queue, settings, holder())

    return Mill(settings, role=role, ready=ready, upkeep=upkeep, say=say, port=port)


def attend(machine: Mill, look: Callable[[], Job], say: Say) -> Iterator[Job]:
    """The job again and again until it is final, with a machine at work on it.

    Starts the machine unless another process of the home runs it, and takes it over when that process leaves.
    Raises what made the machine give up. A database that does not answer, or has no room, is waited for.
    """
    wait_s, complained, room = POLL_S[0], False, Room(machine.home)
    while True:
        if full := room.noticed():
            say(full)
        try:
            job = look()
            complained = False
        except StoreUnavailable as error:
            if not complained:
                say(f"the database does not answer; waiting for it ({error})")
            complained = True
            time.sleep(POLL_S[1])
            continue
        yield job
        if job.state.final:
            return
        if machine.failure is not None:
            raise machine.failure
        machine.try_start()
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.5, POLL_S[1])


class Room:
    """Notices that the home's disk is full: once, and again after there was room."""

    def __init__(self, home: Path) -> None:
        self._home, self._told = home, False

    def noticed(self) -> str | None:
        """What is to be said of it now."""
        free = shutil.disk_usage(self._home).free
        told, self._told = self._told, free < FULL_BYTES
        if told or not self._told:
            return None
        return f"the disk of {self._home} is full ({free:,} bytes are free); waiting for room, nothing is lost"


def _keep_log(settings: Settings) -> None:
    """What upkeep and the library log in this process goes beside the worker's log."""
    folder = settings.home / "logs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = _QuietLog(folder / "upkeep.log", maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(formatter(settings))
    handler.setLevel(settings.log_level.upper())
    for name in ("jobs", "textmill"):
        logging.getLogger(name).addHandler(handler)


class _QuietLog(RotatingFileHandler):
    """A log that says nothing about itself: on a full disk each line would be a traceback on the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Lose the line."""


def holder() -> str:
    """This process's name among those that may lead."""
    return f"{socket.gethostname()}:{os.getpid()}"

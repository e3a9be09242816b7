"""A full disk under the home is said once, in a line, and is waited for."""

import logging
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jobs.local import embedded
from jobs.settings import Settings

MakeSettings = Callable[..., Settings]
Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def own_handlers() -> Iterator[None]:
    """Takes the handlers off again that a test adds."""
    loggers = [logging.getLogger(name) for name in ("jobs", "textmill")]
    before = [list(logger.handlers) for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        added, logger.handlers = set(logger.handlers) - set(handlers), handlers
        for handler in added:
            with suppress(OSError):
                handler.close()


@pytest.mark.usefixtures("own_handlers")
def test_a_log_that_cannot_be_written_is_silent(settings: MakeSettings, capfd: pytest.CaptureFixture[str]) -> None:
    chosen = settings()
    (chosen.home / "logs").mkdir(parents=True)
    (chosen.home / "logs" / "upkeep.log").symlink_to("/dev/full")
    embedded._keep_log(chosen)

    logging.getLogger("textmill.upkeep").warning("the database did not answer")

    assert capfd.readouterr().err == ""


def test_a_full_disk_is_told_once_and_again_after_there_was_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = embedded.Room(tmp_path)
    said = []

    for free in (10**9, 0, 4096, 10**9, 0):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(10**10, 0, free))
        said.append(room.noticed())

    assert [bool(each) for each in said] == [False, True, False, False, True]
    assert said[1] == f"the disk of {tmp_path} is full (0 bytes are free); waiting for room, nothing is lost"

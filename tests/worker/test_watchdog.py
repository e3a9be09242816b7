"""The watchdog ends what makes no progress, after writing down why."""

import threading
import time

import pytest

from worker.watchdog import HUNG, Watchdog


class Leaving:
    """Remembers with which code the process would have ended."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.left = threading.Event()
        self.told: list[str] = []

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.left.set()


@pytest.fixture
def leaving() -> Leaving:
    return Leaving()


def test_work_that_takes_too_long_ends_the_process(leaving: Leaving, capfd: pytest.CaptureFixture[str]) -> None:
    dog = Watchdog(leaving.told.append, leaving)
    dog.start()

    with dog.watch("a step of model x", 0.05):
        assert leaving.left.wait(5)
    dog.stop()

    assert leaving.codes == [HUNG]
    assert leaving.told == ["no progress in time: a step of model x"]
    assert "test_watchdog" in capfd.readouterr().err


def test_work_in_time_ends_nothing(leaving: Leaving) -> None:
    dog = Watchdog(leaving.told.append, leaving)
    dog.start()

    for _ in range(3):
        with dog.watch("a step", 5):
            time.sleep(0.02)
    dog.stop()

    assert leaving.codes == []


def test_a_reason_that_cannot_be_written_down_does_not_keep_the_process_alive(leaving: Leaving) -> None:
    forever = threading.Event()
    dog = Watchdog(lambda reason: forever.wait(30) and None, leaving)
    started = time.monotonic()

    dog.end(70, "device lost")

    assert leaving.codes == [70]
    assert time.monotonic() - started < 4
    forever.set()

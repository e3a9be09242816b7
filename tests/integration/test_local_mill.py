"""The supervisor with stand-in workers: restarts, giving up, the lock of a home, and nobody left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobs.errors import WorkerFailed
from jobs.local import broker
from jobs.local.machine import MachineLock, Owner, owner
from jobs.local.mill import Mill
from jobs.local.process import WorkerProcess, environment
from jobs.settings import Settings

STEADY = "import pathlib, os, time; pathlib.Path(os.environ['TEXTMILL_HOME'], str(os.getpid())).touch(); time.sleep(60)"


class NoUpkeep:
    """Upkeep is somebody else's test."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes `python -m worker` run the given code, in child processes only."""

    def write(code: str) -> None:
        package = tmp_path / "stand in" / "worker"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(package.parent))

    return write


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "Öl und Mühle"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def mill(home: Path, said: list[str]) -> Iterator[Mill]:
    made = _mill(home, said)
    yield made
    made.stop()


def test_a_started_mill_runs_a_worker_and_a_broker_and_leaves_neither(
    home: Path, mill: Mill, stand_in: Callable[[str], None]
) -> None:
    stand_in(STEADY)

    assert mill.try_start()
    worker, url = mill.worker_pid, broker.find(home)
    poll(lambda: (home / str(worker)).exists())
    assert mill.stop()

    assert url is not None
    assert broker.find(home) is None
    assert worker is not None
    assert not psutil.pid_exists(worker)
    assert owner(home) is None


def test_a_killed_worker_is_started_again_and_its_end_explained(
    home: Path, mill: Mill, said: list[str], stand_in: Callable[[str], None]
) -> None:
    stand_in(STEADY)
    mill.try_start()
    first = mill.worker_pid
    assert first is not None
    poll(lambda: (home / str(first)).exists())

    os.kill(first, signal.SIGKILL)

    poll(lambda: mill.worker_pid != first and (home / str(mill.worker_pid)).exists())
    assert "signal 9: killed, perhaps for lack of memory" in said[0]
    assert mill.failure is None


def test_a_worker_that_never_becomes_ready_is_given_up_with_its_last_words(
    mill: Mill, stand_in: Callable[[str], None]
) -> None:
    stand_in("raise SystemExit('no module named torch, say')")

    mill.try_start()

    poll(lambda: mill.failure is not None)
    assert isinstance(mill.failure, WorkerFailed)
    assert "exit code 1" in str(mill.failure)
    assert "no module named torch, say" in str(mill.failure)


def test_a_worker_that_was_ready_may_die_often(mill: Mill, said: list[str], stand_in: Callable[[str], None]) -> None:
    stand_in(STEADY.replace("time.sleep(60)", "os._exit(70)"))

    mill.try_start()

    poll(lambda: len(said) >= 5)
    assert mill.failure is None
    assert "the device is beyond repair" in said[0]


def test_a_killed_broker_is_started_again_on_its_port(
    home: Path, mill: Mill, said: list[str], stand_in: Callable[[str], None]
) -> None:
    stand_in(STEADY)
    mill.try_start()
    url = mill.broker_url

    os.kill(json.loads((home / broker.FILE).read_text())["pid"], signal.SIGKILL)

    poll(lambda: any("broker" in line for line in said))
    assert mill.broker_url == url


def test_a_second_mill_waits_for_the_first_to_leave(
    home: Path, mill: Mill, said: list[str], stand_in: Callable[[str], None]
) -> None:
    stand_in(STEADY)
    second = _mill(home, said)
    mill.try_start()

    assert not second.try_start()
    assert second.owner() == Owner(os.getpid(), "run")
    mill.stop()
    assert second.try_start()
    second.stop()


def test_a_worker_dies_with_its_killed_starter(home: Path, stand_in: Callable[[str], None]) -> None:
    stand_in(STEADY)
    start = (
        "import sys, time, pathlib; from jobs.local.process import WorkerProcess; from jobs.settings import Settings\n"
        "print(WorkerProcess(Settings(home=pathlib.Path(sys.argv[1]))).pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", start, str(home)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    worker = psutil.Process(int(starter.stdout.readline()))
    poll(lambda: (home / str(worker.pid)).exists())

    starter.kill()
    starter.communicate()

    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running()


def test_a_worker_deaf_to_sigterm_is_killed_after_its_grace(home: Path, stand_in: Callable[[str], None]) -> None:
    stand_in("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STEADY)
    process = WorkerProcess(Settings(home=home))
    poll(lambda: (home / str(process.pid)).exists())

    assert process.stop(timeout_s=0.2) is False

    assert process.died()


def test_a_long_log_is_set_aside_at_the_next_start(home: Path, stand_in: Callable[[str], None]) -> None:
    stand_in("print('fresh')")
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "worker.log").write_bytes(b"x" * 10_000_001)

    process = WorkerProcess(Settings(home=home))

    poll(process.died)
    process.stop(1)
    assert process.last_words() == "fresh"
    assert (home / "logs" / "worker.log.1").stat().st_size == 10_000_001


def test_a_folder_called_jobs_or_worker_where_the_user_stands_changes_nothing(
    tmp_path: Path, home: Path, stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("print('ours')")
    for name in ("jobs", "worker"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)

    process = WorkerProcess(Settings(home=home))

    poll(process.died)
    process.stop(1)
    assert process.last_words() == "ours"


def test_the_worker_is_told_every_setting_that_was_chosen(home: Path) -> None:
    told = environment(Settings(home=home, device="cpu", queues=("a", "b"), threads=None))

    assert told["TEXTMILL_HOME"] == str(home)
    assert told["TEXTMILL_DEVICE"] == "cpu"
    assert told["TEXTMILL_QUEUES"] == "a,b"
    assert "TEXTMILL_THREADS" not in told


def test_the_lock_says_who_has_it_and_ends_with_its_holder(home: Path) -> None:
    first, second = MachineLock(home, "up"), MachineLock(home, "run")

    assert first.acquire()
    assert not second.acquire()
    assert str(owner(home)) == f"`textmill up` (process {os.getpid()})"
    first.release()
    assert owner(home) is None
    assert second.acquire()
    second.release()


def _mill(home: Path, said: list[str]) -> Mill:
    settings = Settings(home=home, grace_s=1)
    ready = lambda pid: (home / str(pid)).exists()  # noqa: E731
    return Mill(settings, role="run", ready=ready, upkeep=NoUpkeep, say=said.append)


def poll(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)

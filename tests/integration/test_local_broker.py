"""The embedded broker: started, adopted, restarted and stopped, in awkwardly named homes."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from jobs.errors import BrokerFailed
from jobs.local import broker


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "Mühle mit Leerzeichen 'und' \"Zeichen\""
    yield folder
    broker.stop(folder) if folder.exists() else None


def test_a_broker_in_a_home_with_spaces_and_umlauts_answers_only_with_its_password(home: Path) -> None:
    started = broker.start(home)

    with redis.Redis.from_url(started.url) as client:
        assert client.ping()
    with redis.Redis(port=started.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_the_record_is_for_its_owner_only_and_the_password_is_not_in_the_process_list(home: Path) -> None:
    started = broker.start(home)

    assert stat.S_IMODE((home / broker.FILE).stat().st_mode) == 0o600
    assert json.loads((home / broker.FILE).read_text())["url"] == started.url == broker.find(home)
    assert started.password not in " ".join(psutil.Process(started.pid).cmdline())


def test_a_running_broker_is_adopted_not_started_again(home: Path) -> None:
    first = broker.start(home)

    assert broker.start(home) == first


def test_a_broker_whose_starter_was_killed_at_once_is_adopted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orphans: list[int] = []
    spawn = subprocess.Popen

    def killed(*command: Any, **given: Any) -> "subprocess.Popen[bytes]":
        orphan = spawn(*command, **given)
        orphans.append(orphan.pid)
        orphan.returncode = 0  # nobody is left to wait for it
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", killed)
        with pytest.raises(KeyboardInterrupt):
            broker.start(home)

    started = broker.start(home)

    assert [started.pid] == orphans
    assert started.answers()


def test_starters_at_once_share_one_broker(home: Path) -> None:
    home.mkdir()
    start = "import sys, pathlib, jobs.local.broker as b; print(b.start(pathlib.Path(sys.argv[1])).url)"
    starters = [
        subprocess.Popen([sys.executable, "-c", start, str(home)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    urls = [starter.communicate()[0] for starter in starters]

    assert set(urls) == {f"{broker.find(home)}\n"}


def test_a_killed_broker_comes_back_with_port_password_and_data(home: Path) -> None:
    first = broker.start(home)
    with redis.Redis.from_url(first.url) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 5000)

    os.kill(first.pid, signal.SIGKILL)
    poll(lambda: broker.find(home) is None)
    second = broker.start(home)

    assert (second.url, second.pid != first.pid) == (first.url, True)
    with redis.Redis.from_url(second.url) as client:
        assert client.get("kept") == b"yes"


def test_a_damaged_append_only_file_is_set_aside(home: Path) -> None:
    first = broker.start(home)
    broker.stop(home)
    for file in (home / "broker" / "appendonlydir").iterdir():
        file.write_bytes(b"no such format\n" * 100)

    second = broker.start(home)

    assert second.answers()
    assert second.password == first.password
    assert list((home / "broker").glob("damaged-*"))


def test_a_hung_broker_is_replaced(home: Path) -> None:
    first = broker.start(home)
    os.kill(first.pid, signal.SIGSTOP)

    second = broker.start(home)

    assert second.answers()
    assert not psutil.pid_exists(first.pid)


def test_a_record_of_another_process_is_not_believed(home: Path) -> None:
    home.mkdir()
    with socket.socket() as silent, subprocess.Popen(["sleep", "60"]) as innocent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        record = {"pid": innocent.pid, "port": silent.getsockname()[1], "password": "x"}
        (home / broker.FILE).write_text(json.dumps(record))

        assert broker.start(home).answers()
        assert innocent.poll() is None
        innocent.kill()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "1"}', '{"pid": 1, "port": 1, "password": "x"}'])
def test_a_torn_record_is_no_record(home: Path, text: str) -> None:
    home.mkdir()
    (home / broker.FILE).write_text(text)

    assert broker.find(home) is None


def test_a_taken_port_is_refused_by_number(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(BrokerFailed, match=f"port {port} .* is taken"):
            broker.start(home, port=port)


def test_a_stopped_broker_is_gone_and_not_found(home: Path) -> None:
    started = broker.start(home)

    broker.stop(home)

    assert broker.find(home) is None
    assert not started.answers()


def poll(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)

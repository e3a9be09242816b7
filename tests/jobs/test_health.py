"""What a health check finds: processes that live, hang, are dead or are not ready."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.endings import MEANINGS, explain, shell_code
from jobs.health import home, judge, roles
from jobs.pulse import Pulse, pulse_of, pulses
from jobs.settings import load_settings


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Pulse]:
    pulse = Pulse(tmp_path, "worker")
    yield pulse
    pulse.close()


def test_where_nothing_runs_nothing_is_alive(tmp_path: Path) -> None:
    verdict = judge(tmp_path, "live")

    assert (verdict.ok, verdict.processes) == (False, [])


def test_a_worker_that_shows_itself_and_reaches_its_database_is_ready(tmp_path: Path, worker: Pulse) -> None:
    worker.beat(30, state="idle", database_at=time.monotonic(), problems=[])

    assert judge(tmp_path, "live").ok
    assert judge(tmp_path, "ready").ok
    assert not judge(tmp_path, "live", roles("upkeep")).ok


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"state": "starting"}, "starting"),
        ({"state": "stopping"}, "stopping"),
        ({"database_at": None, "database": "refused"}, "the database does not answer (refused)"),
        ({"database_at": -1e6}, "the database does not answer"),
        ({"problems": ["model 'x' cannot be loaded"]}, "model 'x' cannot be loaded"),
    ],
)
def test_what_keeps_a_worker_from_its_work_restarts_nobody(
    tmp_path: Path, worker: Pulse, facts: dict[str, object], said: str
) -> None:
    worker.beat(30, **{"state": "idle", "database_at": time.monotonic(), "problems": [], **facts})

    assert judge(tmp_path, "live").ok
    verdict = judge(tmp_path, "ready")
    assert not verdict.ok
    assert said in verdict.says


def test_silence_that_lasts_longer_than_announced_is_a_hang(tmp_path: Path, worker: Pulse) -> None:
    worker.beat(0.05, state="working", doing="a step of model x")
    time.sleep(0.1)

    verdict = judge(tmp_path, "live")

    assert not verdict.ok
    assert "is hung" in verdict.says
    assert "a step of model x" in verdict.says


def test_a_shorter_report_leaves_nothing_of_a_longer_one(tmp_path: Path, worker: Pulse) -> None:
    worker.beat(30, state="x" * 500)
    worker.beat(30, state="idle")

    seen = pulse_of(tmp_path, "worker", os.getpid())

    assert seen is not None
    assert seen.facts == {"state": "idle"}


def test_a_killed_process_is_dead_and_its_file_is_swept_away(tmp_path: Path) -> None:
    code = "import sys, time, pathlib; from jobs.pulse import Pulse\n"
    code += "Pulse(pathlib.Path(sys.argv[1]), 'worker').beat(1000); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert [seen.pid for seen in pulses(tmp_path)] == [process.pid]

    process.kill()
    process.communicate()

    assert pulses(tmp_path) == []
    assert list((tmp_path / "run").iterdir()) == []


def test_a_process_id_that_is_used_again_begins_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    stale = Pulse(tmp_path, "worker")
    stale.beat(1000, state="x" * 1000)
    os.close(stale._handle or 0)  # as the kernel does when the process dies
    stale._handle = None

    fresh = Pulse(tmp_path, "worker")
    fresh.beat(30, state="idle")

    (seen,) = pulses(tmp_path)
    assert seen.facts == {"state": "idle"}
    fresh.close()


def test_a_home_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run").write_text("a file where the folder belongs")

    pulse = Pulse(tmp_path, "worker")
    pulse.beat(30)
    pulse.close()

    assert caplog.text.count("health cannot be reported") == 1


def test_a_supervisor_alone_is_alive_and_not_ready(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path, "supervisor")
    pulse.beat(30, down=[])

    assert judge(tmp_path, "live").ok
    assert "has not started yet" in judge(tmp_path, "ready").says
    pulse.beat(30, down=["is given up (exit code 64: it cannot run here)"])
    assert "a worker is given up" in judge(tmp_path, "ready").says
    pulse.close()


@pytest.mark.parametrize("how", ["default", "variable", "file"])
def test_the_home_is_the_settings_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEXTMILL_HOME", raising=False)
    if how == "variable":
        monkeypatch.setenv("TEXTMILL_HOME", "~/elsewhere")
    if how == "file":
        (tmp_path / "textmill.toml").write_text('home = "in the file"')

    assert home() == load_settings().home


def test_a_probe_loads_nothing_heavy() -> None:
    code = (
        "import sys, jobs.health; print([name for name in ('pydantic', 'sqlalchemy', 'celery') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_every_exit_code_is_told_in_words() -> None:
    assert all(f"exit code {code}: " in explain(code) for code in MEANINGS)
    assert explain(-9) == "signal 9: killed, perhaps for lack of memory"
    assert (explain(3), explain(-64)) == ("exit code 3", "signal 64")
    assert (shell_code(-9), shell_code(70)) == (137, 70)

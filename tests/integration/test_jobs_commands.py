"""`textmill submit` and `watch` among processes that come and go."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.commands import Home, interrupt, poll


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


def test_a_worker_that_has_ended_serves_no_queue_any_more(home: Home) -> None:
    home.texts("t.txt", 2)
    home.run("run", "classify", "t.txt", "-o", "out.jsonl", "--model", "fake")

    submitted = home.run("submit", "classify", "t.txt", "--model", "fake")
    watching = home.start("watch", submitted.stdout.strip())
    poll(lambda: _told(watching))
    watching.kill()
    watching.communicate()

    assert "no worker serves queue 'default' now" in submitted.stderr


def test_ctrl_c_ends_a_watch_with_its_own_code_and_no_word_more(home: Home) -> None:
    home.texts("t.txt", 2)
    submitted = home.run("submit", "classify", "t.txt", "--model", "fake")
    watching = home.start("watch", submitted.stdout.strip())
    poll(lambda: _told(watching))

    _, said = interrupt(watching)

    assert (watching.returncode, said) == (130, "")
    assert _states(home) == ["queued"]


@pytest.mark.parametrize(("key", "state"), [((), "failed"), (("--key", "monday"), "loading")])
def test_a_submit_that_is_terminated_leaves_no_job_that_loads_for_ever(
    home: Home, key: tuple[str, ...], state: str
) -> None:
    home.texts("t.txt", 300_000)
    submitting = home.start("submit", "classify", "t.txt", "--model", "fake", *key)
    poll(lambda: _states(home) == ["loading"])

    submitting.send_signal(signal.SIGTERM)
    _, said = submitting.communicate(timeout=30)

    assert submitting.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert _states(home) == [state]


def _states(home: Home) -> list[str]:
    store = home.store()
    try:
        return [str(job.state) for job in store.jobs.list()]
    finally:
        store.close()


def _told(watching: "subprocess.Popen[str]") -> bool:
    assert watching.stdout is not None
    return "no worker serves queue 'default' now" in watching.stdout.readline()

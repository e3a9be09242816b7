"""What keeps a Celery worker from being a Textmill worker: row 34 of the fault list."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.thread import TaskPool as Threads

from jobs.queue import celery_app
from jobs.settings import Settings
from worker.bootsteps import unfit


@pytest.fixture
def conf(tmp_path: Any) -> Any:
    return celery_app(Settings(home=tmp_path)).conf


def test_a_worker_as_textmill_starts_it_is_fit(conf: Any) -> None:
    assert unfit(conf, Threads, 1) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"accept_content": ["json", "pickle"]}, "accept_content has pickle"),
        ({"accept_content": ["application/x-python-serialize"]}, "only json is safe"),
        ({"broker_transport_options": {"visibility_timeout": 30}}, "visibility_timeout is 30 s; at least 60 s"),
        ({"broker_transport_options": None}, "visibility_timeout is 0 s"),
    ],
)
def test_settings_that_would_lose_or_run_what_they_must_not_are_refused(
    conf: Any, changed: dict[str, Any], said: str
) -> None:
    """Row 34. Pickle accepted, too short a visibility timeout."""
    conf.update(changed)

    (problem,) = unfit(conf, Threads, 1)

    assert said in problem


def test_pools_that_cannot_run_a_shift_are_refused(conf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 34. An unfit pool, REMAP_SIGTERM set; all of it is said at once."""
    monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")

    problems = unfit(conf, Prefork, 2, autoscale="4,1")

    assert len(problems) == 3
    assert ["REMAP_SIGTERM" in problems[0], "--pool threads" in problems[1], "--concurrency 1" in problems[2]] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("flags", "variables", "said"),
    [
        (["--pool", "solo"], {}, "--pool threads"),
        (["--concurrency", "4"], {}, "--concurrency 1"),
        (["--autoscale", "4,1"], {}, "--concurrency 1"),
        ([], {"REMAP_SIGTERM": "SIGQUIT"}, "REMAP_SIGTERM"),
    ],
)
def test_an_unfit_worker_refuses_to_start_and_says_why(
    tmp_path: Path, flags: list[str], variables: dict[str, str], said: str
) -> None:
    """Row 34. With its exit code, as a process."""
    environment = {**os.environ, "TEXTMILL_HOME": str(tmp_path), **variables}
    command = [sys.executable, "-P", "-m", "celery", "-A", "worker.app", "worker", *flags]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 64
    assert said in done.stderr + done.stdout

"""`textmill up` and the commands that work with it: submit, watch, status, results, list, pause, cancel, retry."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.local import broker
from tests.integration.commands import Home, poll


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


@pytest.fixture
def up(home: Home) -> "Iterator[subprocess.Popen[str]]":
    """A running `textmill up`."""
    process = home.start("up", stderr=subprocess.DEVNULL)
    poll(lambda: home.worker() and (home.path / "machine.lock").read_text())
    yield process
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("up")
def test_jobs_are_submitted_watched_and_read_by_a_part_of_their_id(home: Home) -> None:
    home.texts("t.txt", 20)

    submitted = home.run("submit", "classify", "t.txt", "--model", "fake", "--label", "team=search", "--json")
    job = json.loads(submitted.stdout)
    watched = home.run("watch", job["id"][:20], "--json")
    results = home.run("results", job["id"], "--status", "ok")
    listed = home.run("list", "--json", "--task", "sentiment")

    assert (job["counts"]["total"], job["labels"]) == (20, {"team": "search"})
    assert watched.returncode == 0, watched.stderr
    assert json.loads(watched.stdout.splitlines()[-1])["state"] == "completed"
    assert len(results.stdout.splitlines()) == 20
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == [job["id"]]


@pytest.mark.usefixtures("up")
def test_the_id_alone_goes_to_stdout_and_the_views_are_for_people(home: Home) -> None:
    submitted = home.run("submit", "classify", home.texts("t.txt", 3), "--model", "fake")
    job = submitted.stdout.strip()
    watched = home.run("watch", job)

    assert job.startswith("job_")
    assert f"textmill watch {job}" in submitted.stderr
    assert "3/3 completed" in watched.stdout
    assert "3 of 3 done (100%)" in home.run("status", job).stdout
    assert home.run("list").stdout.splitlines()[1].startswith(job)


@pytest.mark.usefixtures("up")
def test_failed_items_are_retried_and_laid_over_the_first_results(home: Home) -> None:
    (home.folder / "in.jsonl").write_text('{"text": "good", "custom_id": "a"}\n{"text": " ", "custom_id": "b"}\n')
    first = home.run("submit", "classify", "in.jsonl", "--model", "fake").stdout.strip()
    watched = home.run("watch", first)

    second = home.run("retry", first).stdout.strip()
    home.run("watch", second)
    latest = home.run("results", first, "--latest", "-o", "all.jsonl")

    assert watched.returncode == 3
    assert json.loads(home.run("status", second, "--json").stdout)["retry_of"] == first
    assert [result["custom_id"] for result in home.results("all.jsonl")] == ["a", "b"]
    assert "2 results in all.jsonl" in latest.stderr


@pytest.mark.usefixtures("up")
def test_jobs_are_paused_resumed_and_cancelled(home: Home) -> None:
    job = home.run("submit", "classify", home.texts("t.txt", 2000), "--model", home.slow_model()).stdout.strip()

    paused = home.run("pause", job)
    resumed = home.run("resume", job)
    cancelled = home.run("cancel", job)
    again = home.run("pause", job)

    assert "paused" in paused.stdout
    assert "paused" not in resumed.stdout
    assert cancelled.stdout == f"{job} cancelled\n"
    assert (again.returncode, "cancelled" in again.stderr) == (1, True)
    assert home.run("watch", job).returncode == 1


@pytest.mark.usefixtures("up")
def test_a_run_joins_the_machine_and_leaves_it_running(home: Home) -> None:
    done = home.run("run", "classify", home.texts("t.txt", 20), "-o", "out.jsonl", "--model", home.slow_model())

    assert done.returncode == 0, done.stderr
    assert "`textmill up`" in done.stderr
    assert len(home.results("out.jsonl")) == 20
    assert home.worker() is not None


@pytest.mark.usefixtures("up")
def test_ctrl_c_of_a_joined_run_says_that_the_job_goes_on(home: Home) -> None:
    running = home.start("run", "classify", home.texts("t.txt", 500), "-o", "o.jsonl", "--model", home.slow_model())
    poll(lambda: home.done() > 0)

    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)

    assert running.returncode == 130
    assert "works on meanwhile; to end the job: textmill cancel job_" in said


@pytest.mark.usefixtures("up")
def test_a_second_up_in_the_same_home_is_refused(home: Home) -> None:
    second = home.run("up")

    assert second.returncode == 1
    assert "`textmill up` (process" in second.stderr
    assert "already works in" in second.stderr
    assert "Traceback" not in second.stderr


def test_up_says_what_runs_and_ends_well_at_ctrl_c(home: Home) -> None:
    process = home.start("up")
    poll(home.worker)
    poll(lambda: home.run("list").returncode == 0)

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)

    assert process.returncode == 0
    for word in ("textmill is up", str(home.path), "textmill.db", "(embedded)", "textmill submit", "stopped"):
        assert word in said
    assert json.loads((home.path / "broker.json").read_text())["password"] not in said
    assert not home.processes()


def test_an_orphaned_broker_is_adopted(home: Home) -> None:
    orphan = broker.start(home.path)

    process = home.start("up", stderr=subprocess.DEVNULL)
    poll(home.worker)

    assert broker.find(home.path) == orphan.url
    assert json.loads((home.path / "broker.json").read_text())["pid"] == orphan.pid
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert not orphan.answers()


def test_a_killed_up_leaves_no_worker_and_its_home_can_be_taken_at_once(home: Home) -> None:
    first = home.start("up", stderr=subprocess.DEVNULL)
    poll(home.worker)
    worker = home.worker()
    assert worker is not None

    first.kill()
    first.communicate()
    second = home.start("up", stderr=subprocess.DEVNULL)

    poll(lambda: not worker.is_running())
    poll(home.worker)
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=30)
    assert second.returncode == 0


def test_a_taken_port_is_named(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        refused = home.run("up", "--port", str(port))

    assert refused.returncode == 1
    assert f"port {port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_worker_that_cannot_start_ends_up_with_its_last_words(home: Home) -> None:
    package = home.folder / "broken" / "worker"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("raise SystemExit('torch is missing, say')")
    home.env["PYTHONPATH"] = str(package.parent)

    refused = home.run("up")

    assert refused.returncode == 1
    assert "the worker does not start" in refused.stderr
    assert "torch is missing, say" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_job_submitted_while_nobody_works_says_how_to_get_it_done(home: Home) -> None:
    submitted = home.run("submit", "classify", home.texts("t.txt", 3), "--model", "fake")

    assert submitted.returncode == 0, submitted.stderr
    assert "textmill up" in submitted.stderr
    assert os.linesep.join(submitted.stderr.splitlines()).count("textmill:") == 2

"""Sinks of jobs: written by upkeep once the job has completed, again until it works, once in effect."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import exporting
from jobs.client import Client
from jobs.errors import InvalidInput, InvalidState, OutputError
from jobs.exporting import Exporter
from jobs.schemas import Job
from jobs.settings import Settings
from jobs.states import ExportState, JobState
from jobs.store import Store
from tests.rows import rows, run_dry

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def client(store: Store, settings: Callable[..., Settings]) -> Iterator[Client]:
    with Client(settings(redis_url=NOWHERE), store=store) as made:
        yield made


@pytest.fixture
def exporter(store: Store, settings: Callable[..., Settings]) -> Iterator[Exporter]:
    made = Exporter(store, settings())
    yield made
    made.stop(10)


def completed(client: Client, store: Store, sink: str, n_items: int = 3, **given: Any) -> Job:
    job = client.submit("classify", [str(number) for number in range(n_items)], model="fake", sink=sink, **given).job
    run_dry(store)
    return job


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def worked(exporter: Exporter, store: Store, job: Job) -> Any:
    """What became of the job's export after a try."""
    assert exporter.round() >= 1
    until(lambda: not exporter._threads)
    return store.exports.get(job.id)


def test_results_are_written_once_the_job_has_completed(
    client: Client, store: Store, exporter: Exporter, tmp_path: Path
) -> None:
    job = client.submit("classify", ["a", "b"], model="fake", sink=str(tmp_path / "{job}-{date}.jsonl")).job
    assert exporter.round() == 0
    assert store.exports.get(job.id).state is ExportState.WAITING  # type: ignore[union-attr]
    run_dry(store)

    found = worked(exporter, store, job)

    [written] = tmp_path.glob("job_*.jsonl")
    day = store.jobs.get(job.id).finished_at
    assert written.name == f"{job.id}-{day:%Y-%m-%d}.jsonl"
    assert [json.loads(line)["custom_id"] for line in written.read_text().splitlines()] == ["0", "1"]
    assert (found.state, found.n_results, found.error, found.attempts) == (ExportState.DONE, 2, None, 1)
    assert exporter.round() == 0


def test_what_did_not_complete_is_no_output(client: Client, store: Store, exporter: Exporter, tmp_path: Path) -> None:
    job = client.submit("classify", ["a"], model="fake", sink=str(tmp_path / "out.jsonl")).job
    client.cancel(job.id)

    found = store.exports.get(job.id)

    assert found is not None
    assert (found.state, found.error) == (ExportState.FAILED, "the job is cancelled")
    assert exporter.round() == 0
    assert list(tmp_path.glob("out*")) == []


def test_a_sink_that_fails_is_tried_again_and_given_up_in_the_end(
    client: Client, store: Store, exporter: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "later"
    job = completed(client, store, str(folder / "out.jsonl"))

    first = worked(exporter, store, job)
    assert (first.state, first.attempts) == (ExportState.DUE, 1)
    assert "No such file or directory" in first.error
    assert first.due_at > store.jobs.get(job.id).finished_at
    assert exporter.round() == 0

    monkeypatch.setattr(exporting, "AGAIN_S", ())
    rows(store, "SELECT 1")
    store.exports.again(job.id)
    given_up = worked(exporter, store, job)
    assert (given_up.state, given_up.due_at) == (ExportState.FAILED, None)

    folder.mkdir()
    store.exports.again(job.id)
    assert worked(exporter, store, job).state is ExportState.DONE
    assert len((folder / "out.jsonl").read_text().splitlines()) == 3


def test_a_table_gets_each_row_once_however_often_it_is_delivered(
    client: Client, store: Store, exporter: Exporter, tmp_path: Path
) -> None:
    import sqlite3

    job = completed(client, store, f"sqlite:///{tmp_path}/out.db#labelled", 2500)
    for _ in range(2):
        assert worked(exporter, store, job).n_results == 2500
        store.exports.again(job.id)

    with sqlite3.connect(tmp_path / "out.db") as opened:
        assert opened.execute("SELECT count(*), count(DISTINCT custom_id) FROM labelled").fetchone() == (2500, 2500)


def test_an_export_whose_writer_died_is_begun_again(
    client: Client, store: Store, exporter: Exporter, tmp_path: Path
) -> None:
    job = completed(client, store, str(tmp_path / "out.jsonl"))
    dead = store.exports.take(0.2)
    assert dead is not None

    until(lambda: exporter.round() == 1)
    until(lambda: not exporter._threads)

    assert store.exports.hold(dead, 60) is False
    store.exports.done(dead, 99)
    store.exports.failed(dead, "late", again_s=None)
    found = store.exports.get(job.id)
    assert found is not None
    assert (found.state, found.n_results, found.attempts) == (ExportState.DONE, 3, 2)


@pytest.mark.servers
def test_a_process_killed_while_it_writes_leaves_no_part_under_the_name(
    client: Client, store: Store, exporter: Exporter, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "HOLD_S", 1.0)
    job = completed(client, store, str(tmp_path / "out.jsonl"), 20_000)
    program = (
        "import sys, time; from jobs import exporting; from jobs.settings import Settings;"
        "from jobs.store import Store;"
        "exporting.HOLD_S = 1.0; store = Store.open(sys.argv[1]); exporting.result_line = slow = "
        "lambda row, real=exporting.result_line: (time.sleep(0.001), real(row))[1];"
        "exporter = exporting.Exporter(store, Settings()); exporter.round(); print('begun', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, store_url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "begun\n"
    until(lambda: list(tmp_path.glob(".out.jsonl.*.part")))

    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert not (tmp_path / "out.jsonl").exists()
    until(lambda: exporter.round() == 1)
    until(lambda: not exporter._threads)

    assert store.exports.get(job.id).state is ExportState.DONE  # type: ignore[union-attr]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20_000
    assert list(tmp_path.glob(".out.jsonl.*")) == []


def test_retries_are_laid_over_when_it_is_delivered_again(
    client: Client, store: Store, exporter: Exporter, tmp_path: Path
) -> None:
    job = client.submit("classify", ["a", "b"], model="fake", sink=str(tmp_path / "out.jsonl")).job
    assert worked_off(store) == 1
    worked(exporter, store, job)
    before = (tmp_path / "out.jsonl").read_text()

    client.retry(job.id)
    run_dry(store)
    store.exports.again(job.id)
    worked(exporter, store, job)

    statuses = [json.loads(line)["status"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert '"error"' in before
    assert statuses == ["ok", "ok"]


def worked_off(store: Store) -> int:
    """All items but the first are ok; how many failed."""
    from jobs.store.values import Save
    from tests.rows import claim, failed, ok

    [held] = claim(store)
    store.chunks.save([Save(held.chunk_id, held.token, [failed(0), ok(1)], done=True)])
    for job_id in store.jobs.finishable():
        store.jobs.finish(job_id)
    return 1


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        ("-", "standard output is none"),
        ("out.docx", "unknown format .docx"),
        ("postgresql://me:hunter2@host/shop#out", "no password may stand in it"),
        ("https://host/out.jsonl", "web servers take no results"),
        ("sqlite:///x.db#no table", "is no name of a table"),
    ],
)
def test_what_can_be_no_sink_is_refused_at_submit(client: Client, store: Store, sink: str, said: str) -> None:
    with pytest.raises((InvalidInput, OutputError), match=said) as refused:
        client.submit("classify", ["a"], model="fake", sink=sink)

    assert "hunter2" not in str(refused.value)
    assert client.list() == []


def test_a_relative_path_is_that_of_whoever_submits(
    client: Client, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    for given, kept in (("out.csv", f"{tmp_path}/out.csv"), ("sqlite:///out.db#t", f"sqlite:///{tmp_path}/out.db#t")):
        job = client.submit("classify", ["a"], model="fake", sink=given).job

        assert store.exports.get(job.id).target == kept  # type: ignore[union-attr]


def test_the_same_key_is_the_same_job_wherever_its_results_go(client: Client, store: Store, tmp_path: Path) -> None:
    given = {"model": "fake", "idempotency_key": "k"}
    first = client.submit("classify", ["a"], sink=str(tmp_path / "a.jsonl"), **given)  # type: ignore[arg-type]

    again = client.submit("classify", ["a"], sink=str(tmp_path / "b.jsonl"), **given)  # type: ignore[arg-type]

    assert again.id == first.id
    assert store.exports.get(first.id).target.endswith("a.jsonl")  # type: ignore[union-attr]


def test_without_a_sink_there_is_nothing_to_deliver(client: Client, store: Store) -> None:
    job = client.submit("classify", ["a"], model="fake").job

    with pytest.raises(InvalidState, match="has no sink"):
        store.exports.again(job.id)
    assert store.exports.get(job.id) is None


def test_a_deleted_jobs_export_goes_with_it(client: Client, store: Store, tmp_path: Path) -> None:
    job = completed(client, store, str(tmp_path / "out.jsonl"))
    assert store.jobs.get(job.id).state is JobState.COMPLETED
    store.jobs.delete(job.id)

    while store.retention.sweep():
        pass

    assert rows(store, "SELECT count(*) FROM exports")[0][0] == 0

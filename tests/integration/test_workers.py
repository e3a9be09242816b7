"""Real worker processes on real servers: the ordinary ways, and what operators do to them."""

import json
import socket
import subprocess
import sys
import urllib.request
from datetime import datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.states import JobState
from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import Deploy
from worker.app import build

pytestmark = pytest.mark.servers


def test_a_hint_starts_a_shift_and_the_job_is_done(deploy: Deploy) -> None:
    mill = deploy(idle_claim_s=3600)
    mill.start()

    job_id = submit(mill.store, 2000)
    mill.hint()

    mill.final(job_id)
    check(mill.store, job_id)


def test_two_workers_share_one_job(deploy: Deploy) -> None:
    mill = deploy(lookahead_items=64)
    slow = model(mill.store, delay_s=0.05, max_items=16)
    mill.start()
    mill.start()

    job_id = submit(mill.store, 800, per_chunk=32, model=slow)
    mill.hint(4)
    mill.final(job_id)

    check(mill.store, job_id)
    assert len(set(column(mill.store, "SELECT worker_id FROM chunks"))) == 2


def test_cancel_and_pause_reach_a_running_worker(deploy: Deploy) -> None:
    mill = deploy(lookahead_items=64)
    slow = model(mill.store, delay_s=0.05, max_items=4)
    mill.start()
    doomed, paused = (submit(mill.store, 600, per_chunk=32, model=slow) for _ in range(2))
    mill.hint(2)
    for job_id in (doomed, paused):
        mill.until(lambda job_id=job_id: mill.store.jobs.get(job_id).counts.ok > 0, what="a first result")

    mill.store.jobs.cancel(doomed)
    mill.store.jobs.pause(paused)
    mill.until(lambda: not column(mill.store, "SELECT id FROM chunks WHERE state = 'running'"), what="all to stop")

    counts = mill.store.jobs.get(paused).counts
    assert 0 < counts.ok < 600
    assert mill.store.jobs.get(doomed).state is JobState.CANCELLED
    mill.store.jobs.resume(paused)
    mill.final(paused, 60)
    check(mill.store, paused)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_worker_serves_its_metrics_and_logs_json_with_ids(deploy: Deploy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    mill = deploy(metrics_address=address, log_format="json")
    worker = mill.start()
    doomed = submit(mill.store, 10, model=model(mill.store, "broken", load_error="no such weights"))
    job_id = submit(mill.store, 10)
    mill.hint(2)
    mill.final(job_id)
    mill.final(doomed)

    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        families = [*text_string_to_metric_families(answer.read().decode())]
    found = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    assert found["textmill_items_total", "fake", "ok", "classify"] == 10
    assert found["textmill_job_seconds_count", "classify"] == 1
    assert found["textmill_model_loads_total", "fake", "loaded"] == 1
    assert found["textmill_lease_losses_total", "late"] == 0
    assert found["textmill_device_batches_total",] > 0
    assert found["textmill_device_tokens_total",] > 0
    assert found["textmill_shift_seconds_total",] >= found["textmill_device_busy_seconds_total",] > 0
    assert found["textmill_device_memory_bytes", "total"] > 2**20
    lines = [json.loads(line) for line in worker.said().splitlines() if line.startswith("{")]
    (failed,) = [line for line in lines if line.get("job") == doomed]
    assert failed["level"] == "error"
    assert failed["message"].startswith(f"{doomed} fails: ")
    assert {line["logger"].partition(".")[0] for line in lines} >= {"textmill", "celery"}
    assert datetime.fromisoformat(failed["time"]).tzinfo is not None


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_metrics_port_that_is_taken_keeps_nobody_from_working(deploy: Deploy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mill = deploy(metrics_address=f"127.0.0.1:{taken.getsockname()[1]}")
        worker = mill.start()
        job_id = submit(mill.store, 10)
        mill.hint()
        mill.final(job_id)
        assert "no metrics at 127.0.0.1:" in worker.said()


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_celery_inspect_sees_the_worker(deploy: Deploy) -> None:
    mill = deploy()
    worker = mill.start()
    job_id = submit(mill.store, 10)
    mill.hint()
    mill.final(job_id)
    mill.until(lambda: "ready" in worker.said(), what="the consumer")

    app = build(mill.settings)
    inspect = app.control.inspect(timeout=5)
    pongs, active = inspect.ping(), inspect.active()
    (stats,) = inspect.stats().values()
    (own,) = inspect._request("textmill").values()

    assert [*pongs.values()] == [{"ok": "pong"}]
    assert [*active.values()] == [[]]
    assert stats["pool"]["max-concurrency"] == 1
    assert own["totals"]["items"] == 10


def test_a_plain_celery_command_works_as_celery_users_expect(deploy: Deploy, tmp_path: Path) -> None:
    mill = deploy(idle_claim_s=3600)
    log = tmp_path / "celery.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "celery", "-A", "worker.app", "worker", "-l", "info"],
            env=mill._environment(),
            stdout=file,
            stderr=file,
        )
    try:
        mill.until(lambda: mill.store.workers.live(60), what=f"the worker: {log.read_text()}")
        job_id = submit(mill.store, 100)
        mill.hint()
        mill.final(job_id)
    finally:
        process.terminate()
        code = process.wait(20)

    check(mill.store, job_id)
    assert code == 0

"""`/metrics`: what Prometheus reads of a deployment and of the server."""

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.api import metrics
from jobs.store import Store
from tests.api.conftest import Api, Connect, Serve


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "KEPT_S", 0.0)


def read(api: Api) -> dict[tuple[str, ...], float]:
    """The samples by name and label values."""
    answer = api.get(f"{str(api.base_url).removesuffix('/api/v1/')}/metrics")
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_backlog_and_the_jobs_are_told(api: Api, work: Callable[[], None]) -> None:
    api.job([f"text {n}" for n in range(300)])
    api.job(["a"], queue="slow")
    before = read(api)
    work()
    after = read(api)

    assert before["textmill_jobs", "queued"] == 2
    assert before["textmill_queue_items", "default"] == 300
    assert before["textmill_queue_chunks", "default"] == 2
    assert before["textmill_queue_items", "slow"] == 1
    assert 0 <= before["textmill_queue_oldest_seconds", "slow"] < 60
    assert after["textmill_jobs", "completed"] == 1
    assert ("textmill_queue_items", "default") not in after


def test_workers_are_told_with_what_they_do(api: Api, store: Store) -> None:
    for name, load in (("w1", {"busy": 0.9, "tokens_per_s": 123.0}), ("w2", None)):
        store.workers.beat(
            name, host="h", pid=1, boot_id="b", device="cpu", models=(), state="working", queues=("default",), load=load
        )

    found = read(api)

    assert found["textmill_workers", "working"] == 2
    assert found["textmill_worker_busy_ratio", "cpu", "w1"] == 0.9
    assert found["textmill_worker_tokens_per_second", "cpu", "w1"] == 123
    assert ("textmill_worker_busy_ratio", "cpu", "w2") not in found


def test_requests_are_counted_by_route_and_never_by_path(api: Api) -> None:
    job_id = api.job(["a"])["id"]
    for _ in range(3):
        api.get(f"/jobs/{job_id}")
    api.get("/nothing")

    found = read(api)

    assert found["textmill_api_requests_total", "GET", "/api/v1/jobs/{job_id}", "200"] == 3
    assert found["textmill_api_requests_total", "POST", "/api/v1/jobs", "201"] == 1
    assert found["textmill_api_request_seconds_count", "/api/v1/jobs/{job_id}"] == 3
    assert not [labels for labels in found if job_id in " ".join(labels)]


def test_methods_that_callers_make_up_are_one(api: Api) -> None:
    for number in range(3):
        api.request(f"ODD{number}", "/jobs")

    found = read(api)

    assert found["textmill_api_requests_total", "(other)", "/api/v1/jobs", "405"] == 3


def test_only_admins_see_all_tenants(serve: Serve, store: Store, connect: Connect) -> None:
    server = serve()
    (_, submit), (_, admin) = (store.keys.create("default", "test", [scope]) for scope in ("submit", "admin"))

    answers = [connect(server, key).get(f"{server.url}/metrics").status_code for key in (submit, admin, None)]

    assert answers == [403, 200, 401]

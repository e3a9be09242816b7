"""Webhooks over the native API: made, listed, tried, sent again, and seen by their tenant alone."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs.store import Store
from tests.api.conftest import Api, Connect, Serve

LOCAL = {"webhook_networks": ("127.0.0.0/8",)}


@pytest.fixture
def admin(serve: Serve, connect: Connect) -> Api:
    return connect(serve(**LOCAL))


def _made(api: Api, **wanted: Any) -> Any:
    answer = api.post("/webhooks", json={"url": "http://127.0.0.1:9/hook", **wanted})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_webhook_is_made_and_its_secret_is_shown_once(admin: Api) -> None:
    made = _made(admin)
    assert made["secret"].startswith("whsec_")
    assert made["events"] == [
        *("job.completed", "job.failed", "job.expired", "job.cancelled"),
        *("batch.completed", "batch.failed", "batch.expired", "batch.cancelled"),
        "schedule.run_failed",
    ]
    (listed,) = admin.get("/webhooks").json()
    assert listed == {name: value for name, value in made.items() if name != "secret"}
    assert admin.get(f"/webhooks/{made['id']}").json() == listed
    assert admin.delete(f"/webhooks/{made['id']}").status_code == 204
    assert admin.get(f"/webhooks/{made['id']}").json()["code"] == "unknown_webhook"


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"url": "https://10.0.0.1/"}, "webhook_networks"),
        ({"url": "gopher://example.com/"}, "https://"),
        ({"url": "https://example.com/", "events": ["job.started"]}, "job.completed"),
    ],
)
def test_a_wrong_one_is_refused_and_told_what_is_allowed(admin: Api, wanted: Any, why: str) -> None:
    answer = admin.post("/webhooks", json=wanted)
    assert answer.status_code == 422
    assert why in answer.json()["detail"]


def test_a_job_tells_the_webhook_it_names(admin: Api, work: Callable[[], None]) -> None:
    hook = _made(admin, events=[])
    admin.job(["a"], params={"labels": ["x", "y"]})
    named = admin.job(["a"], params={"labels": ["x", "y"]}, webhook=hook["id"])
    assert named["webhook"] == hook["id"]
    work()
    page = admin.get(f"/webhooks/{hook['id']}/deliveries").json()
    assert [(each["event"], each["subject"], each["state"]) for each in page["data"]] == [
        ("job.completed", named["id"], "pending")
    ]
    wrong = admin.post("/jobs", json={"task": "classify", "model": "fake", "items": ["a"], "webhook": "wh_none"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_params")


def test_an_answer_at_once_tells_nobody(admin: Api, store: Store, work: Callable[[], None]) -> None:
    from threading import Thread

    hook = _made(admin)
    body = {"model": "fake", "input": "a", "parameters": {"labels": ["x", "y"]}}
    url = str(admin.base_url).replace("/api/v1", "/v1/nlp/classify")
    asking = Thread(target=lambda: admin.post(url, json=body))
    asking.start()
    while asking.is_alive():
        work()
    assert admin.get(f"/webhooks/{hook['id']}/deliveries").json()["data"] == []


def test_deliveries_are_paged_and_sent_again(admin: Api) -> None:
    hook = _made(admin)
    sent = [admin.post(f"/webhooks/{hook['id']}/test").json()["id"] for _ in range(3)]
    first = admin.get(f"/webhooks/{hook['id']}/deliveries", params={"limit": 2}).json()
    second = admin.get(f"/webhooks/{hook['id']}/deliveries", params={"limit": 2, "before": first["next"]}).json()
    assert [each["id"] for each in first["data"] + second["data"]] == sent[::-1]
    assert second["next"] is None
    again = admin.post(f"/webhooks/{hook['id']}/deliveries/{sent[0]}/redeliver").json()
    assert (again["id"], again["state"], again["attempts"]) == (sent[0], "pending", 0)
    assert admin.post(f"/webhooks/{hook['id']}/deliveries/msg_none/redeliver").status_code == 404
    assert admin.get(f"/webhooks/{hook['id']}/deliveries", params={"state": "failed"}).json()["data"] == []


def test_it_is_disabled_and_enabled_by_hand(admin: Api) -> None:
    hook = _made(admin)
    assert admin.post(f"/webhooks/{hook['id']}/disable").json()["disabled_because"] == "by hand"
    assert admin.post(f"/webhooks/{hook['id']}/enable").json()["disabled_at"] is None


def test_webhooks_are_for_admins_of_their_tenant(serve: Serve, store: Store, connect: Connect) -> None:
    server = serve(**LOCAL)
    mine, theirs, submitter = (
        connect(server, store.keys.create(tenant, "test", [scope])[1])
        for tenant, scope in (("mine", "admin"), ("theirs", "admin"), ("mine", "submit"))
    )
    hook = _made(mine)["id"]
    delivery = mine.post(f"/webhooks/{hook}/test").json()["id"]
    assert theirs.get("/webhooks").json() == []
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/enable"),
        ("POST", "/disable"),
        ("POST", "/test"),
        ("GET", "/deliveries"),
        ("POST", f"/deliveries/{delivery}/redeliver"),
    ):
        assert theirs.request(method, f"/webhooks/{hook}{path}").status_code == 404
        assert submitter.request(method, f"/webhooks/{hook}{path}").status_code == 403
    assert mine.get(f"/webhooks/{hook}").status_code == 200

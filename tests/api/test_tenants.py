"""What a tenant may do, over HTTP: quotas, rate limits, models, in the native and in OpenAI's language."""

from collections.abc import Callable
from io import BytesIO
from itertools import takewhile
from typing import Any

import openai
import orjson
import pytest
from openai import OpenAI

from jobs.api import limits
from jobs.api.limits import RateLimits
from jobs.api.problems import HttpProblem
from jobs.client import Client
from jobs.errors import QuotaExceeded
from jobs.remote import calls
from jobs.schemas import Tenant
from jobs.store import Store
from tests.api.conftest import Api, Connect, Serve

LABELS = {"labels": ["x", "y"]}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are looked up each time."""
    monkeypatch.setattr(limits, "TRUST_S", -1.0)


def test_a_full_line_is_a_429_that_says_when_to_come_back(
    api: Api, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.tenants.put(Tenant(name="default", max_items=3))
    api.job(["a", "b"], params=LABELS)
    refused = api.post("/jobs", json={"task": "classify", "model": "fake", "items": ["a", "b"], "params": LABELS})
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
        429,
        "quota_exceeded",
        "30",
    )
    assert refused.json()["detail"].startswith("tenant 'default' may have 3 items in line; it has 2")
    body = b"a\nb\n"
    uploaded = api.post(
        "/jobs/upload",
        params={"task": "classify", "model": "fake", "params": orjson.dumps(LABELS).decode()},
        content=body,
        headers={"Content-Type": "text/plain"},
    )
    assert uploaded.status_code == 429
    assert api.get("/tenant").json()["used"] == {
        "items": 2,
        "tokens": 2 * api.get("/tenant").json()["used"]["tokens"] // 2,
    }
    monkeypatch.setattr(calls, "pause_s", lambda attempt, told: 0.0)
    with Client(str(api.base_url).removesuffix("/api/v1/")) as remote, pytest.raises(QuotaExceeded, match="3 items"):
        remote.submit("classify", ["a", "b"], model="fake", params=LABELS)


def test_a_batch_that_is_too_much_fails_with_openais_code(api: Api, store: Store) -> None:
    store.tenants.put(Tenant(name="default", max_items=1))
    sdk = OpenAI(base_url=str(api.base_url).replace("/api/v1/", "/v1"), api_key="none")
    body = {"model": "fake", "input": "a"}
    lines = [{"custom_id": str(at), "method": "POST", "url": "/v1/embeddings", "body": body} for at in range(2)]
    file = sdk.files.create(file=("b.jsonl", BytesIO(b"\n".join(map(orjson.dumps, lines)))), purpose="batch")
    batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    while batch.status == "validating":
        batch = sdk.batches.retrieve(batch.id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [error.code for error in batch.errors.data or []] == ["token_limit_exceeded"]


def test_requests_are_limited_by_tenant(serve: Serve, store: Store, connect: Connect) -> None:
    server = serve(requests_per_minute=12)
    a, b = (connect(server, store.keys.create(tenant, "test", ["read"])[1]) for tenant in "ab")
    store.tenants.put(Tenant(name="b", requests_per_minute=6000))
    answers = [a.get("/jobs") for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 429, 429]
    assert answers[-1].json()["code"] == "too_many_requests"
    assert answers[-1].json()["detail"] == "tenant 'a' may send 12 requests a minute"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 5
    assert {b.get("/jobs").status_code for _ in range(20)} == {200}
    sdk = OpenAI(base_url=f"{server.url}/v1", api_key=a.headers["authorization"].split()[1], max_retries=0)
    with pytest.raises(openai.RateLimitError, match="12 requests a minute"):
        sdk.models.list()


def _wait(counted: RateLimits) -> str | None:
    try:
        counted.count("a")
    except HttpProblem as problem:
        return (problem.headers or {})["Retry-After"]
    return None


def test_a_bucket_fills_as_time_goes_by() -> None:
    now = [0.0]
    counted = RateLimits(lambda name: Tenant(name=name), 60, clock=lambda: now[0])

    def passed() -> int:
        waits = [*takewhile(lambda wait: wait is None, (_wait(counted) for _ in range(1000)))]
        assert _wait(counted) == "1"
        return len(waits)

    found = [passed()]
    for seconds in (3.0, 0.5, 0.5, 3600.0):
        now[0] += seconds
        found.append(passed())
    assert found == [10, 3, 0, 1, 10]


def test_without_a_limit_nothing_is_counted() -> None:
    counted = RateLimits(lambda name: Tenant(name=name), None)
    for _ in range(1000):
        counted.count("a")


def test_models_that_a_tenant_may_not_use_are_not_there(
    serve: Serve, store: Store, connect: Connect, work: Callable[[], None]
) -> None:
    server = serve()
    secret = store.keys.create("a", "test", ["submit"])[1]
    store.tenants.put(Tenant(name="a", models=("langid",)))
    mine = connect(server, secret)
    assert [model["name"] for model in mine.get("/models").json()] == ["langid"]
    assert mine.get("/models/fake").status_code == 404
    refused = mine.post("/jobs", json={"task": "classify", "model": "fake", "items": ["a"], "params": LABELS})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")
    sdk = OpenAI(base_url=f"{server.url}/v1", api_key=secret)
    assert [model.id for model in sdk.models.list()] == ["langid"]
    with pytest.raises(openai.NotFoundError):
        sdk.embeddings.create(model="fake", input="a")
    line: dict[str, Any] = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings"}
    content = orjson.dumps({**line, "body": {"model": "fake", "input": "a"}})
    file = sdk.files.create(file=("b.jsonl", BytesIO(content)), purpose="batch")
    batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    while batch.status == "validating":
        batch = sdk.batches.retrieve(batch.id)
    assert batch.errors is not None
    assert [error.code for error in batch.errors.data or []] == ["model_not_found"]

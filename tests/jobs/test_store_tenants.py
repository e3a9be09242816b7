"""Tenants: quotas that two submits at once cannot pass together, weights, and the models each may use."""

import threading
from collections.abc import Callable

import pytest

from jobs import intake
from jobs.client import Client
from jobs.errors import QuotaExceeded, UnknownModel
from jobs.handle import JobHandle
from jobs.queue import Queue
from jobs.schemas import Tenant, Used
from jobs.settings import Settings
from jobs.store import Store
from tests.rows import block, claim, done, loading_job, queued_job, spec


@pytest.fixture
def client(store: Store, settings: Callable[..., Settings]) -> Client:
    made = settings(redis_url="redis://127.0.0.1:1/0")
    return Client(made, store=store, queue=Queue(made))


def test_a_tenant_that_nobody_named_has_no_limits(store: Store) -> None:
    assert store.tenants.get("search") == Tenant(name="search")
    assert store.tenants.list() == []
    assert not store.tenants.remove("search")


def test_what_is_set_is_there_until_it_is_removed(store: Store) -> None:
    first = Tenant(name="a", weight=2.5, max_items=10, models=("mini*", "fake"))
    second = Tenant(name="a", max_tokens=5, requests_per_minute=60)
    store.tenants.put(first)
    assert store.tenants.get("a") == first
    store.tenants.put(second)
    assert store.tenants.list() == [second]
    assert store.tenants.remove("a")
    assert store.tenants.get("a") == Tenant(name="a")


def test_items_in_line_are_counted_until_they_have_a_result(store: Store) -> None:
    store.tenants.put(Tenant(name="a", max_items=30))
    queued_job(store, 20, tenant="a")
    with pytest.raises(
        QuotaExceeded, match="tenant 'a' may have 30 items in line; it has 20, and these would be 11 more"
    ):
        queued_job(store, 11, tenant="a")
    queued_job(store, 11, tenant="b")
    store.chunks.save([done(held) for held in claim(store, chunks=1)])
    assert store.tenants.used("a") == Used(items=15, tokens=150)
    queued_job(store, 11, tenant="a")
    assert store.tenants.used("a").items == 26


def test_tokens_are_counted_too_and_paused_or_half_loaded_jobs_as_well(store: Store) -> None:
    store.tenants.put(Tenant(name="a", max_tokens=500))
    store.jobs.pause(queued_job(store, 20, tenant="a").id)
    half = loading_job(store, tenant="a")
    store.jobs.append(half.id, [block(0, 20)])
    with pytest.raises(QuotaExceeded, match=r"500 estimated tokens in line; it has 400, and these would be 200 more"):
        store.jobs.append(half.id, [block(20, 20)])
    store.jobs.append(half.id, [block(20, 10)])
    store.jobs.cancel(half.id)
    assert store.tenants.used("a") == Used(items=20, tokens=200)


def test_a_job_that_is_refused_is_not_there(store: Store) -> None:
    store.tenants.put(Tenant(name="a", max_items=5))
    with pytest.raises(QuotaExceeded):
        store.jobs.create(spec(tenant="a"), request_hash=b"1", whole=[block(0, 6)])
    assert store.jobs.list(tenant="a") == []


def test_a_long_input_that_a_quota_stops_in_the_middle_may_be_sent_again(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "APPEND_BLOCKS", 1)
    store.tenants.put(Tenant(name="a", max_items=5000))
    texts = [str(number) for number in range(10_000)]

    def submit() -> JobHandle:
        return client.submit("embed", texts, model="fake", tenant="a", idempotency_key="k")

    for _ in range(2):
        with pytest.raises(QuotaExceeded):
            submit()
    assert store.jobs.list(tenant="a") == []
    store.tenants.remove("a")
    assert submit().refresh().counts.total == 10_000


def test_submits_at_once_do_not_pass_a_quota_together(store: Store) -> None:
    store.tenants.put(Tenant(name="a", max_items=30))
    refused: list[QuotaExceeded] = []

    def submit() -> None:
        try:
            store.jobs.create(spec(tenant="a"), request_hash=b"1", whole=[block(0, 10)])
        except QuotaExceeded as error:
            refused.append(error)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.tenants.used("a").items == 30
    assert len(refused) == 5


def test_work_is_shared_by_weight_between_tenants(store: Store) -> None:
    store.tenants.put(Tenant(name="heavy", weight=3))
    queued_job(store, 5, tenant="other", queue="q")  # so that nobody is alone
    for tenant in ("light", "heavy"):
        queued_job(store, 200, tenant=tenant, queue="q")
    taken = [held.tenant for held in claim(store, chunks=41, queue="q")][1:]
    assert taken.count("heavy") == 30
    assert taken.count("light") == 10


def test_a_tenant_uses_and_sees_its_models_alone(store: Store, client: Client) -> None:
    store.tenants.put(Tenant(name="a", models=("lang*",)))
    assert [model.name for model in client.registry_of("a").list()] == ["langid"]
    with pytest.raises(UnknownModel, match=r"unknown model 'fake'; registered models: langid$"):
        client.submit("classify", ["x"], model="fake", params={"labels": ["a", "b"]}, tenant="a")
    job = client.submit("detect_language", ["x"], tenant="a")
    assert job.refresh().model == "langid"
    client.submit("classify", ["x"], model="fake", params={"labels": ["a", "b"]}, tenant="b")

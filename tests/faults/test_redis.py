"""A Redis that stops, fills up, forgets, or lies behind a bad network: rows 16 to 19 of the fault list."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from jobs import Client
from jobs.settings import Settings
from tests.checker import check
from tests.corpora import model, submit
from tests.deployment import Deploy, Deployment, Worker
from tests.proxy import Proxy
from tests.servers import Valkey

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)]

SUBMIT_S = 5.0
CONSUMING_S = 45.0
STORM = 12
"""Most connections that one worker may make for each reset of all of them."""


@pytest.fixture
def own_valkey(request: pytest.FixtureRequest) -> Iterator[Valkey]:
    """A Valkey of the test's own; a parameter is its options."""
    with Valkey(**getattr(request, "param", {})) as server:
        yield server.start()


@pytest.mark.parametrize("stopped_s", [5, pytest.param(60, marks=pytest.mark.thorough)])
def test_a_stopped_redis_delays_no_submit_and_no_work(deploy: Deploy, own_valkey: Valkey, stopped_s: float) -> None:
    """Row 16."""
    mill = deploy(redis_url=own_valkey.url)
    worker = _ready(mill)
    own_valkey.pause()
    stopped_at = time.monotonic()

    early = _submit(mill.settings)
    mill.final(early)
    while time.monotonic() < stopped_at + stopped_s:
        time.sleep(0.1)
    late = _submit(mill.settings)
    mill.final(late)
    own_valkey.resume()

    for job_id in (early, late):
        check(mill.store, job_id)
    assert worker.alive
    assert worker.stop(40) == 0


@pytest.mark.parametrize(
    "own_valkey", [{"maxmemory": "6mb", "maxmemory-policy": "noeviction"}], indirect=True, ids=["noeviction"]
)
def test_a_full_redis_refuses_hints_and_nothing_else_stops(deploy: Deploy, own_valkey: Valkey) -> None:
    """Row 17."""
    mill = deploy(redis_url=own_valkey.url)
    worker = _ready(mill)
    with redis.Redis.from_url(own_valkey.url) as client, pytest.raises(redis.exceptions.OutOfMemoryError):
        _fill(client)

    job_id = _submit(mill.settings)
    mill.final(job_id)

    check(mill.store, job_id)
    assert worker.alive
    with redis.Redis.from_url(own_valkey.url) as client:
        client.delete("somebody else's")
    after = submit(mill.store, 20)
    mill.hint()
    mill.final(after)
    check(mill.store, after)


@pytest.mark.parametrize(
    "own_valkey", [{"maxmemory": "6mb", "maxmemory-policy": "allkeys-random"}], indirect=True, ids=["eviction"]
)
def test_evicted_hints_come_back(deploy: Deploy, own_valkey: Valkey) -> None:
    """Row 17. No idle claims: only hints bring work."""
    mill = deploy(redis_url=own_valkey.url, idle_claim_s=3600, shift_s=0.5)
    worker = _ready(mill)
    job_id = submit(mill.store, 200, per_chunk=16, model=model(mill.store, delay_s=0.1, max_items=16))
    mill.hint()

    with redis.Redis.from_url(own_valkey.url) as client:
        for number in range(400):
            client.set(f"somebody else's {number}", b"x" * 50_000)
        assert client.info("stats")["evicted_keys"] > 100
    mill.final(job_id, 60)

    check(mill.store, job_id)
    assert worker.alive


@pytest.mark.thorough  # the time limits that end it are the broker connection's own, 10 s
def test_a_half_open_connection_is_noticed(deploy: Deploy, valkey: Valkey, valkey_url: str) -> None:
    """Row 18. No idle claims: only hints bring work."""
    with Proxy(valkey.port) as proxy:
        mill = deploy(redis_url=_through(proxy), idle_claim_s=3600)
        worker = _ready(mill)
        direct = mill.settings.model_copy(update={"redis_url": valkey_url})
        proxy.blackhole()
        time.sleep(1)
        proxy.restore()
        started = time.monotonic()

        job_id = _submit(direct)
        mill.final(job_id, CONSUMING_S)

        assert time.monotonic() - started < CONSUMING_S
        check(mill.store, job_id)
        assert worker.alive
        worker.stop(40)


@pytest.mark.parametrize("resets", [5, pytest.param(60, marks=pytest.mark.thorough)])
def test_connections_that_are_reset_every_second_hold_up_no_work(deploy: Deploy, valkey: Valkey, resets: int) -> None:
    """Row 19. Progress, and no reconnect storm."""
    with Proxy(valkey.port) as proxy:
        mill = deploy(redis_url=_through(proxy))
        worker = _ready(mill)
        slow = model(mill.store, delay_s=0.1, max_items=8)
        job_id = submit(mill.store, 80 * resets, per_chunk=16, model=slow)
        before = proxy.accepted

        for _ in range(resets):
            time.sleep(1)
            proxy.reset()
        accepted = proxy.accepted - before
        done = mill.store.jobs.get(job_id).counts.ok

        assert done > 0
        assert accepted <= STORM * resets, f"{accepted} connections after {resets} resets"
        mill.final(job_id, 120)
        check(mill.store, job_id)
        assert worker.stop(40) == 0


@pytest.mark.thorough
def test_a_slow_network_to_redis_slows_no_work(deploy: Deploy, valkey: Valkey) -> None:
    """Row 19. Half a second of latency."""
    with Proxy(valkey.port) as proxy:
        mill = deploy(redis_url=_through(proxy))
        worker = _ready(mill)
        proxy.delay_s = 0.5
        before = proxy.accepted

        job_ids = [_submit(mill.settings) for _ in range(2)]
        for job_id in job_ids:
            mill.final(job_id)

        for job_id in job_ids:
            check(mill.store, job_id)
        assert proxy.accepted - before <= 2 * STORM
        proxy.delay_s = 0.0
        assert worker.stop(40) == 0


def _fill(client: "redis.Redis") -> None:
    while True:
        client.lpush("somebody else's", b"x" * 50_000)


def _ready(mill: Deployment) -> Worker:
    """A worker whose consumer waits for hints."""
    worker = mill.start()
    mill.until(lambda: "ready" in worker.said(), what="the consumer")
    return worker


def _submit(settings: Settings, **given: Any) -> str:
    """A job submitted as an app does it, in time."""
    with Client(settings) as client:
        started = time.monotonic()
        job_id: str = client.submit("classify", [f"text {n}" for n in range(60)], model="fake", **given).id
    assert time.monotonic() - started < SUBMIT_S
    return job_id


def _through(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"

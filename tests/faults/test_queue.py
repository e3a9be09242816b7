"""Hints that are lost, doubled, forged or garbage, and a Redis that dies: rows 15 and 20 to 24 of the fault list."""

import base64
import os
import pickle
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import redis

from jobs.errors import QueueUnavailable
from jobs.queue import Queue, message
from jobs.settings import Settings
from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import NOWHERE, Deploy, Deployment
from tests.leftovers import check_queue
from tests.servers import Valkey

pytestmark = pytest.mark.servers

BACK_S = 10.0
MIB = 2**20
CLAIMED = "SELECT sum(attempt) FROM chunks"


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey that the test may kill."""
    with Valkey() as server:
        yield server.start()


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("losses", [1, pytest.param(5, marks=pytest.mark.thorough)])
def test_hints_come_back_after_redis_lost_everything(deploy: Deploy, own_valkey: Valkey, losses: int) -> None:
    """Row 15. No idle claims: only hints bring work."""
    mill = deploy(redis_url=own_valkey.url, idle_claim_s=3600, shift_s=0.5, lookahead_items=32)
    worker = mill.start()
    mill.until(lambda: "ready" in worker.said(), what="the consumer")
    job_id = submit(mill.store, 400 * losses, per_chunk=16, model=model(mill.store, delay_s=0.25, max_items=16))
    mill.hint()
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok, what="a first result")

    for _ in range(losses):
        with _client(mill.settings) as client:
            client.flushall()
        own_valkey.restart_empty()
        lost_at = time.monotonic()
        time.sleep(1.0)  # the shift under way needs no hint; by now it is over
        done = column(mill.store, CLAIMED)[0]
        mill.until(partial(_claimed_more_than, mill, done), what="a claim")
        assert time.monotonic() - lost_at < BACK_S

    mill.final(job_id, 60)
    check(mill.store, job_id)
    assert worker.alive


def test_a_job_is_done_with_redis_absent_from_start_to_end(deploy: Deploy) -> None:
    """Row 20."""
    mill = deploy(redis_url=NOWHERE)
    worker = mill.start()

    job_id = submit(mill.store, 500)

    with pytest.raises(QueueUnavailable):
        mill.hint()
    mill.final(job_id)
    check(mill.store, job_id)
    assert worker.stop() == 0


def test_hints_delivered_ten_times_shuffled_and_replayed_compute_each_chunk_once(
    deploy: Deploy, chance: random.Random
) -> None:
    """Row 21."""
    mill = deploy(idle_claim_s=3600)
    client = _client(mill.settings)
    mill.start()
    job_ids = [submit(mill.store, 60, per_chunk=10) for _ in range(4)]
    hints = [message("default") for _ in job_ids] * 10
    chance.shuffle(hints)

    client.lpush(_key(mill.settings), *hints)
    for job_id in job_ids:
        mill.final(job_id)
    client.lpush(_key(mill.settings), *hints)
    mill.until(lambda: mill.queue.depth("default") == 0, what="the replay to be read")

    for job_id in job_ids:
        check(mill.store, job_id)
    assert set(column(mill.store, "SELECT attempt FROM chunks")) == {1}


def test_forged_and_malformed_entries_are_set_aside_and_the_worker_goes_on(deploy: Deploy, tmp_path: Path) -> None:
    """Rows 22 to 24."""
    mill = deploy(idle_claim_s=3600, upkeep_s=30)
    client = _client(mill.settings)
    worker = mill.start()
    mill.until(lambda: "ready" in worker.said(), what="the consumer")
    trap = tmp_path / "executed"
    malformed = [*_malformed(trap), b"x" * 2_000_000]
    forged = [
        _forged([queue]) for queue in list[Any](("elsewhere", -1, 2**70, "'; DROP TABLE jobs", None, ["default"], {}))
    ]

    client.lpush(_key(mill.settings), *malformed, *forged)
    mill.until(lambda: mill.queue.depth("default") == 0, what="all of it to be read")
    job_id = submit(mill.store, 20)
    mill.hint()
    mill.final(job_id)

    check(mill.store, job_id)
    assert client.llen(mill.settings.key_prefix + "aside") == len(malformed)
    assert worker.said().count("was ignored") == len(forged)
    assert not trap.exists()
    assert worker.stop() == 0
    check_queue(mill.settings)


def test_a_key_of_the_wrong_type_is_moved_out_of_the_way(deploy: Deploy) -> None:
    """Row 23."""
    mill = deploy(idle_claim_s=3600)
    client = _client(mill.settings)
    client.hset(_key(mill.settings), "not", "a list")
    worker = mill.start()

    mill.until(lambda: client.type(_key(mill.settings)) in (b"none", b"list"), what="the key to be renamed")
    job_id = submit(mill.store, 20)
    mill.hint()

    mill.final(job_id)
    check(mill.store, job_id)
    assert worker.alive


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("megabytes", [20, pytest.param(200, marks=pytest.mark.thorough)])
def test_an_enormous_message_costs_its_own_memory_and_no_more(deploy: Deploy, megabytes: int) -> None:
    """Row 24."""
    mill = deploy(idle_claim_s=3600)
    worker = mill.start()
    mill.until(lambda: "ready" in worker.said(), what="the consumer")
    process, client = psutil.Process(worker.pid), _client(mill.settings)
    before = process.memory_info().rss

    client.lpush(_key(mill.settings), b"x" * (megabytes * MIB))
    mill.until(lambda: "was set aside: too large" in worker.said(), 60, what="it to be read")
    job_id = submit(mill.store, 20)
    mill.hint()
    mill.final(job_id)

    check(mill.store, job_id)
    assert process.memory_info().rss < before + 64 * MIB
    assert _peak(worker.pid) < before + (4 * megabytes + 64) * MIB
    check_queue(mill.settings)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("number", [20_000, pytest.param(1_000_000, marks=pytest.mark.thorough)])
def test_a_flood_of_tiny_messages_starves_no_work_and_fills_no_log(deploy: Deploy, number: int) -> None:
    """Row 24."""
    mill = deploy()
    worker = mill.start()
    mill.until(lambda: "ready" in worker.said(), what="the consumer")
    before, client = psutil.Process(worker.pid).memory_info().rss, _client(mill.settings)

    for _ in range(number // 10_000):
        client.lpush(_key(mill.settings), *[b"x"] * 10_000)
    job_id = submit(mill.store, 500)
    mill.hint()
    mill.final(job_id)
    mill.until(lambda: client.llen(_key(mill.settings)) < number - 5_000, 60, what="the flood to be read")

    check(mill.store, job_id)
    assert _peak(worker.pid) < before + 64 * MIB
    assert worker.log.stat().st_size < 1 * MIB
    assert client.llen(mill.settings.key_prefix + "aside") <= 100
    client.delete(_key(mill.settings))
    assert worker.stop() == 0


@pytest.mark.parametrize("url", [NOWHERE, "redis://10.255.255.1:6379/0"])
def test_a_dead_redis_is_reported_within_three_seconds(settings: Any, url: str) -> None:
    queue = Queue(settings(redis_url=url))
    started = time.monotonic()

    with pytest.raises(QueueUnavailable):
        queue.hint("default")

    assert time.monotonic() - started < 3


def test_a_stopped_redis_is_reported_within_three_seconds(settings: Any, own_valkey: Valkey) -> None:
    queue = Queue(settings(redis_url=own_valkey.url))
    queue.hint("default")
    own_valkey.pause()
    started = time.monotonic()

    with pytest.raises(QueueUnavailable):
        queue.hint("default")

    assert time.monotonic() - started < 3
    own_valkey.resume()
    assert queue.depth("default") >= 1


def test_top_up_publishes_what_is_missing_and_no_more(settings: Any, valkey_url: str) -> None:
    queue = Queue(settings(redis_url=valkey_url))

    published = [queue.top_up("q", ready, limit) for ready, limit in ((3, 10), (3, 10), (50, 6), (0, 6))]

    assert published == [3, 0, 3, 0]
    assert queue.depth("q") == 6
    queue.close()


def _claimed_more_than(mill: Deployment, before: int) -> bool:
    return bool(column(mill.store, CLAIMED)[0] > before)


def _peak(pid: int) -> int:
    """The most memory the process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _client(settings: Settings) -> Any:
    return redis.Redis.from_url(str(settings.redis_url), socket_timeout=5)


def _key(settings: Settings) -> str:
    return settings.key_prefix + "default"


def _forged(arguments: Any) -> bytes:
    """A well-formed message with arguments that mean nothing."""
    outer = orjson.loads(message("default"))
    body = str(arguments).replace("None", "null").replace("'", '"') if arguments == [2**70] else None
    raw = body.encode() if body else orjson.dumps([arguments, {}, {}])
    if body:
        raw = b"[" + raw + b",{},{}]"
    outer["body"] = base64.b64encode(raw).decode()
    return orjson.dumps(outer)


def _malformed(trap: Path) -> list[bytes]:
    good = orjson.loads(message("default"))

    class Boom:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (os.system, (f"touch {trap}",))

    pickled = base64.b64encode(pickle.dumps(Boom())).decode()
    changes: list[dict[str, Any]] = [
        {"body": "%%% not base64"},
        {"body": 7},
        {"body": base64.b64encode(b"[" * 50_000).decode()},
        {"body": base64.b64encode(b'{"an": "object"}').decode()},
        {"body": pickled, "content-type": "application/x-python-serialize", "content-encoding": "binary"},
        {"headers": None},
        {"headers": {**good["headers"], "task": "os.system"}},
        {"headers": {**good["headers"], "id": 5}},
    ]
    plain = [b"", b"garbage", b"7", b"null", b"[]", b'"text"', b"{}", b"\xff\xfe\x00", b"[" * 30_000, b"9" * 5_000]
    return [*plain, *(orjson.dumps({**good, **change}) for change in changes)]

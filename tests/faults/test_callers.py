"""Callers who cancel, pause, repeat themselves and die, many of them at once: rows 37, 38, 39 and 41 of the list."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jobs import Client
from jobs.corpus import open_source
from jobs.errors import IdempotencyConflict, InvalidState
from jobs.states import Control, JobState
from jobs.store import Store
from tests.checker import all_results, check, check_absorbed, column, rows, states
from tests.corpora import model, submit
from tests.deployment import Deploy, sqlite_when_thorough
from tests.rows import block, claim, done, loading_job, part, queued_job

pytestmark = pytest.mark.servers

KEY = "2026-11-26"


@pytest.mark.parametrize("phase", ["loading", "queued", "running", "paused", "saved in part"])
def test_a_job_cancelled_in_any_phase_ends_once_and_keeps_what_it_has(deploy: Deploy, phase: str) -> None:
    """Row 37. Running work hears of it within a third of its lease and a batch."""
    mill = deploy()
    slow = model(mill.store, delay_s=0.1, max_items=4)
    if phase == "loading":
        job_id = loading_job(mill.store).id
        mill.store.jobs.append(job_id, [block(0, 40)])
    else:
        job_id = submit(mill.store, 400, per_chunk=40, model=slow)
    worker = None
    if phase not in ("loading", "queued"):
        worker = mill.start()
        wanted = 8 if phase == "saved in part" else 0
        mill.until(lambda: column(mill.store, "SELECT id FROM chunks WHERE state = 'running'"), what="work")
        mill.until(lambda: mill.store.jobs.get(job_id).counts.ok >= wanted, what="results")
    if phase == "paused":
        mill.store.jobs.pause(job_id)
    before = states(mill.store)

    mill.store.jobs.cancel(job_id)
    cancelled_at = time.monotonic()

    if worker is not None:
        canary = submit(mill.store, 4, model=slow)
        mill.final(canary)
        # The bound of the fault list, and room for a slow machine: without it the rest would take 10 s.
        assert time.monotonic() - cancelled_at < mill.settings.lease_s / 3 + 0.1 + 6
        check(mill.store, canary)
    job = mill.store.jobs.get(job_id)
    assert (job.state, job.control) == (JobState.CANCELLED, Control.CANCEL)
    assert mill.store.jobs.cancel(job_id).finished_at == job.finished_at
    for refused in (mill.store.jobs.pause, mill.store.jobs.resume):
        with pytest.raises(InvalidState):
            refused(job_id)
    assert len(all_results(mill.store, job_id)) == job.counts.ok
    check_absorbed(before, states(mill.store))
    assert mill.store.check() == []


@pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.thorough)])
def test_a_job_paused_and_resumed_again_and_again_is_done_once(
    deploy: Deploy, chance: random.Random, times: int
) -> None:
    """Row 37."""
    mill = deploy(idle_claim_s=0.1)
    job_id = submit(mill.store, 60 * times, per_chunk=10, model=model(mill.store, delay_s=0.05, max_items=5))
    mill.upkeep.start()
    mill.start()

    for _ in range(times):
        time.sleep(chance.uniform(0.0, 0.4))
        mill.store.jobs.pause(job_id)
        time.sleep(chance.uniform(0.0, 0.4))
        mill.store.jobs.resume(job_id)

    mill.final(job_id, 60)
    check(mill.store, job_id)
    assert set(column(mill.store, "SELECT crashes + errors FROM chunks")) == {0}


@pytest.mark.parametrize("times", [60, pytest.param(1000, marks=[pytest.mark.thorough, pytest.mark.timeout(600)])])
def test_cancel_against_completion_has_one_winner(store: Store, chance: random.Random, times: int) -> None:
    """Row 37."""
    won = dict.fromkeys((JobState.COMPLETED, JobState.CANCELLED), 0)
    for _ in range(times):
        job = queued_job(store, 5)
        (held,) = claim(store)
        ready = threading.Barrier(2)

        def finish(held=held, job_id=job.id, ready=ready) -> None:  # type: ignore[no-untyped-def]
            ready.wait()
            store.chunks.save([done(held)])
            store.jobs.finish(job_id)

        finisher = threading.Thread(target=finish)
        finisher.start()
        ready.wait()
        time.sleep(chance.uniform(0.0, 0.01))
        cancelled = _tried(lambda job_id=job.id: store.jobs.cancel(job_id))  # type: ignore[misc]
        finisher.join()

        state = store.jobs.get(job.id).state
        assert state is (JobState.CANCELLED if cancelled else JobState.COMPLETED)
        won[state] += 1
    print(won)
    assert store.check() == []


@pytest.mark.parametrize("times", [pytest.param(500, marks=[pytest.mark.thorough, pytest.mark.timeout(600)])])
def test_two_last_chunks_that_end_at_once_always_finish_their_job_once(store: Store, times: int) -> None:
    """Row 39. (`make test` has a smaller one beside the store's own tests.)"""
    for _ in range(times):
        job = queued_job(store, 10, per_chunk=5)
        ready, finished = threading.Barrier(2), []

        def complete(held, job_id=job.id, ready=ready, finished=finished) -> None:  # type: ignore[no-untyped-def]
            ready.wait()
            store.chunks.save([done(held)])
            finished.append(store.jobs.finish(job_id))

        threads = [threading.Thread(target=complete, args=(held,)) for held in claim(store, chunks=2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [each is not None for each in finished].count(True) == 1
        assert store.jobs.get(job.id).state is JobState.COMPLETED
    assert store.check() == []


@pytest.mark.parametrize("callers", [12, pytest.param(50, marks=pytest.mark.thorough)])
def test_one_key_used_by_many_at_once_is_one_job(deploy: Deploy, callers: int) -> None:
    """Row 38. With another body it is refused."""
    mill = deploy()
    mill.start()
    texts = [f"text {number}" for number in range(2500)]
    ready, made, broken = threading.Barrier(callers), [], []

    def call() -> None:
        with Client(mill.settings, store=mill.store) as client:
            ready.wait()
            try:
                made.append(client.submit("classify", texts, model="fake", idempotency_key=KEY).id)
            except BaseException as error:
                broken.append(error)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert broken == []
    assert len(set(made)) == 1
    mill.final(made[0])
    check(mill.store, made[0])
    with Client(mill.settings, store=mill.store) as client:
        for other in (texts[1:], [*texts[:-1], "another"]):
            with pytest.raises(IdempotencyConflict):
                client.submit("classify", other, model="fake", idempotency_key=KEY)
        with pytest.raises(IdempotencyConflict):
            client.submit("classify", texts, model="fake", params={"top_k": 1}, idempotency_key=KEY)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_an_upload_whose_client_dies_is_gone_on_with_by_the_same_call(
    deploy: Deploy, chance: random.Random, tmp_path: Path
) -> None:
    """Row 38. The file is read again, and what has arrived is not stored twice."""
    mill = deploy()
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"text": "text {number}"}}\n' for number in range(60_000)), encoding="utf-8")
    command = [sys.executable, "-P", "-c", _SUBMIT, str(source)]
    for _ in range(3):
        process = subprocess.Popen(command, env=mill._environment(), stdout=subprocess.DEVNULL)
        loaded = _blocks(mill.store)
        mill.until(partial(_arrived, mill.store, loaded, process), what="blocks to arrive")
        time.sleep(chance.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()

    with Client(mill.settings, store=mill.store) as client:
        handle = client.submit("classify", open_source(source), model="fake", idempotency_key=KEY)

    assert len(mill.store.jobs.list()) == 1
    assert [seq for seq, _ in mill.store.jobs.lines(handle.id)] == list(range(60_000))
    assert mill.store.jobs.get(handle.id).counts.total == 60_000
    assert mill.store.check() == []


_SUBMIT = f"""
import sys
from jobs import Client
from jobs.corpus import open_source

with Client() as client:
    client.submit("classify", open_source(sys.argv[1]), model="fake", idempotency_key={KEY!r})
"""


def test_a_block_sent_twice_and_out_of_order_is_there_once(store: Store, chance: random.Random) -> None:
    """Row 38."""
    job = loading_job(store)
    sent = [block(at, 10) for at in range(0, 200, 10)] * 2
    chance.shuffle(sent)

    for each in sent:
        store.jobs.append(job.id, [each])
    store.jobs.seal(job.id)

    assert [seq for seq, _ in store.jobs.lines(job.id)] == list(range(200))
    assert store.check() == []


@sqlite_when_thorough
@pytest.mark.parametrize("size", [60, pytest.param(1000, marks=[pytest.mark.thorough, pytest.mark.timeout(600)])])
def test_many_small_jobs_and_a_big_one_share_and_an_urgent_one_goes_first(deploy: Deploy, size: int) -> None:
    """Row 41. With the numbers that real processes reach; at 10,000 of each: tests/jobs/test_store_fairness.py."""
    mill = deploy(lookahead_items=16, upkeep_s=0.5)
    slow = model(mill.store, delay_s=0.02, max_items=8)
    big = submit(mill.store, size * 8, per_chunk=8, model=slow)
    small = [submit(mill.store, 8, per_chunk=8, model=slow) for _ in range(size)]
    mill.upkeep.start()
    mill.start()

    mill.until(lambda: _done_chunks(mill.store) >= size // 2, 120, what="a quarter of the work")
    of_big = len(rows(mill.store, f"SELECT id FROM chunks WHERE state = 'done' AND job_id = {_id(big)}"))
    share = of_big / _done_chunks(mill.store)
    urgent = submit(mill.store, 8, per_chunk=8, model=slow, priority=50)
    before = _done_chunks(mill.store)
    mill.final(urgent, 60)
    passed = _done_chunks(mill.store) - before

    assert 0.25 <= share <= 0.75, f"the big job had {share:.0%} of the work"
    # Its own chunk, those of the look-ahead in the worker's hands, and what a poll of this test misses.
    assert passed <= 1 + 4 * 2 + 8, f"{passed} chunks went before the urgent one"
    for job_id in (big, *small):
        mill.final(job_id, 240)
    for job_id in (big, urgent, *small[:: max(1, size // 20)]):
        check(mill.store, job_id)


def test_parts_of_a_chunk_saved_by_two_owners_never_double_an_item(store: Store) -> None:
    """Row 38's neighbour: a chunk that was saved in part goes on where it was, whoever has it."""
    queued_job(store, 20, per_chunk=20)
    (first,) = claim(store)
    store.chunks.save([part(first, range(8))])
    store.chunks.release({first.chunk_id: first.token})
    (second,) = claim(store, worker_id="w2")

    store.chunks.save([part(first, range(8, 12))])
    store.chunks.save([done(second, range(8, 20))])

    assert [row[0] for row in rows(store, "SELECT seq FROM results ORDER BY seq")] == list(range(20))
    assert store.check() == []


def _tried(call: Callable[[], object]) -> bool:
    try:
        call()
    except InvalidState:
        return False
    return True


def _arrived(store: Store, before: int, process: "subprocess.Popen[bytes]") -> bool:
    return _blocks(store) > before or process.poll() is not None


def _blocks(store: Store) -> int:
    return int(column(store, "SELECT count(*) FROM blocks")[0])


def _done_chunks(store: Store) -> int:
    return int(column(store, "SELECT count(*) FROM chunks WHERE state = 'done'")[0])


def _id(job_id: str) -> str:
    return f"'{job_id.removeprefix('job_')}'"

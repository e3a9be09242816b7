"""A worker process without Celery: idle claims, hints, stop."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs.settings import Settings
from jobs.store import Store
from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import NOWHERE
from worker.machine import Machine

Make = Callable[..., Machine]


@pytest.fixture
def make(store_url: str, settings: Callable[..., Settings]) -> Iterator[Make]:
    """A machine on this test's database, with Redis nowhere."""
    made: list[Machine] = []

    def _make(**overrides: Any) -> Machine:
        quick = {"lease_s": 2.0, "idle_claim_s": 0.1, "upkeep_s": 0.1, "redis_url": NOWHERE, "device": "cpu"}
        made.append(Machine(settings(database_url=store_url, **{**quick, **overrides})))
        return made[-1]

    yield _make
    for machine in made:
        machine.stop(0.0)
        machine.close()


def test_work_is_found_without_any_hint(make: Make, store: Store) -> None:
    make().start()

    job_id = submit(store, 300)

    _until(lambda: store.jobs.get(job_id).state.final)
    check(store, job_id)


def test_only_its_own_queues_are_served(make: Make, store: Store) -> None:
    make(queues=("mine",)).start()

    other, mine = submit(store, 5, queue="other"), submit(store, 5, queue="mine")

    _until(lambda: store.jobs.get(mine).state.final)
    assert store.jobs.get(other).counts.pending == 5


def test_a_quiet_worker_finishes_what_it_holds_and_claims_nothing_until_it_is_woken(make: Make, store: Store) -> None:
    slow = model(store, delay_s=0.05, max_items=4)
    machine = make(lookahead_items=64)
    machine.start()
    running = submit(store, 400, per_chunk=32, model=slow)
    _until(lambda: store.jobs.get(running).counts.ok > 0)

    store.workers.quiet(machine.id, on=True)
    _until(lambda: column(store, "SELECT id FROM chunks WHERE state = 'running'") == [])
    held = store.jobs.get(running).counts
    later = submit(store, 5)
    machine.wake()
    assert machine.work("default") is None
    time.sleep(1.0)

    assert 0 < held.ok < 400
    assert store.jobs.get(running).counts == held
    assert store.jobs.get(later).counts.pending == 5
    assert [row.quiet for row in store.workers.live(60)] == [True]

    store.workers.quiet(machine.id, on=False)
    _until(lambda: store.jobs.get(running).state.final and store.jobs.get(later).state.final)
    check(store, running)
    assert set(column(store, "SELECT attempt FROM chunks")) == {1}


@pytest.mark.parametrize("queue", ["elsewhere", -1, 2**70, None, ["default"], {"a": 1}, "x" * 10_000])
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_forged_hint_is_ignored_and_counted(make: Make, queue: Any) -> None:
    machine = make()

    assert machine.work(queue) is None

    assert machine.info()["hints_ignored"] == 1


def test_a_worker_reports_itself_and_its_models(make: Make, store: Store) -> None:
    machine = make()
    machine.start()
    submit(store, 5)

    _until(lambda: any(row.models == ("fake",) for row in store.workers.live(60)) or machine.work("default"))

    (row,) = store.workers.live(60)
    assert (row.id, row.device, row.queues) == (machine.id, "cpu", ("default",))


def test_stop_during_a_shift_waits_for_it_and_gives_the_rest_back(make: Make, store: Store) -> None:
    machine = make()
    machine.start()
    submit(store, 400, per_chunk=20, model=model(store, delay_s=0.1, max_items=5))
    _until(lambda: column(store, "SELECT id FROM chunks WHERE state = 'running'"))

    started = time.monotonic()
    machine.stop(0.2)

    assert time.monotonic() - started < 3
    assert column(store, "SELECT id FROM chunks WHERE state = 'running' OR crashes > 0 OR errors > 0") == []


def test_a_shift_that_ends_by_the_clock_is_followed_by_another(make: Make, store: Store) -> None:
    # There before the machine is: with nobody to give it a hint it would look again after 30 s only.
    job_id = submit(store, 60, per_chunk=4, model=model(store, delay_s=0.05, max_items=2))

    make(shift_s=0.2, idle_claim_s=30.0).start()

    _until(lambda: store.jobs.get(job_id).state.final, 20)
    check(store, job_id)


def _until(true: Callable[[], object], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)

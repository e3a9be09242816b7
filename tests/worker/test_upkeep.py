"""What the leader does in its rounds, and what happens to leadership."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs import upkeep
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.states import JobState
from jobs.store import Store, throughput, webhooks
from jobs.upkeep import Upkeep
from tests.corpora import submit
from tests.deployment import NOWHERE
from tests.rows import claim, complete, loading_job, queued_job, rows

Make = Callable[..., Upkeep]


@pytest.fixture
def make(store: Store, settings: Callable[..., Settings]) -> Iterator[Make]:
    """A candidate; keyword arguments are settings."""
    queues: list[Queue] = []

    def _make(holder: str = "one", **overrides: Any) -> Upkeep:
        chosen = settings(**{"redis_url": NOWHERE, **overrides})
        queues.append(Queue(chosen))
        return Upkeep(store, queues[-1], chosen, holder)

    yield _make
    for queue in queues:
        queue.close()


def test_one_candidate_leads_and_another_takes_over_when_it_resigns(make: Make, store: Store) -> None:
    first, second = make("one"), make("two")
    job = queued_job(store, 5)
    (held,) = claim(store)
    complete(store, held)

    assert first.round() != {}
    assert second.round() == {}
    first.stop()
    first._resign()

    other = queued_job(store, 5)
    (held,) = claim(store)
    complete(store, held)
    assert second.round()["finished"] == 1
    assert {store.jobs.get(each.id).state for each in (job, other)} == {JobState.COMPLETED}


def test_old_deliveries_are_forgotten_piece_by_piece_in_the_rounds_that_follow(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "DELIVERIES_KEPT_S", -1.0)
    monkeypatch.setattr(webhooks, "PRUNED_AT_ONCE", 2)
    hook, _ = store.webhooks.create("default", "https://example.com/")
    store.webhooks.disable(hook.id, "by hand")
    for _ in range(5):
        store.webhooks.test(hook.id)

    leader = make()

    assert [leader.round().get("deliveries") for _ in range(4)] == [2, 2, 1, None]


def test_what_was_done_is_summarised_now_and_then(make: Make, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "SETTLED_S", -1800.0)
    monkeypatch.setattr(throughput, "KEPT", 2)
    queued_job(store, 5)
    complete(store, claim(store)[0])

    make().round()

    found = rows(store, "SELECT tenant, task, items, errors, tokens FROM throughput WHERE items > 0")
    assert [tuple(row) for row in found] == [("default", "classify", 5, 0, 20)]


def test_hints_are_topped_up_to_what_is_ready_within_the_limit(make: Make, store: Store, valkey_url: str) -> None:
    upkeep = make(redis_url=valkey_url, key_prefix="upkeep:")
    submit(store, 90, per_chunk=30)
    submit(store, 900, per_chunk=30, queue="large")

    done = upkeep.round()
    again = upkeep.round()

    assert done["hints"] == 3 + 4
    assert "hints" not in again


def test_a_dead_redis_keeps_no_other_duty_from_being_done(make: Make, store: Store) -> None:
    job = queued_job(store, 5)
    (held,) = claim(store)
    complete(store, held)
    queued_job(store, 5)

    done = make().round()

    assert done["finished"] == 1
    assert store.jobs.get(job.id).state is JobState.COMPLETED


def test_a_job_whose_items_stop_arriving_is_abandoned(make: Make, store: Store) -> None:
    job = loading_job(store)

    make(loading_timeout_s=1).round()
    early = store.jobs.get(job.id).state
    store._db.write(
        lambda connection: connection.exec_driver_sql("UPDATE jobs SET created_at = '2020-01-01 00:00:00+00'")
    )
    make(loading_timeout_s=1).round()

    assert early is JobState.LOADING
    assert store.jobs.get(job.id).state is JobState.FAILED


def test_run_survives_a_database_that_is_gone(make: Make, store: Store) -> None:
    upkeep = make(upkeep_s=0.05)
    upkeep.start()

    store.close()

    upkeep.stop()

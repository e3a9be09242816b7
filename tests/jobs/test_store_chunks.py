"""Chunks in workers' hands, on both databases: claim, fence, renew, save, release, errors."""

import pytest

from jobs.errors import InvalidState
from jobs.states import Control, JobState
from jobs.store import Store
from jobs.store.values import Renewal, Save
from tests.rows import (
    block,
    chunk_states,
    claim,
    crash,
    done,
    failed,
    fall_silent,
    loading_job,
    ok,
    part,
    queued_job,
    rows,
    tokens,
)


def test_a_claim_takes_about_as_much_as_was_asked_for(store: Store) -> None:
    queued_job(store, 100, per_chunk=10, cost=10)

    by_cost = claim(store, cost=250, items=1000)
    by_items = claim(store, cost=10**6, items=40)
    one_too_large = claim(store, cost=1, items=1)

    assert [len(taken) for taken in (by_cost, by_items, one_too_large)] == [3, 4, 1]
    assert [held.seq_lo for held in by_cost + by_items + one_too_large] == list(range(0, 80, 10))


def test_a_claim_tells_all_that_the_work_needs(store: Store) -> None:
    job = queued_job(store, 10, tenant="t", model="m", task="summarize", params={"length": 3}, keep=("lang",))

    first, second = claim(store, chunks=2)

    assert (second.job_id, second.tenant, second.task, second.model) == (job.id, "t", "summarize", "m")
    assert (second.params, second.keep, second.cost) == ({"length": 3}, ("lang",), 50)
    assert (second.block_lo, second.seq_lo, second.seq_hi) == (0, 5, 10)
    assert (second.attempt, second.crashes, second.errors) == (1, 0, 0)
    assert len(first.token) == 32
    assert first.token != second.token
    assert store.chunks.blocks([first.block_id]) == {first.block_id: ("jsonl+zlib", block(0, 10).data)}


def test_an_empty_queue_gives_nothing(store: Store) -> None:
    queued_job(store, 5, queue="other")

    assert claim(store) == []
    assert store.chunks.queues() == ["other"]
    assert (store.chunks.ready("default", 10), store.chunks.ready("other", 10)) == (0, 1)


def test_ready_counts_up_to_its_limit(store: Store) -> None:
    queued_job(store, 50)

    assert (store.chunks.ready("default", 3), store.chunks.ready("default", 100)) == (3, 10)


def test_queues_are_those_with_pending_work(store: Store) -> None:
    for queue in ("b", "a", "b", "c"):
        queued_job(store, 5, queue=queue)
    claim(store, queue="c")

    assert store.chunks.queues() == ["a", "b"]


def test_the_higher_priority_is_claimed_first(store: Store) -> None:
    low, high = queued_job(store, 10), queued_job(store, 10, priority=5)

    order = [held.job_id for held in claim(store, chunks=4)]

    assert order == [high.id, high.id, low.id, low.id]


def test_a_claim_is_of_one_model(store: Store) -> None:
    queued_job(store, 10, model="a")
    queued_job(store, 10, model="b")

    taken = [claim(store, cost=10**6, items=10**6) for _ in range(2)]

    assert [{held.model for held in held_now} for held_now in taken] == [{"a"}, {"b"}]


def test_a_claim_spans_jobs_of_its_model(store: Store) -> None:
    made = [queued_job(store, 1) for _ in range(10)]

    taken = claim(store, cost=10**6, items=10**6)

    assert {held.job_id for held in taken} == {job.id for job in made}
    assert {store.jobs.get(job.id).state for job in made} == {JobState.RUNNING}


def test_a_loaded_model_goes_first_within_patience(store: Store) -> None:
    queued_job(store, 100, model="cold")
    queued_job(store, 100, model="warm")

    order = [claim(store, cost=100, items=1, loaded=["warm", "unknown"])[0].model for _ in range(12)]

    assert order[:4] == ["warm"] * 4
    assert "cold" in order


def test_a_loaded_model_does_not_outrank_priority(store: Store) -> None:
    queued_job(store, 10, model="cold", priority=1)
    queued_job(store, 10, model="warm")

    assert claim(store, cost=10**6, loaded=["warm"])[0].model == "cold"


def test_a_save_with_a_stale_token_is_dropped(store: Store) -> None:
    job = queued_job(store, 5)
    stale = claim(store, worker_id="slow")[0]
    fall_silent(store, [stale], ago_s=1)
    store.chunks.reap()
    current = claim(store, worker_id="quick")[0]

    assert store.chunks.save([part(stale, [0, 1])]) == set()
    assert store.chunks.save([done(current)]) == {current.chunk_id}
    assert store.chunks.save([done(stale)]) == set()
    assert store.results.have(job.id, 0, 10) == set(range(5))
    assert (current.attempt, current.crashes) == (2, 1)


def test_what_is_held_is_saved_beside_what_is_lost(store: Store) -> None:
    job = queued_job(store, 10)
    lost, held = claim(store, chunks=2)
    store.chunks.release(tokens([lost]))

    accepted = store.chunks.save([done(lost), done(held)])

    assert accepted == {held.chunk_id}
    assert store.results.have(job.id, 0, 10) == set(range(5, 10))
    assert chunk_states(store) == ["pending", "done"]


def test_a_chunk_is_saved_in_parts(store: Store) -> None:
    job = queued_job(store, 5)
    held = claim(store)[0]

    store.chunks.save([part(held, [3, 0])])
    counts = store.jobs.get(job.id).counts
    store.chunks.save([Save(held.chunk_id, held.token, [ok(1), failed(2)], False), done(held, [4])])

    assert (counts.ok, counts.pending) == (2, 3)
    assert store.jobs.get(job.id).counts.model_dump() == {"total": 5, "ok": 4, "error": 1, "pending": 0}
    assert chunk_states(store) == ["done"]


def test_a_chunk_with_items_missing_is_not_done(store: Store) -> None:
    job = queued_job(store, 5)
    held = claim(store)[0]

    with pytest.raises(InvalidState, match="done"):
        store.chunks.save([done(held, [0, 1])])

    assert store.results.have(job.id, 0, 5) == set()
    assert chunk_states(store) == ["running"]


def test_an_item_saved_twice_is_refused_and_nothing_of_that_save_stays(store: Store) -> None:
    job = queued_job(store, 5)
    held = claim(store)[0]
    store.chunks.save([part(held, [0])])

    with pytest.raises(InvalidState):
        store.chunks.save([part(held, [1, 0])])

    assert store.results.have(job.id, 0, 5) == {0}
    assert store.jobs.get(job.id).counts.ok == 1


def test_errors_are_kept_whatever_is_in_their_message(store: Store) -> None:
    job = queued_job(store, 1)
    held = claim(store)[0]

    store.chunks.save([Save(held.chunk_id, held.token, [failed(0, message="NUL \x00 and \udc80")], True)])

    error = store.results.page(job.id)[0].error
    assert error is not None
    assert (error.code, error.message) == ("empty_text", "NUL � and ?")


def test_renewal_keeps_a_lease_and_carries_the_owners_wish(store: Store) -> None:
    job = queued_job(store, 5)
    held = claim(store)
    fall_silent(store, held)

    renewed, skipped = store.chunks.renew("w1", tokens(held), 60)
    reaped = store.chunks.reap()
    store.jobs.pause(job.id)
    paused, _ = store.chunks.renew("w1", tokens(held), 60)

    assert (renewed, skipped) == ([Renewal(held[0].chunk_id, Control.RUN)], set())
    assert sum(reaped) == 0
    assert paused == [Renewal(held[0].chunk_id, Control.PAUSE)]


def test_what_a_renewal_does_not_name_is_lost(store: Store) -> None:
    kept, dropped = queued_job(store, 5), queued_job(store, 5)
    held = claim(store, chunks=2)
    store.jobs.cancel(dropped.id)
    wrong_token = {999: "no such token"}

    renewed, skipped = store.chunks.renew("w1", {**tokens(held), **wrong_token}, 60)

    assert [renewal.chunk_id for renewal in renewed] == [one.chunk_id for one in held if one.job_id == kept.id]
    assert skipped == set()
    assert store.chunks.renew("another worker", tokens(held), 60) == ([], set())
    assert store.chunks.renew("w1", {}, 60) == ([], set())


def test_released_work_carries_no_blame(store: Store) -> None:
    queued_job(store, 5)
    held = claim(store)

    assert store.chunks.release(tokens(held)) == {held[0].chunk_id: 0}

    again = claim(store)[0]
    assert (again.attempt, again.errors, again.crashes) == (2, 0, 0)


def test_an_error_is_counted_and_delays_the_next_claim(store: Store) -> None:
    queued_job(store, 5)
    held = claim(store)

    assert store.chunks.release(tokens(held), error="out of \x00 luck", delay_s=30) == {held[0].chunk_id: 1}

    assert claim(store) == []
    assert store.chunks.ready("default", 10) == 0
    assert rows(store, "SELECT last_error FROM chunks")[0].last_error == "out of � luck"


def test_errors_add_up(store: Store) -> None:
    queued_job(store, 5)

    counted = [store.chunks.release(tokens(claim(store)), error="again") for _ in range(5)]

    assert [errors for one in counted for errors in one.values()] == [1, 2, 3, 4, 5]
    assert claim(store)[0].errors == 5


def test_a_delay_passes(store: Store) -> None:
    queued_job(store, 5)
    store.chunks.release(tokens(claim(store)), error="again", delay_s=0.01)

    while not (held := claim(store)):
        pass

    assert held[0].errors == 1


def test_work_released_by_a_paused_job_is_held(store: Store) -> None:
    job = queued_job(store, 5)
    held = claim(store)
    store.jobs.pause(job.id)

    store.chunks.release(tokens(held))
    states = chunk_states(store)
    store.jobs.resume(job.id)

    assert states == ["held"]
    assert claim(store)[0].attempt == 2


def test_release_of_what_is_not_held_changes_nothing(store: Store) -> None:
    queued_job(store, 5)
    held = claim(store)
    store.chunks.save([done(held[0])])

    assert store.chunks.release(tokens(held), error="late") == {}
    assert store.chunks.release({}) == {}
    assert chunk_states(store) == ["done"]


def test_a_suspect_is_claimed_alone(store: Store) -> None:
    queued_job(store, 30, per_chunk=5)
    suspects = crash(store, chunks=2)

    taken = [claim(store, worker_id=f"w{n}", cost=10**6, items=10**6) for n in range(3)]

    assert [[held.chunk_id for held in one] for one in taken[:2]] == [[one.chunk_id] for one in suspects]
    assert [held.crashes for held in taken[2]] == [0] * 4


def test_saves_of_a_cancelled_job_are_dropped(store: Store) -> None:
    job = queued_job(store, 5)
    held = claim(store)
    store.chunks.save([part(held[0], [0])])
    store.jobs.cancel(job.id)

    assert store.chunks.save([done(held[0], [1, 2, 3, 4])]) == set()
    assert store.jobs.get(job.id).counts.ok == 1
    assert store.check() == []


def test_a_loading_job_cannot_be_claimed(store: Store) -> None:
    job = loading_job(store)
    store.jobs.append(job.id, [block(0, 5)])

    assert claim(store) == []

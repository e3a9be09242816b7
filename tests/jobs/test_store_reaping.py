"""What becomes of chunks whose worker fell silent, on both databases."""

import math

import orjson
import pytest

from jobs.store import Store
from jobs.store.values import Reaped
from tests.rows import (
    block,
    chunk_states,
    claim,
    crash,
    done,
    fall_silent,
    loading_job,
    part,
    queued_job,
    rows,
    run_dry,
    tokens,
)


def test_a_lease_that_runs_is_left_alone(store: Store) -> None:
    queued_job(store)
    claim(store)

    assert store.chunks.reap() == Reaped(0, 0, 0, 0)
    assert chunk_states(store)[0] == "running"


def test_neighbours_whose_lease_runs_are_left_alone(store: Store) -> None:
    queued_job(store, 20)
    silent, *rest = claim(store, chunks=3)
    fall_silent(store, [silent])

    assert sum(store.chunks.reap()) == 1

    assert chunk_states(store) == ["pending", "running", "running", "pending"]
    assert len(store.chunks.renew("w1", tokens([silent, *rest]), 60)[0]) == 2


def test_a_silent_workers_chunk_goes_back_as_a_suspect(store: Store) -> None:
    queued_job(store, 5)
    held = claim(store)
    fall_silent(store, held)

    assert store.chunks.reap() == Reaped(pending=1, split=0, poisoned=0, unblamed=0)

    again = claim(store)[0]
    assert (again.crashes, again.attempt) == (1, 2)


def test_nobody_is_blamed_when_nobody_was_watching(store: Store) -> None:
    queued_job(store, 50)
    held = claim(store, cost=10**6, items=10**6)
    fall_silent(store, held, lease_s=1, ago_s=1.5)

    assert store.chunks.reap() == Reaped(pending=0, split=0, poisoned=0, unblamed=10)
    assert [again.crashes for again in claim(store, cost=10**6, items=10**6)] == [0] * 10


@pytest.mark.parametrize(("watched_s", "expected"), [(0.0, "unblamed"), (4.0, "unblamed"), (7.0, "pending")])
def test_nobody_is_blamed_for_a_lease_that_began_before_a_silence_was_over(
    store: Store, watched_s: float, expected: str
) -> None:
    queued_job(store, 5)
    fall_silent(store, claim(store), lease_s=5, ago_s=0.5)

    reaped = store.chunks.reap(watched_s=lambda: watched_s)

    assert reaped == Reaped(0, 0, 0, 0)._replace(**{expected: 1})


def test_a_limit_bounds_one_round(store: Store) -> None:
    queued_job(store, 50)
    fall_silent(store, claim(store, chunks=10))

    assert [store.chunks.reap(limit=4).pending for _ in range(4)] == [4, 4, 2, 0]


def test_a_paused_jobs_chunk_is_held(store: Store) -> None:
    job = queued_job(store, 5)
    held = claim(store)
    store.jobs.pause(job.id)
    fall_silent(store, held)

    store.chunks.reap()

    assert chunk_states(store) == ["held"]


def test_a_second_crash_halves_the_chunk(store: Store) -> None:
    queued_job(store, 5)
    crash(store)
    crash(store)

    children = [claim(store)[0] for _ in range(2)]

    assert chunk_states(store) == ["split", "running", "running"]
    assert [(child.seq_lo, child.seq_hi, child.crashes, child.cost) for child in children] == [
        (0, 2, 1, 20),
        (2, 5, 1, 30),
    ]
    assert store.chunks.save([done(child) for child in children]) == {2, 3}
    assert store.check() == []


def test_a_split_halves_what_is_left_and_keeps_what_is_there(store: Store) -> None:
    job = queued_job(store, 10, per_chunk=10)
    crash(store)
    held = claim(store)[0]
    store.chunks.save([part(held, [0, 1, 2, 3, 4, 7])])
    fall_silent(store, [held])

    assert store.chunks.reap().split == 1

    spans = rows(store, "SELECT seq_lo, seq_hi, n_ok, tokens_in FROM chunks WHERE state = 'pending' ORDER BY id")
    assert [tuple(span) for span in spans] == [(0, 8, 6, 18), (8, 10, 0, 0)]
    assert store.jobs.get(job.id).counts.model_dump() == {"total": 10, "ok": 6, "error": 0, "pending": 4}
    assert claim(store)[0].attempt == 3
    assert store.check() == []


def test_a_lone_item_that_crashes_twice_is_poison(store: Store) -> None:
    job = loading_job(store, keep=("lang",))
    line = orjson.dumps({"custom_id": "añ", "text": "x", "lang": "ko", "other": 1})
    store.jobs.append(job.id, [block(0, 2, per_chunk=1, lines=[b'"bare text"', line])])
    store.jobs.seal(job.id)

    crash(store, chunks=2)
    crash(store, chunks=2)

    assert store.jobs.finishable() == [job.id]
    bare, named = store.results.page(job.id)
    assert [found.error.code for found in (bare, named) if found.error] == ["poison", "poison"]
    assert (bare.custom_id, named.custom_id, named.kept) == ("0", "añ", {"lang": "ko"})
    assert store.jobs.get(job.id).counts.error == 2
    assert store.check() == []


def test_the_last_unfinished_item_of_a_chunk_is_poison(store: Store) -> None:
    job = queued_job(store, 5)
    crash(store)
    held = claim(store)[0]
    store.chunks.save([part(held, [0, 1, 3, 4])])
    fall_silent(store, [held])

    assert store.chunks.reap().poisoned == 1
    assert [found.seq for found in store.results.page(job.id, status="error")] == [2]
    assert chunk_states(store) == ["done"]


def test_a_chunk_that_only_lacked_its_last_word_is_done(store: Store) -> None:
    job = queued_job(store, 5)
    crash(store)
    held = claim(store)[0]
    store.chunks.save([part(held, range(5))])
    fall_silent(store, [held])

    assert store.chunks.reap().poisoned == 0
    assert chunk_states(store) == ["done"]
    assert store.jobs.get(job.id).counts.ok == 5


@pytest.mark.parametrize("poisons", [{0}, {31}, {13}, {3, 17, 18}])
def test_poison_is_found_within_a_bound_of_restarts(store: Store, poisons: set[int]) -> None:
    job = queued_job(store, 32, per_chunk=32)
    restarts = 0

    while held := claim(store):
        if poisons & set(range(held[0].seq_lo, held[0].seq_hi)):
            restarts += 1
            fall_silent(store, held)
            store.chunks.reap()
        else:
            store.chunks.save([done(held[0])])

    assert {found.seq for found in store.results.page(job.id, status="error")} == poisons
    assert store.jobs.get(job.id).counts.pending == 0
    assert restarts <= len(poisons) * (2 + math.log2(32))
    assert store.jobs.finish(job.id)
    assert store.check() == []


def test_neighbours_in_a_dead_workers_hands_lose_nothing(store: Store) -> None:
    job = queued_job(store, 40)
    fall_silent(store, claim(store, cost=10**6, items=10**6))
    store.chunks.reap()

    run_dry(store)

    final = store.jobs.get(job.id)
    assert (final.counts.ok, final.counts.error) == (40, 0)
    assert rows(store, "SELECT max(attempt) AS most FROM chunks")[0].most == 2


def test_a_reaped_chunk_is_not_reaped_again(store: Store) -> None:
    queued_job(store, 5)
    held = claim(store)
    fall_silent(store, held)

    assert [sum(store.chunks.reap()) for _ in range(2)] == [1, 0]
    assert store.chunks.renew("w1", tokens(held), 60) == ([], set())


def test_a_server_that_was_down_is_no_blame(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    queued_job(store, 5)
    fall_silent(store, claim(store), lease_s=3600)  # so it was given before the server started

    assert store.chunks.reap().unblamed == 1
    store.close()


def test_errors_of_a_split_chunk_go_on(store: Store) -> None:
    queued_job(store, 4, per_chunk=4)
    store.chunks.release(tokens(claim(store)), error="again")
    crash(store)
    crash(store)

    assert [held.errors for held in claim(store, chunks=2)] == [1, 1]

"""What a dead worker's note does to its chunks, on both databases."""

from jobs.store import Store
from jobs.store.blame import ALONE_LIMIT, TOO_OFTEN
from jobs.store.values import Claim, InFlight, Reaped
from tests.rows import chunk_states, claim, crash, done, part, queued_job, rows, run_dry, tokens


def noted(held: Claim, *seqs: int) -> InFlight:
    return InFlight(held.chunk_id, held.token, list(seqs) or None)


def test_chunks_with_nothing_in_flight_go_back_unblamed(store: Store) -> None:
    queued_job(store, 20)
    mine, others = claim(store, chunks=2), claim(store, worker_id="w2")

    assert store.chunks.blame("w1", []) == Reaped(pending=0, split=0, poisoned=0, unblamed=2)

    assert chunk_states(store) == ["pending", "pending", "running", "pending"]
    assert [again.crashes for again in claim(store, chunks=2)] == [0, 0]
    assert len(store.chunks.renew("w2", tokens(others), 60)[0]) == 1
    assert store.chunks.save([done(mine[0])]) == set()


def test_what_was_in_flight_is_remembered_and_its_chunk_runs_alone(store: Store) -> None:
    queued_job(store, 20)
    first, second, _ = claim(store, chunks=3)

    blamed = store.chunks.blame("w1", [noted(first, 1, 3), noted(second, 5)])

    assert blamed == Reaped(pending=2, split=0, poisoned=0, unblamed=1)
    again = [store.chunks.claim(worker_id="w", queue="default", cost=10**6, items=10**6, loaded=[]) for _ in range(2)]
    assert [[(one.crashes, one.suspects) for one in taken] for taken in again] == [[(1, {1: 0, 3: 0})], [(1, {5: 0})]]


def test_a_note_of_an_earlier_claim_blames_nobody(store: Store) -> None:
    queued_job(store, 5)
    (before,) = claim(store)
    store.chunks.release(tokens([before]))
    claim(store)

    assert store.chunks.blame("w1", [noted(before, 1)]).unblamed == 1

    assert claim(store)[0].suspects == {}


def test_an_item_that_is_saved_by_now_is_not_blamed(store: Store) -> None:
    queued_job(store, 5)
    (held,) = claim(store)
    store.chunks.save([part(held, [1])])

    assert store.chunks.blame("w1", [noted(held, 1)]).unblamed == 1


def test_crashes_in_company_make_no_poison(store: Store) -> None:
    queued_job(store, 5)
    for _ in range(ALONE_LIMIT + 2):
        (held,) = claim(store)
        store.chunks.blame("w1", [noted(held, 1, 2)])

    assert claim(store)[0].suspects == {1: 0, 2: 0}


def test_an_item_that_ends_its_worker_alone_is_poison_and_its_neighbours_are_not(store: Store) -> None:
    job = queued_job(store, 5)
    for _ in range(ALONE_LIMIT):
        (held,) = claim(store)
        blamed = store.chunks.blame("w1", [noted(held, 2)])

    assert blamed == Reaped(pending=0, split=0, poisoned=1, unblamed=0)
    assert store.jobs.get(job.id).counts.error == 1
    run_dry(store)
    errors = store.results.page(job.id, status="error")
    assert [(found.seq, found.error and found.error.code) for found in errors] == [(2, "poison")]
    assert store.check() == []


def test_the_last_item_of_a_chunk_ends_it(store: Store) -> None:
    job = queued_job(store, 1)
    for _ in range(ALONE_LIMIT):
        (held,) = claim(store)
        store.chunks.blame("w1", [noted(held, 0)])

    assert chunk_states(store) == ["done"]
    assert store.jobs.finish(job.id)
    assert store.check() == []


def test_a_chunk_that_was_being_prepared_runs_whole_before_its_items_run_singly(store: Store) -> None:
    queued_job(store, 3)
    seen = []
    for _ in range(2):
        (held,) = claim(store)
        seen.append((held.crashes, held.suspects))
        store.chunks.blame("w1", [noted(held)])

    assert seen == [(0, {}), (1, {})]
    assert claim(store)[0].suspects == {0: 0, 1: 0, 2: 0}


def test_a_paused_jobs_chunks_are_held(store: Store) -> None:
    job = queued_job(store, 10)
    first, _ = claim(store, chunks=2)
    store.jobs.pause(job.id)

    store.chunks.blame("w1", [noted(first, 1)])

    assert chunk_states(store) == ["held", "held"]


def test_halves_keep_their_own_suspects(store: Store) -> None:
    queued_job(store, 4, per_chunk=4)
    (held,) = claim(store)
    store.chunks.blame("w1", [noted(held, 0, 3)])
    crash(store)

    assert [child.suspects for child in claim(store, chunks=2)] == [{0: 0}, {3: 0}]


def test_a_chunk_in_hand_at_many_deaths_is_halved_in_the_end(store: Store) -> None:
    queued_job(store, 2, per_chunk=2)
    for _ in range(TOO_OFTEN + 1):
        claim(store)
        store.chunks.blame("w1", [])

    assert chunk_states(store) == ["split", "pending", "pending"]


def test_blame_can_be_repeated(store: Store) -> None:
    queued_job(store, 5)
    (held,) = claim(store)

    assert [sum(store.chunks.blame("w1", [noted(held, 1)])) for _ in range(2)] == [1, 0]
    assert rows(store, "SELECT crashes FROM chunks")[0].crashes == 1

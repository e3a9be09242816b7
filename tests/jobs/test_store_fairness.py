"""Fair share, counted in chunks as they are claimed one by one, on both databases."""

from collections import Counter

from jobs.store import Store
from tests.rows import claim, queued_job, rows


def claimed_by_job(store: Store, chunks: int) -> Counter[str]:
    return Counter(held.job_id for held in claim(store, chunks=chunks))


def test_two_equal_jobs_get_equal_shares(store: Store) -> None:
    first, second = queued_job(store, 200), queued_job(store, 200)

    counts = claimed_by_job(store, 30)

    assert abs(counts[first.id] - counts[second.id]) <= 2


def test_a_job_of_weight_three_gets_three_times_as_much(store: Store) -> None:
    light, heavy = queued_job(store, 200), queued_job(store, 200, weight=3)

    counts = claimed_by_job(store, 40)

    assert abs(counts[heavy.id] - 30) <= 2
    assert abs(counts[light.id] - 10) <= 2


def test_shares_are_of_cost_not_of_chunks(store: Store) -> None:
    small, large = queued_job(store, 200, cost=10), queued_job(store, 200, cost=30)

    counts = claimed_by_job(store, 40)

    assert abs(counts[small.id] - 30) <= 2
    assert counts[large.id] >= 8


def test_a_job_that_comes_later_does_not_catch_up(store: Store) -> None:
    first = queued_job(store, 200)
    claim(store, chunks=15)
    second = queued_job(store, 200)

    counts = claimed_by_job(store, 20)

    assert abs(counts[first.id] - counts[second.id]) <= 2


def test_a_flood_of_small_jobs_does_not_starve_a_big_one(store: Store) -> None:
    big = queued_job(store, 200)
    claim(store)
    for _ in range(40):
        queued_job(store, 5)

    counts = claimed_by_job(store, 40)

    assert 16 <= counts[big.id] <= 24


def test_a_flood_of_small_jobs_of_another_tenant_does_not_starve_a_big_one(store: Store) -> None:
    for _ in range(40):
        queued_job(store, 5, tenant="flood")
    big = queued_job(store, 300, tenant="other")

    counts = claimed_by_job(store, 40)

    assert 16 <= counts[big.id] <= 24


def test_a_big_job_behind_a_flood_of_small_ones_shares_at_once(store: Store) -> None:
    for _ in range(40):
        queued_job(store, 5)
    big = queued_job(store, 300)

    counts = claimed_by_job(store, 40)

    assert 16 <= counts[big.id] <= 24


def test_a_small_job_does_not_wait_for_a_big_one(store: Store) -> None:
    queued_job(store, 500)
    claim(store, chunks=10)
    small = queued_job(store, 5)

    assert claimed_by_job(store, 3)[small.id] == 1


def test_a_tenants_many_jobs_leave_another_tenant_more_than_one_share_of_all(store: Store) -> None:
    lone = queued_job(store, 300, tenant="one")
    for _ in range(8):
        queued_job(store, 100, tenant="many")

    counts = claimed_by_job(store, 40)

    assert counts[lone.id] >= 9  # one of nine equal shares would be 4; 1 + 1/2 + ... + 1/8 against 1 are 10


def test_a_paused_job_goes_on_at_the_present_not_in_the_past(store: Store) -> None:
    paused, other = queued_job(store, 200), queued_job(store, 400)
    claim(store, chunks=4)
    store.jobs.pause(paused.id)
    claim(store, chunks=30)
    store.jobs.resume(paused.id)

    counts = claimed_by_job(store, 20)

    assert abs(counts[paused.id] - counts[other.id]) <= 2


def test_an_urgent_job_is_next(store: Store) -> None:
    queued_job(store, 500)
    claim(store, chunks=5)
    urgent = queued_job(store, 10, priority=1)

    assert [held.job_id for held in claim(store, chunks=2)] == [urgent.id] * 2


def test_a_chunk_that_waits_out_a_delay_does_not_hold_time_back(store: Store) -> None:
    first = queued_job(store, 200)
    store.chunks.release({held.chunk_id: held.token for held in claim(store)}, error="again", delay_s=60)
    claim(store, chunks=15)
    second = queued_job(store, 200)

    counts = claimed_by_job(store, 20)

    assert abs(counts[first.id] - counts[second.id]) <= 2


def test_the_turns_of_a_job_are_its_costs_added_up(store: Store) -> None:
    queued_job(store, 20, weight=2, cost=10)

    assert [row.turn for row in rows(store, "SELECT turn FROM chunks ORDER BY id")] == [0, 25, 50, 75]

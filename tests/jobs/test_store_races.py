"""Several threads at the same chunks and jobs, on both databases."""

import random
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from jobs.errors import InvalidState
from jobs.states import JobState
from jobs.store import Store
from tests.rows import chunk_states, claim, done, fall_silent, queued_job, rows, run_dry, spec, tokens


def at_once(*actions: Callable[[], object]) -> list[object]:
    """What the actions give when threads start them at the same moment; raises what one raises."""
    barrier, given, raised = threading.Barrier(len(actions)), dict[int, object](), list[BaseException]()

    def act(number: int, action: Callable[[], object]) -> None:
        barrier.wait()
        try:
            given[number] = action()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=act, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if raised:
        raise raised[0]
    return [given[number] for number in range(len(actions))]


def test_eight_claimers_never_share_a_chunk_and_leave_none(store: Store) -> None:
    for model in ("a", "b", "a"):
        queued_job(store, 500, model=model)

    def work(name: str) -> list[int]:
        taken: list[int] = []
        loaded = ["a"] if int(name) % 2 else ["b", "c"]
        while held := claim(store, worker_id=name, cost=200, items=50, loaded=loaded):
            taken += [one.chunk_id for one in held]
        return taken

    taken = at_once(*[lambda name=name: work(str(name)) for name in range(8)])

    counts = Counter(chunk for one in taken for chunk in one)  # type: ignore[attr-defined]
    assert sorted(counts) == list(range(1, 301))
    assert set(counts.values()) == {1}


def test_two_last_chunks_saved_at_once_finish_their_job_once(store: Store) -> None:
    for _ in range(8):
        job = queued_job(store, 10)
        first, second = claim(store, chunks=2)

        def end(held: object) -> bool:
            store.chunks.save([done(held)])  # type: ignore[arg-type]
            return store.jobs.finish(job.id) is not None  # noqa: B023

        finished = at_once(lambda: end(first), lambda: end(second))  # noqa: B023

        assert sorted(finished) == [False, True]  # type: ignore[type-var]
        assert store.jobs.get(job.id).state == JobState.COMPLETED


def test_cancel_against_save_leaves_one_final_state(store: Store) -> None:
    for _ in range(12):
        job = queued_job(store, 5)
        held = claim(store)[0]

        def save() -> object:
            store.chunks.save([done(held)])  # noqa: B023
            return store.jobs.finish(job.id)  # noqa: B023

        def cancel() -> object:
            try:
                return store.jobs.cancel(job.id)  # noqa: B023
            except InvalidState:
                return None

        finished, cancelled = at_once(save, cancel)

        assert store.jobs.get(job.id).state == (JobState.COMPLETED if finished else JobState.CANCELLED)
        assert bool(finished) == (cancelled is None)
    assert store.check() == []


def test_one_idempotency_key_many_times_at_once_is_one_job(store: Store) -> None:
    def create() -> tuple[str, bool]:
        job, made = store.jobs.create(spec(idempotency_key="k"), request_hash=b"h")
        return job.id, made

    made = at_once(*[create] * 12)

    assert len({job_id for job_id, _ in made}) == 1  # type: ignore[misc]
    assert sorted(new for _, new in made) == [False] * 11 + [True]  # type: ignore[misc]


def test_seals_at_once_seal_once(store: Store) -> None:
    job = queued_job(store, 50)

    sealed = at_once(*[lambda: store.jobs.seal(job.id)] * 6)

    assert len({one.sealed_at for one in sealed}) == 1  # type: ignore[attr-defined]
    assert chunk_states(store) == ["pending"] * 10


def test_two_reapers_blame_a_crash_once(store: Store) -> None:
    queued_job(store, 100)
    fall_silent(store, claim(store, cost=10**6, items=10**6))

    reaped = at_once(*[store.chunks.reap] * 4)

    assert sum(one.pending for one in reaped) == 20  # type: ignore[attr-defined]
    assert {row.crashes for row in rows(store, "SELECT crashes FROM chunks")} == {1}


def test_a_save_against_the_reaper_lands_whole_or_not_at_all(store: Store) -> None:
    for _ in range(10):
        job = queued_job(store, 5)
        held = claim(store)[0]
        fall_silent(store, [held])

        saved, _ = at_once(lambda: store.chunks.save([done(held)]), store.chunks.reap)  # noqa: B023

        assert len(store.results.have(job.id, 0, 5)) == (5 if saved else 0)
        run_dry(store)
        assert store.jobs.get(job.id).counts.ok == 5


@pytest.mark.parametrize("seed", [1, 2])
def test_everything_at_once_loses_and_doubles_nothing(store: Store, seed: int) -> None:
    made = [queued_job(store, 60, model=f"m{number % 2}").id for number in range(4)]
    stop = threading.Event()

    def work(name: str, chance: random.Random) -> None:
        while held := claim(store, worker_id=name, cost=150, items=30, loaded=["m0"]):
            store.chunks.renew(name, tokens(held), 30)
            whim = chance.random()
            if whim < 0.2:
                store.chunks.release(tokens(held), error="whim" if whim < 0.1 else None)
            elif whim < 0.3 and not held[0].crashes:
                fall_silent(store, held)
            have = {one.chunk_id: store.results.have(one.job_id, one.seq_lo, one.seq_hi) for one in held}
            rest = [done(one, sorted({*range(one.seq_lo, one.seq_hi)} - have[one.chunk_id])) for one in held]
            store.chunks.save(rest)

    def steer(chance: random.Random) -> None:
        while not stop.is_set():
            job_id = chance.choice(made)
            try:
                store.jobs.pause(job_id)
                store.chunks.reap()
                store.jobs.resume(job_id)
            except InvalidState:
                continue
            for finishable in store.jobs.finishable():
                store.jobs.finish(finishable)

    steering = threading.Thread(target=steer, args=(random.Random(seed + 100),))
    steering.start()
    try:
        at_once(*[lambda name=name: work(name, random.Random(f"{seed} {name}")) for name in "abc"])
    finally:
        stop.set()
        steering.join(60)
    for job_id in made:
        if store.jobs.get(job_id).state != JobState.COMPLETED:
            store.jobs.resume(job_id)
    store.chunks.reap()
    run_dry(store)

    for job_id in made:
        final = store.jobs.get(job_id)
        assert (final.state, final.counts.ok, final.counts.error) == (JobState.COMPLETED, 60, 0), f"seed {seed}"
    assert store.check() == []

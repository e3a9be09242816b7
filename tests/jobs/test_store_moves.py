"""Every verb of the store, tried on jobs in every state, makes just the moves that `jobs.states` allows."""

from collections.abc import Callable, Mapping
from contextlib import suppress

from sqlalchemy import update

from jobs.errors import InvalidState
from jobs.schemas import Job
from jobs.states import CHUNK_MOVES, JOB_MOVES
from jobs.store import Store
from jobs.store.clock import later
from jobs.store.tables import jobs
from jobs.store.values import Claim
from tests.rows import block, claim, crash, done, fall_silent, loading_job, queued_job, rows, run_dry, tokens

Moves = set[tuple[str, str]]
Held = list[Claim]


def test_the_verbs_make_allowed_moves_alone_and_together_all_of_them(store: Store) -> None:
    job_moves: Moves = set()
    chunk_moves: Moves = set()

    for begin in BEGINNINGS:
        for verb in VERBS:
            job, held = begin(store)
            before = _states(store, "jobs"), _states(store, "chunks")
            with suppress(InvalidState):
                verb(store, job, held)
            job_moves |= _moves(before[0], _states(store, "jobs"))
            chunk_moves |= _moves(before[1], _states(store, "chunks"))
            with suppress(InvalidState):
                store.jobs.cancel(job.id)

    assert job_moves == _allowed(JOB_MOVES)
    assert chunk_moves == _allowed(CHUNK_MOVES)
    assert store.check() == []


def _loading(store: Store) -> tuple[Job, Held]:
    job = loading_job(store)
    store.jobs.append(job.id, [block(0, 10)])
    return job, []


def _without_items(store: Store) -> tuple[Job, Held]:
    return store.jobs.seal(loading_job(store).id), []


def _queued(store: Store) -> tuple[Job, Held]:
    return queued_job(store, 10), []


def _queued_and_paused(store: Store) -> tuple[Job, Held]:
    return store.jobs.pause(queued_job(store, 10).id), []


def _running(store: Store) -> tuple[Job, Held]:
    return queued_job(store, 10), claim(store)


def _running_and_paused(store: Store) -> tuple[Job, Held]:
    job, held = _running(store)
    return store.jobs.pause(job.id), held


def _saved_and_not_finished(store: Store) -> tuple[Job, Held]:
    job, held = queued_job(store, 5), claim(store)
    store.chunks.save([done(each) for each in held])
    return job, []


def _silent(store: Store) -> tuple[Job, Held]:
    job, held = _running(store)
    fall_silent(store, held)
    return job, held


def _silent_for_the_second_time(store: Store) -> tuple[Job, Held]:
    job = queued_job(store, 5)
    crash(store)
    held = claim(store)
    fall_silent(store, held)
    return job, held


def _completed(store: Store) -> tuple[Job, Held]:
    job = queued_job(store, 10)
    run_dry(store)
    return job, []


def _failed(store: Store) -> tuple[Job, Held]:
    return store.jobs.fail(queued_job(store, 10).id, "no such model"), []


def _cancelled(store: Store) -> tuple[Job, Held]:
    job, held = _running(store)
    return store.jobs.cancel(job.id), held


def _expire(store: Store, job: Job, held: Held) -> None:
    overdue = update(jobs).where(jobs.c.state.in_(["loading", "queued", "running"])).values(deadline_at=later(-60))
    store._db.write(lambda connection: connection.execute(overdue))
    store.jobs.expire_due()


BEGINNINGS: tuple[Callable[[Store], tuple[Job, Held]], ...] = (
    _loading,
    _without_items,
    _queued,
    _queued_and_paused,
    _running,
    _running_and_paused,
    _saved_and_not_finished,
    _silent,
    _silent_for_the_second_time,
    _completed,
    _failed,
    _cancelled,
)
VERBS: tuple[Callable[[Store, Job, Held], object], ...] = (
    lambda store, job, held: store.jobs.append(job.id, [block(10, 5)]),
    lambda store, job, held: store.jobs.seal(job.id),
    lambda store, job, held: store.jobs.pause(job.id),
    lambda store, job, held: store.jobs.resume(job.id),
    lambda store, job, held: store.jobs.cancel(job.id),
    lambda store, job, held: store.jobs.fail(job.id, "it cannot run"),
    lambda store, job, held: store.jobs.finish(job.id),
    lambda store, job, held: store.jobs.abandon_stale(-1),
    _expire,
    lambda store, job, held: claim(store),
    lambda store, job, held: store.chunks.save([done(each) for each in held]),
    lambda store, job, held: store.chunks.release(tokens(held)),
    lambda store, job, held: store.chunks.reap(),
)


def _states(store: Store, table: str) -> dict[object, str]:
    return {row.id: row.state for row in rows(store, f"SELECT id, state FROM {table}")}


def _moves(before: Mapping[object, str], after: Mapping[object, str]) -> Moves:
    """Which states became which others; what is new begins a life and makes no move."""
    return {(state, after[key]) for key, state in before.items() if after[key] != state}


def _allowed(moves: Mapping[str, frozenset[str]]) -> Moves:
    return {(str(state), str(other)) for state, others in moves.items() for other in others}

"""Items that end their worker's process: row 28 of the fault list."""

import math
import shutil
import signal

import pytest

from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import Deploy, Deployment
from tests.faults.poison import EXIT, HANG, KILLED, SEGFAULT, SLOW_LEASE_S, keep_running, poisoned_job

pytestmark = pytest.mark.servers

MOST_RESTARTS = 4
"""For each item that is poison, with the note."""
SIZE = 16

thorough = pytest.mark.thorough
on_postgresql = pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)


@thorough
@pytest.mark.parametrize(
    ("way", "size", "poison"),
    [
        pytest.param(KILLED, SIZE, {0}, id="first"),
        pytest.param(SEGFAULT, SIZE, {7}, id="middle"),
        pytest.param(EXIT, SIZE, {SIZE - 1}, id="last"),
        pytest.param(HANG, 1, {0}, id="only"),
        pytest.param(SEGFAULT, SIZE, {0, 7, 8}, id="three"),
    ],
)
def test_the_items_that_end_the_process_are_poison_and_nobody_else(
    deploy: Deploy, way: str, size: int, poison: set[int]
) -> None:
    """Row 28."""
    mill = deploy(lease_s=SLOW_LEASE_S, step_timeout_s=1.0)
    job_id = poisoned_job(mill.store, size, poison, way=way)

    restarts = keep_running(mill, [job_id])

    check(mill.store, job_id, poison=poison)
    assert restarts <= MOST_RESTARTS * len(poison)


@on_postgresql
def test_neighbours_of_other_jobs_in_the_batch_are_cleared(deploy: Deploy) -> None:
    """Row 28."""
    mill = deploy(lease_s=SLOW_LEASE_S)
    culprit = poisoned_job(mill.store, 8, {3}, way=SEGFAULT)
    others = [submit(mill.store, 4, per_chunk=2, model=model(mill.store)) for _ in range(3)]

    restarts = keep_running(mill, [culprit, *others])

    check(mill.store, culprit, poison={3})
    for job_id in others:
        check(mill.store, job_id)
    assert restarts <= MOST_RESTARTS


@thorough
def test_poison_in_a_prompt_is_found_too(deploy: Deploy) -> None:
    """Row 28."""
    mill = deploy(lease_s=SLOW_LEASE_S)
    job_id = poisoned_job(mill.store, SIZE, {2, 9}, task="generate")

    restarts = keep_running(mill, [job_id])

    check(mill.store, job_id, poison={2, 9})
    assert restarts <= MOST_RESTARTS * 2


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_lost_note_costs_no_more_than_leases_that_end(deploy: Deploy) -> None:
    """Row 28."""
    mill = deploy(lease_s=1.0)
    job_id = poisoned_job(mill.store, 2, {1})
    mill.upkeep.start()

    restarts = keep_running(mill, [job_id], between=lambda: _lose_the_notes(mill))

    check(mill.store, job_id, poison={1})
    assert restarts <= 2 + math.log2(2)


@thorough
@pytest.mark.parametrize(
    ("store_url", "size", "poison"),
    [
        ("sqlite", SIZE, {SIZE - 1}),
        ("postgresql", SIZE, {0}),
        ("postgresql", SIZE, {3, 7, 8}),
        ("postgresql", 1, {0}),
    ],
    indirect=["store_url"],
)
def test_without_the_note_leases_that_end_find_them_by_halving(deploy: Deploy, size: int, poison: set[int]) -> None:
    """Row 28."""
    mill = deploy(lease_s=1.0)
    job_id = poisoned_job(mill.store, size, poison)
    mill.upkeep.start()

    restarts = keep_running(mill, [job_id], between=lambda: _lose_the_notes(mill))

    check(mill.store, job_id, poison=poison)
    assert restarts <= (2 + math.log2(size)) * len(poison)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=thorough)])
@on_postgresql
def test_a_worker_that_someone_ends_blames_what_was_in_flight_once_or_nobody(
    deploy: Deploy, number: signal.Signals
) -> None:
    """Row 28."""
    mill = deploy(lease_s=SLOW_LEASE_S, grace_s=0.1)
    job_id = submit(mill.store, 60, per_chunk=20, model=model(mill.store, delay_s=0.3, max_items=5))
    worker = mill.start()
    mill.until(lambda: column(mill.store, "SELECT 1 FROM chunks WHERE state = 'running'"), what="work to be taken")
    mill.until(lambda: "loaded" in worker.said(), what="the model")

    worker.signal(number)
    worker.wait()
    mill.start()
    mill.until(lambda: not _held_by_the_dead(mill), 10, what="the chunks to be taken back at once")

    mill.final(job_id, 60)
    check(mill.store, job_id)
    blamed = column(mill.store, "SELECT crashes FROM chunks ORDER BY crashes")
    assert blamed == ([0, 0, 1] if number == signal.SIGKILL else [0, 0, 0])


def _lose_the_notes(mill: Deployment) -> None:
    shutil.rmtree(mill.settings.home / "run")


def _held_by_the_dead(mill: Deployment) -> list[object]:
    live = {row.id for row in mill.store.workers.live(60) if row.pid == mill.workers[-1].pid}
    holders = column(mill.store, "SELECT worker_id FROM chunks WHERE state = 'running'")
    return [holder for holder in holders if holder not in live]

"""Old jobs go whole, in small pieces, and nobody reads half of one."""

import pytest
from sqlalchemy import update

from jobs.errors import UnknownJob
from jobs.queue import Queue
from jobs.schemas import Job
from jobs.store import Store, ids
from jobs.store.clock import later
from jobs.store.tables import jobs
from jobs.upkeep import Upkeep
from tests.checker import column
from tests.rows import claim, complete, queued_job

DAY_S = 86_400.0
TABLES = ("results", "chunks", "blocks", "jobs")


def ended(store: Store, n_items: int = 10, *, days_ago: float = 0.0, **given: object) -> Job:
    """A completed job of so long ago."""
    job = queued_job(store, n_items, **given)
    for held in claim(store, chunks=n_items):
        complete(store, held)
    assert store.jobs.finish(job.id)
    age(store, job.id, days_ago)
    return job


def age(store: Store, job_id: str, days: float) -> None:
    moved = update(jobs).where(jobs.c.id == ids.parse(job_id)).values(finished_at=later(-days * DAY_S))
    store._db.write(lambda connection: connection.execute(moved))


@pytest.fixture
def _quick_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids of these tests are all of now; let their time not matter."""
    monkeypatch.setattr("jobs.store.retention.CLOCK_SLACK_S", 1000 * DAY_S)


pytestmark = pytest.mark.usefixtures("_quick_to_find")


def test_only_what_ended_so_long_ago_is_deleted_and_all_of_it(store: Store) -> None:
    old, young = ended(store, days_ago=8), ended(store, days_ago=6)
    live = queued_job(store, 10)

    assert store.retention.due(7 * DAY_S) == 1
    assert store.retention.mark(7 * DAY_S) == 1
    while store.retention.sweep():
        pass

    assert {job.id for job in store.jobs.list()} == {young.id, live.id}
    assert len(store.results.page(young.id)) == 10
    assert column(store, "SELECT count(*) FROM chunks")[0] == 4
    assert store.check() == []
    age(store, young.id, 8)
    assert store.retention.mark(7 * DAY_S) == 1
    assert store.retention.mark(7 * DAY_S) == 0
    while store.retention.sweep():
        pass
    assert [column(store, f"SELECT count(*) FROM {table}")[0] for table in TABLES] == [0, 2, 1, 1]
    assert old.id != live.id


def test_a_job_that_is_gone_is_found_by_nobody_from_the_first_moment_on(store: Store) -> None:
    old = ended(store, 30, days_ago=8, idempotency_key="mine")
    pages = store.results.all_rows(old.id)
    lines = store.jobs.lines(old.id)
    first = next(pages), next(lines)

    store.retention.mark(7 * DAY_S)

    assert first[0].seq == 0
    assert store.jobs.list() == []
    assert store.check() == []
    for read in (store.jobs.get, store.jobs.resolve, store.jobs.cancel, store.results.page, store.retries.latest):
        with pytest.raises(UnknownJob):
            list(read(old.id))  # type: ignore[operator]
    with pytest.raises(UnknownJob):
        list(store.results.marks(old.id))
    assert ended(store, 5, idempotency_key="mine").id != old.id


def test_a_job_goes_with_the_youngest_of_its_retries(store: Store) -> None:
    first = ended(store, days_ago=30)
    second = ended(store, days_ago=20, retry_of=first.id)
    ended(store, days_ago=20, retry_of=first.id)
    last = ended(store, days_ago=1, retry_of=second.id)

    assert store.retention.mark(7 * DAY_S) == 0
    age(store, last.id, 8)
    assert store.retention.mark(7 * DAY_S) == 4


def test_pieces_are_small(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.store.retention.RESULTS_AT_ONCE", 4)
    ended(store, 10, days_ago=8)
    store.retention.mark(7 * DAY_S)

    pieces = []
    while piece := store.retention.sweep():
        pieces.append(piece)
        assert store.check() == []

    assert pieces == [4, 4, 2, 2, 1, 1]


def test_upkeep_deletes_when_it_is_told_how_long_to_keep(store: Store, settings: object) -> None:
    ended(store, days_ago=8)
    kept = ended(store, days_ago=1)
    told = settings(retention_days=7.0, redis_url="redis://127.0.0.1:1/0")  # type: ignore[operator]

    upkeep = Upkeep(store, Queue(told), told, "test")
    upkeep.round()

    assert [job.id for job in store.jobs.list()] == [kept.id]
    assert column(store, "SELECT count(*) FROM jobs") == [1]

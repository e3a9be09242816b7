"""What an operator does to a deployment that is at work: deleting old jobs, backups, restores: row 43 of the list."""

import random
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from jobs.errors import InvalidState, UnknownJob, UsageError
from jobs.schemas import Result
from jobs.store import Store, ids
from jobs.store.clock import later
from jobs.store.tables import jobs
from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import Deploy, Deployment
from tests.rows import claim, complete, queued_job
from tests.servers import Postgres

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("count", [6, pytest.param(60, marks=pytest.mark.thorough)])
def test_pages_of_a_job_that_is_being_deleted_are_whole_or_refused(
    store: Store, chance: random.Random, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 43. Readers page through old and young jobs while the old ones are marked and taken away."""
    monkeypatch.setattr("jobs.store.retention.CLOCK_SLACK_S", 1e9)
    monkeypatch.setattr("jobs.store.retention.RESULTS_AT_ONCE", 50)
    jobs_made = [_ended(store, 200) for _ in range(count)]
    old = set(chance.sample(jobs_made, count // 2))
    started, found, wrong = threading.Barrier(4), [], []

    def read(order: list[str]) -> None:
        started.wait()
        for job_id in order * 3:
            try:
                seqs = [row.seq for after in range(-1, 199, 20) for row in _page(store, job_id, after)]
            except UnknownJob:
                found.append(job_id)
                continue
            if seqs != list(range(200)):
                wrong.append((job_id, seqs))

    readers = [threading.Thread(target=read, args=(chance.sample(jobs_made, count),)) for _ in range(3)]
    for reader in readers:
        reader.start()
    started.wait()
    for job_id in old:
        _age(store, job_id)
    while store.retention.mark(86_400.0, limit=1) or store.retention.sweep():
        pass
    for reader in readers:
        reader.join()

    assert wrong == []
    assert set(found) <= old, "a live job was refused"
    assert {job.id for job in store.jobs.list()} == set(jobs_made) - old
    assert store.check() == []


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_backup_of_sqlite_under_load_loses_nothing_but_what_came_after(deploy: Deploy, tmp_path: Path) -> None:
    """A copy made in mid-job is opened in the database's place, and the mill goes on from there."""
    mill = deploy()
    copy = tmp_path / "copy.db"
    job_id = _half_done(mill)
    seen = mill.store.results.page(job_id)
    mill.store.backup(copy)
    after = submit(mill.store, 20)
    mill.final(job_id, 60)

    restored = deploy(database_url=f"sqlite:///{copy}")

    _goes_on(restored, job_id, seen)
    with pytest.raises(UnknownJob):
        restored.store.jobs.get(after)
    with pytest.raises(UsageError, match="exists"):
        mill.store.backup(copy)
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_dump_of_postgresql_under_load_loses_nothing_but_what_came_after(
    deploy: Deploy, postgres: Postgres, store_url: str, tmp_path: Path
) -> None:
    mill = deploy()
    dump = tmp_path / "textmill.dump"
    job_id = _half_done(mill)
    seen = mill.store.results.page(job_id)
    _run(postgres, "pg_dump", "--format=custom", f"--file={dump}", _libpq(store_url))
    after = submit(mill.store, 20)
    mill.final(job_id, 60)

    other = postgres.create_database()
    _run(postgres, "pg_restore", "--exit-on-error", f"--dbname={_libpq(other)}", str(dump))
    restored = deploy(database_url=other)

    _goes_on(restored, job_id, seen)
    with pytest.raises(UnknownJob):
        restored.store.jobs.get(after)
    with pytest.raises(InvalidState, match="pg_dump"):
        mill.store.backup(tmp_path / "copy.db")


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_worker_from_before_a_restore_writes_nothing_into_what_was_restored(deploy: Deploy, tmp_path: Path) -> None:
    """Its claims are not in the copy, or were claimed anew: the token tells."""
    mill = deploy(lease_s=30.0)
    job_id = submit(mill.store, 40, per_chunk=10)
    (held,) = claim(mill.store)
    copy = tmp_path / "copy.db"
    mill.store.backup(copy)
    complete(mill.store, held)

    restored = Store.open(f"sqlite:///{copy}")
    other = claim(restored, chunks=3)
    late = [each for each in claim(mill.store, chunks=3) if each.chunk_id in {one.chunk_id for one in other}]
    for each in late:
        complete(restored, each)

    assert len(late) == 3
    assert column(restored, "SELECT count(*) FROM results") == [0]
    assert restored.jobs.get(job_id).counts.ok == 0
    restored.close()


def _goes_on(restored: Deployment, job_id: str, seen: Sequence[Result]) -> None:
    """The job is finished from where the copy has it, and what was there is still the same."""
    restored.upkeep.start()
    restored.start()
    restored.final(job_id, 60)
    check(restored.store, job_id)
    kept = {result.seq: result for result in restored.store.results.page(job_id)}
    assert [kept[result.seq] for result in seen] == list(seen)


def _half_done(mill: Deployment) -> str:
    """A job that a worker is in the middle of."""
    mill.upkeep.start()
    mill.start()
    job_id = submit(mill.store, 400, per_chunk=20, model=model(mill.store, delay_s=0.05, max_items=10))
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok >= 40, what="some results")
    return job_id


def _ended(store: Store, n_items: int) -> str:
    job = queued_job(store, n_items, per_chunk=50)
    for held in claim(store, chunks=n_items):
        complete(store, held)
    assert store.jobs.finish(job.id)
    return job.id


def _age(store: Store, job_id: str) -> None:
    moved = update(jobs).where(jobs.c.id == ids.parse(job_id)).values(finished_at=later(-10 * 86_400.0))
    store._db.write(lambda connection: connection.execute(moved))


def _page(store: Store, job_id: str, after: int) -> list[object]:
    return list(store.results.rows_after(job_id, after=after, limit=20))


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def _run(postgres: Postgres, program: str, *arguments: str) -> None:
    subprocess.run([postgres._bin / program, *arguments], check=True)

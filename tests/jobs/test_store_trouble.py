"""Databases that fall away, come back, fill up or quarrel: the store's errors, and what a lost answer costs."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from jobs.errors import InvalidSettings, SchemaOutdated, StoreUnavailable
from jobs.states import JobState
from jobs.store import Store, dialect
from tests.proxy import Proxy
from tests.rows import block, chunk_states, claim, done, loading_job, ok, part, queued_job, rows, spec
from tests.servers import Postgres, free_port


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A PostgreSQL server that the test may stop."""
    with Postgres() as server:
        yield server.start()


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    with Proxy(postgres.port) as between:
        yield between


@pytest.fixture
def far_store(postgres: Postgres, postgres_url: str, proxy: Proxy) -> Iterator[Store]:
    """A store whose connections go through the proxy."""
    store = Store.open(postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/"))
    yield store
    store.close()


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_results_are_saved_once_when_the_answer_to_their_commit_is_lost(
    far_store: Store, proxy: Proxy, delivered: bool, whole: bool
) -> None:
    job = queued_job(far_store, 10)
    first, second = claim(far_store, chunks=2)
    save = [done(first), done(second)] if whole else [part(first, [0, 1]), done(second)]

    proxy.cut_at(b"COMMIT", delivered=delivered)
    accepted = far_store.chunks.save(save)

    assert accepted == {first.chunk_id, second.chunk_id}
    assert far_store.results.have(job.id, 0, 10) == (set(range(10)) if whole else {0, 1, 5, 6, 7, 8, 9})
    assert far_store.jobs.get(job.id).counts.ok == (10 if whole else 7)
    assert far_store.check() == []


def test_a_claim_whose_answer_is_lost_is_not_lost(far_store: Store, proxy: Proxy) -> None:
    queued_job(far_store, 10)

    proxy.cut_at(b"attempt = attempt + 1", delivered=True)
    held = claim(far_store)

    assert [one.chunk_id for one in held] == [1]
    assert chunk_states(far_store) == ["running", "pending"]
    assert far_store.chunks.save([done(held[0])]) == {1}


def test_a_claim_that_was_never_answered_is_found_by_the_next(
    far_store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued_job(far_store, 10)

    with monkeypatch.context() as impatient:
        impatient.setattr(dialect, "RETRY_S", ())
        proxy.cut_at(b"attempt = attempt + 1", delivered=True)
        with pytest.raises(StoreUnavailable):
            claim(far_store)
    held = claim(far_store)

    assert [(one.chunk_id, one.attempt) for one in held] == [(1, 1)]
    assert chunk_states(far_store) == ["running", "pending"]
    assert far_store.chunks.save([done(held[0])]) == {1}
    assert claim(far_store)[0].chunk_id == 2


def test_a_job_is_made_once_when_the_answer_is_lost(far_store: Store, proxy: Proxy) -> None:
    loading_job(far_store)

    proxy.cut_at(b"COMMIT", delivered=True)
    job = loading_job(far_store)

    assert far_store.jobs.list()[0].id == job.id
    assert len(far_store.jobs.list()) == 2


def test_a_job_with_its_items_is_made_once_when_the_answer_is_lost(far_store: Store, proxy: Proxy) -> None:
    loading_job(far_store)

    proxy.cut_at(b"COMMIT", delivered=True)
    job, created = far_store.jobs.create(spec(), request_hash=b"h", whole=[block(0, 10)])

    assert (job.state, created) == (JobState.QUEUED, True)
    assert chunk_states(far_store) == ["pending"] * 2
    assert len(far_store.jobs.list()) == 2


def test_ended_connections_are_replaced_unnoticed(postgres: Postgres, postgres_url: str) -> None:
    store = Store.open(postgres_url)
    job = queued_job(store, 30)
    for _ in range(3):
        held = claim(store)[0]
        with postgres.connect() as outside:
            outside.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'textmill'"
            )
        store.chunks.save([done(held)])

    assert store.jobs.get(job.id).counts.ok == 15
    store.close()


def test_a_server_that_is_down_is_unavailable_and_then_works_again(own_server: Postgres) -> None:
    store = Store.open(own_server.create_database())
    store.upgrade()
    job = queued_job(store, 5)
    held = claim(store)[0]
    own_server.stop()

    began = time.monotonic()
    for call in (lambda: store.jobs.get(job.id), lambda: claim(store), lambda: store.chunks.save([done(held)])):
        with pytest.raises(StoreUnavailable):
            call()
    assert time.monotonic() - began < 20

    own_server.start()
    assert store.chunks.save([done(held)]) == {held.chunk_id}
    store.close()


def test_a_server_that_was_never_there_is_unavailable() -> None:
    store = Store.open(f"postgresql://nobody@127.0.0.1:{free_port()}/none")

    with pytest.raises(StoreUnavailable):
        store.check_schema()
    store.close()


def test_a_deadlock_is_tried_again(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    queued_job(store, 10)
    barrier = threading.Barrier(2)
    tried = []

    def cross(order: tuple[int, int]) -> None:
        def work(connection: Connection) -> None:
            tried.append(order)
            connection.execute(text("UPDATE chunks SET cost = cost + 1 WHERE id = :id"), {"id": order[0]})
            if len(tried) <= 2:
                barrier.wait(10)
            connection.execute(text("UPDATE chunks SET cost = cost + 1 WHERE id = :id"), {"id": order[1]})

        store._db.write(work)

    threads = [threading.Thread(target=cross, args=(order,)) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(tried) == 3
    assert [row.cost for row in rows(store, "SELECT cost FROM chunks ORDER BY id")] == [52, 52]
    store.close()


def test_a_database_without_tables_says_what_to_do(postgres: Postgres) -> None:
    store = Store.open(postgres.create_database())

    with pytest.raises(SchemaOutdated, match="db upgrade"):
        store.jobs.list()
    store.close()


def test_an_outside_lock_on_sqlite_is_waited_for(sqlite_url: str) -> None:
    store = Store.open(sqlite_url)
    job = queued_job(store, 5)
    outside = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    outside.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.5, outside.execute, ["COMMIT"]).start()

    held = claim(store)
    store.chunks.save([done(held[0])])

    assert store.jobs.finish(job.id)
    outside.close()
    store.close()


def test_a_write_on_sqlite_takes_its_lock_before_it_reads(sqlite_url: str) -> None:
    store = Store.open(sqlite_url)
    outside = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, timeout=0)

    def work(_: Connection) -> None:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            outside.execute("BEGIN IMMEDIATE")

    store._db.write(work)
    outside.execute("BEGIN IMMEDIATE")
    outside.close()
    store.close()


def test_a_full_disk_on_sqlite_rolls_back_and_goes_on_when_there_is_room(sqlite_url: str) -> None:
    store = Store.open(sqlite_url)
    job = queued_job(store, 5)
    held = claim(store)[0]
    pages = [10]

    def limit(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages[0]}").close()

    event.listen(store._db.engine, "connect", limit)
    store._db.engine.pool.dispose()
    large = [ok(seq, output='"' + "x" * 100_000 + '"') for seq in range(5)]

    with pytest.raises(StoreUnavailable, match="full"):
        store.chunks.save([done(held)._replace(rows=large)])
    assert store.results.have(job.id, 0, 5) == set()

    pages[0] = 10**6
    store._db.engine.pool.dispose()
    assert store.chunks.save([done(held)._replace(rows=large)]) == {held.chunk_id}
    assert rows(store, "PRAGMA integrity_check")[0][0] == "ok"
    store.close()


def test_sqlite_waits_for_the_disk_at_every_commit(sqlite_url: str) -> None:
    store = Store.open(sqlite_url)

    found = [rows(store, f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "foreign_keys")]

    assert found == ["wal", 2, 1]
    store.close()


def test_only_claims_and_renewals_do_not_wait_for_the_disk(postgres_url: str) -> None:
    store = Store.open(postgres_url)

    def setting(name: str) -> Any:
        return lambda connection: connection.exec_driver_sql(f"SHOW {name}").scalar()

    assert store._db.write(setting("synchronous_commit")) == "on"
    assert store._db.read(setting("synchronous_commit")) == "on"
    assert store._db.relaxed(setting("synchronous_commit")) == "off"
    for name, value in {"lock_timeout": "10s", "idle_in_transaction_session_timeout": "30s"}.items():
        assert store._db.write(setting(name)) == value
    store.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "not a url", "sqlite://", "sqlite:///:memory:"])
def test_a_database_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettings):
        Store.open(url)


def test_a_sqlite_file_is_made_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "textmill.db"

    store = Store.open(f"sqlite:///{path}")

    store.check_schema()
    assert path.exists()
    store.close()


def test_a_closed_store_refuses_further_work(store: Store) -> None:
    store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        store.leaders.acquire("upkeep", "a", 10.0)


def test_closing_closes_connections_in_use_as_soon_as_their_work_is_done(store: Store) -> None:
    used = []

    def work(connection: Connection) -> None:
        used.append(connection.connection.dbapi_connection)
        store.close()

    store._db.write(work)
    store.close()

    with pytest.raises(Exception, match="closed"):
        used[0].cursor().execute("SELECT 1")

"""A PostgreSQL that ends connections, dies, stands still or quarrels: rows 6 to 9 and 11 of the fault list."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

from jobs.errors import StoreUnavailable
from jobs.store import Store, dialect, ids
from tests.checker import check, column, rows
from tests.corpora import model, submit
from tests.deployment import Deployment, Worker
from tests.leftovers import OWN_CONNECTIONS, check_children, check_connections, check_process, children
from tests.proxy import Proxy
from tests.rows import claim
from tests.servers import Postgres, Valkey

pytestmark = pytest.mark.servers

END_OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'textmill'"
LINGER = """
    CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$;
    CREATE TRIGGER linger BEFORE UPDATE ON chunks FOR EACH ROW WHEN (NEW.state = 'done') EXECUTE FUNCTION linger()
"""
"""A save holds its chunks for a while before it goes on to the results."""
NO_LINGER = "DROP FUNCTION linger CASCADE"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A PostgreSQL server that these tests may stop."""
    with Postgres(max_connections="40", deadlock_timeout="100ms") as own:
        yield own.start()


@pytest.fixture(scope="module")
def mill(server: Postgres, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two workers, the same through all of this file: whatever happens, they live on."""
    before = children()
    home = tmp_path_factory.mktemp("mill")
    made = Deployment(home, _database(server), valkey.url, key_prefix="postgresql:", lookahead_items=64)
    made.upkeep.start()
    for worker in [made.launch(), made.launch()]:
        made.until(lambda worker=worker: made._is_up(worker), 60, what="a worker", worker=worker)
    yield made
    for worker in made.workers:
        check_process(worker.pid)
        worker.kill()
    check_connections(made.store, OWN_CONNECTIONS)
    made.close()
    check_children(before)


def test_connections_cut_inside_commit_lose_and_double_nothing(
    mill: Deployment, server: Postgres, chance: random.Random
) -> None:
    """Row 6."""
    with Proxy(server.port) as between:
        far = str(mill.settings.database_url).replace(f":{server.port}/", f":{between.port}/")
        worker = mill.start(TEXTMILL_DATABASE_URL=far, TEXTMILL_QUEUES="far")
        before = between.accepted
        slow = model(mill.store, delay_s=0.1, max_items=16)
        job_id = submit(mill.store, 320, per_chunk=16, model=slow, queue="far")
        while not mill.store.jobs.get(job_id).state.final:
            between.cut_at(b"COMMIT", delivered=chance.random() < 0.5)
            time.sleep(0.1)

        _check_unblamed(mill, job_id)
        assert between.accepted - before > 4
        _leave(mill, worker)


@pytest.mark.parametrize("seconds", [pytest.param(5), pytest.param(30, marks=pytest.mark.thorough)])
def test_connections_that_are_ended_every_two_seconds_cost_only_time(
    mill: Deployment, server: Postgres, seconds: int
) -> None:
    """Row 7."""
    job_id = _long_job(mill, seconds)

    ended = 0
    while not mill.store.jobs.get(job_id).state.final:
        with server.connect() as outside:
            ended += len(outside.execute(END_OURS).fetchall())
        time.sleep(2)

    _check_unblamed(mill, job_id)
    assert ended > 4


@pytest.mark.parametrize(
    ("times", "down_s"), [pytest.param(1, 2.0), pytest.param(5, 30.0, marks=pytest.mark.thorough, id="thorough")]
)
def test_a_server_that_is_stopped_at_once_and_started_blames_no_chunk(
    mill: Deployment, server: Postgres, times: int, down_s: float
) -> None:
    """Row 8."""
    job_id = _long_job(mill, 4 + 2 * times)

    for _ in range(times):
        server.stop_at_once()
        server.start()
        done = mill.store.jobs.get(job_id).counts.ok
        mill.until(lambda before=done: mill.store.jobs.get(job_id).counts.ok > before, what="work to go on")
    server.stop_at_once()
    time.sleep(down_s)
    late = mill.launch()
    server.start()

    mill.final(job_id, 60)
    _check_unblamed(mill, job_id)
    mill.until(lambda: mill._is_up(late), what="the worker that was started without a database")
    _leave(mill, late)


@pytest.mark.parametrize("seconds", [pytest.param(3.0), pytest.param(75.0, marks=pytest.mark.thorough)])
def test_a_server_that_stands_still_is_given_up_on_and_gone_on_with(
    mill: Deployment, server: Postgres, seconds: float
) -> None:
    """Row 9. The short one ends before two leases have passed, after which nobody would be blamed anyway (row 40)."""
    job_id = _long_job(mill, 8)
    late = threading.Thread(target=_try_to_submit, args=(mill,))

    server.pause()
    try:
        late.start()
        time.sleep(seconds)
    finally:
        server.resume()

    mill.final(job_id, 60)
    _check_unblamed(mill, job_id)
    assert "the lease was not renewed in time; given up" in mill.said()
    late.join(10)
    assert not late.is_alive()


def test_a_server_that_stands_still_is_unavailable(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 9. As a submit or a look at a job sees it."""
    monkeypatch.setattr(dialect, "ANSWER_S", 1.0)
    monkeypatch.setitem(dialect.POSTGRESQL_CONNECT, "connect_timeout", 1)
    store = Store.open(_database(server))
    job_id = submit(store, 10)

    server.pause()
    try:
        began = time.monotonic()
        for call in (lambda: store.jobs.get(job_id), lambda: submit(store, 10), lambda: claim(store)):
            with pytest.raises(StoreUnavailable, match=r"no answer within 1 s|timeout expired"):
                call()
        assert time.monotonic() - began < 45
    finally:
        server.resume()

    assert store.jobs.get(job_id).counts.total == 10
    assert [held.job_id for held in claim(store)] == [job_id]
    assert column(store, "SELECT count(*) FROM chunks WHERE state = 'running'") == [1]
    store.close()


def test_no_connection_to_be_had_is_waited_for(mill: Deployment, server: Postgres) -> None:
    """Row 11. `max_connections` is reached."""
    job_id = _long_job(mill, 4)

    with _all_connections(server):
        mill.until(lambda: "too many clients" in mill.said(), what="the workers to be refused")
        time.sleep(mill.settings.lease_s * 1.5)

    mill.final(job_id, 60)
    _check_unblamed(mill, job_id)


@pytest.mark.parametrize(
    ("table", "seconds"),
    [
        pytest.param("chunks", 3.0),
        pytest.param("chunks", 10.0, marks=pytest.mark.thorough),
        pytest.param("results", 10.0, marks=pytest.mark.thorough),
    ],
)
def test_a_locked_table_is_waited_for(mill: Deployment, server: Postgres, table: str, seconds: float) -> None:
    """Row 11. A table is locked for longer than a lease."""
    job_id = _long_job(mill, 6)

    with server.connect(_name(mill)) as outside, outside.transaction():
        outside.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        time.sleep(seconds)

    mill.final(job_id, 60)
    _check_unblamed(mill, job_id)


def test_deadlocks_with_somebody_else_are_tried_again(mill: Deployment, server: Postgres) -> None:
    """Row 11. Another session locks the chunks in the wrong order, again and again."""
    job_id = _long_job(mill, 6)
    before = server.log.read_text().count("deadlock detected")

    with server.connect(_name(mill)) as outside:
        outside.execute(LINGER)
        outside.execute("SET deadlock_timeout = '30s'")  # who waits last looks for deadlocks, and is the victim
        while not (met := server.log.read_text().count("deadlock detected") - before):
            assert not mill.store.jobs.get(job_id).state.final, "no deadlock came about"
            _cross(outside)
        outside.execute(NO_LINGER)

    mill.final(job_id, 60)
    _check_unblamed(mill, job_id)
    assert met


def _cross(outside: Any) -> None:
    """Lock results before chunks; a save does it the other way round."""
    with suppress(psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable), outside.transaction():
        outside.execute("SET LOCAL lock_timeout = '600ms'")
        outside.execute("LOCK TABLE results IN SHARE MODE")
        outside.execute("SELECT 1 FROM chunks WHERE state = 'running' FOR UPDATE")
    time.sleep(0.5)


@contextmanager
def _all_connections(server: Postgres) -> Iterator[None]:
    """Nobody else gets a connection, and Textmill has none."""
    held: list[Any] = []
    deadline = time.monotonic() + 20
    try:
        while not held or held[0].execute(END_OURS).fetchall():
            assert time.monotonic() < deadline, "Textmill keeps getting connections"
            with suppress(psycopg.OperationalError):
                while True:
                    held.append(server.connect())
        yield
    finally:
        for each in held:
            each.close()


def _try_to_submit(mill: Deployment) -> None:
    with suppress(StoreUnavailable):
        submit(mill.store, 10)


def _leave(mill: Deployment, worker: Worker) -> None:
    assert worker.stop() == 0
    mill.workers.remove(worker)


def _database(server: Postgres) -> str:
    """The URL of a new, migrated database."""
    url = server.create_database()
    store = Store.open(url)
    store.upgrade()
    store.close()
    return url


def _name(mill: Deployment) -> str:
    return str(mill.settings.database_url).rsplit("/", 1)[1]


def _long_job(mill: Deployment, seconds: float) -> str:
    """A job that two workers have so long to do, begun."""
    slow = model(mill.store, delay_s=0.1, max_items=8)
    job_id = submit(mill.store, int(seconds * 160), per_chunk=16, model=slow)
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok, what="a first result")
    return job_id


def _check_unblamed(mill: Deployment, job_id: str) -> None:
    check(mill.store, job_id)
    blamed = f"SELECT id, crashes, errors FROM chunks WHERE crashes + errors > 0 AND job_id = '{ids.parse(job_id)}'"
    assert rows(mill.store, blamed) == [], mill.said()
    assert all(worker.alive for worker in mill.workers)
    assert "Traceback" not in mill.said()

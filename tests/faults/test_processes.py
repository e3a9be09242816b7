"""Processes that die and stop: rows 1 to 5 and 39 of the fault list."""

import random
import signal
import threading
import time

import pytest

from jobs.states import JobState
from jobs.store import Store
from jobs.store.values import Claim, Save
from tests.checker import check, check_absorbed, column, states
from tests.corpora import model, submit
from tests.deployment import Deploy, sqlite_when_thorough
from tests.rows import claim, ok, queued_job

pytestmark = pytest.mark.servers

RUNNING = "SELECT id FROM chunks WHERE state = 'running'"

SLEEPING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
_WAIT = """CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF {when} THEN PERFORM pg_sleep(1.5); END IF; RETURN NEW; END $$"""


@sqlite_when_thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.thorough)])
def test_a_worker_killed_in_mid_batch_is_replaced_within_lease_and_five_seconds(
    deploy: Deploy, chance: random.Random, kills: int
) -> None:
    """Row 1."""
    mill = deploy(lookahead_items=96)
    job_id = submit(mill.store, 400 * kills, per_chunk=32, model=model(mill.store, delay_s=0.05, max_items=8))
    mill.upkeep.start()

    for _ in range(kills):
        worker = mill.start()
        mill.until(lambda: column(mill.store, RUNNING), what="work to be taken")
        time.sleep(chance.uniform(0.0, 0.6))
        before = states(mill.store)
        worker.kill()
        killed_at = time.monotonic()
        mill.until(lambda: not column(mill.store, RUNNING), what="its chunks to come free")
        assert time.monotonic() - killed_at < mill.settings.lease_s + 5
        check_absorbed(before, states(mill.store))
    mill.start()
    mill.final(job_id, 30 + 10 * kills)

    check(mill.store, job_id)


@pytest.mark.parametrize("hints", [1, pytest.param(10, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)  # a stopped process may hold SQLite's write lock
def test_a_hint_that_vanishes_with_its_worker_is_not_missed(deploy: Deploy, hints: int) -> None:
    """Row 2."""
    mill = deploy(idle_claim_s=1.0)
    for _ in range(hints):
        victim = mill.start()
        victim.signal(signal.SIGSTOP)
        job_id = submit(mill.store, 50)
        mill.hint()
        victim.kill()

    mill.start()

    mill.final(job_id, 20)
    check(mill.store, job_id)


def test_a_worker_that_wakes_after_its_lease_writes_nothing(deploy: Deploy) -> None:
    """Row 3."""
    mill = deploy()
    job_id = submit(mill.store, 100, per_chunk=20, model=model(mill.store, delay_s=0.2, max_items=10))
    mill.upkeep.start()
    sleeper = mill.start()
    mill.until(lambda: column(mill.store, RUNNING), what="work to be taken")

    sleeper.signal(signal.SIGSTOP)
    mill.start()
    mill.final(job_id, 60)
    sleeper.signal(signal.SIGCONT)

    mill.until(lambda: "given up" in sleeper.said() or "not held any more" in sleeper.said(), what="the fence")
    check(mill.store, job_id)
    assert "Traceback" not in sleeper.said()
    assert sleeper.stop() == 0


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("timing", ["IMMEDIATE", "DEFERRED"])
@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.thorough)])
def test_a_worker_killed_while_it_saves_leaves_no_part_of_it(
    deploy: Deploy, chance: random.Random, timing: str, kills: int
) -> None:
    """Rows 4 and 6. Killed between its rows and COMMIT, and inside COMMIT; each time with another job, since an item
    that is there whenever a worker dies is called poison."""
    mill = deploy()
    mill.upkeep.start()
    for _ in range(kills):
        job_id = submit(mill.store, 60, per_chunk=20)
        _slow_saving(mill.store, f"DEFERRABLE INITIALLY {timing}")
        worker = mill.start()
        mill.until(lambda: column(mill.store, SLEEPING), what="a save to be under way")

        time.sleep(chance.uniform(0, 1.0))
        worker.kill()
        mill.until(lambda: not column(mill.store, SLEEPING), what="the save to end")
        _drop(mill.store, "results")
        survivor = mill.start()

        mill.final(job_id, 30)
        check(mill.store, job_id)
        assert survivor.stop() == 0


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_worker_killed_before_it_finishes_the_job_leaves_that_to_upkeep(deploy: Deploy) -> None:
    """Row 5."""
    mill = deploy()
    worker = mill.start()
    _write(mill.store, _WAIT.format(name="wait_job", when="true"))
    _write(
        mill.store,
        """CREATE TRIGGER slow BEFORE UPDATE ON jobs FOR EACH ROW
        WHEN (NEW.state = 'completed') EXECUTE FUNCTION wait_job()""",
    )
    job_id = submit(mill.store, 30)
    mill.until(lambda: column(mill.store, SLEEPING), what="the job to be finishing")

    worker.kill()
    state = mill.store.jobs.get(job_id).state
    _drop(mill.store, "jobs")
    mill.upkeep.start()

    assert not state.final
    mill.final(job_id, 15)
    check(mill.store, job_id)
    assert column(mill.store, "SELECT attempt FROM chunks") == [1]


def test_two_last_chunks_that_end_at_once_finish_the_job(store: Store) -> None:
    """Row 39."""
    for _ in range(30):
        job = queued_job(store, 10, per_chunk=5)
        held = claim(store, chunks=2)
        ready = threading.Barrier(2)
        threads = [threading.Thread(target=_complete, args=(store, each, ready)) for each in held]

        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert store.jobs.get(job.id).state is JobState.COMPLETED
    assert store.check() == []


def _complete(store: Store, held: Claim, ready: threading.Barrier) -> None:
    results = [ok(seq) for seq in range(held.seq_lo, held.seq_hi)]
    ready.wait()
    store.chunks.save([Save(held.chunk_id, held.token, results, True)])
    store.jobs.finish(held.job_id)


def _slow_saving(store: Store, timing: str) -> None:
    _write(store, _WAIT.format(name="wait_result", when="mod(NEW.seq, 20) = 19"))
    _write(
        store,
        f"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON results {timing} FOR EACH ROW EXECUTE FUNCTION wait_result()",
    )


def _drop(store: Store, table: str) -> None:
    """Take the slow trigger away; waits until the statements that are in it have ended."""
    _write(store, f"DROP TRIGGER slow ON {table}")


def _write(store: Store, statement: str) -> None:
    store._db.write(lambda connection: connection.exec_driver_sql(statement))

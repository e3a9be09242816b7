"""Workers that are told to end, in every phase of their work: row 33 of the fault list."""

import os
import signal
import time

import psutil
import pytest

from tests.checker import check, column, rows
from tests.corpora import model, submit
from tests.deployment import Deploy, Deployment, Worker

pytestmark = pytest.mark.servers

RUNNING = "SELECT id FROM chunks WHERE state = 'running'"
COMMITTING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
SLOW_COMMIT = (
    """CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END $$""",
    """CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON results DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.seq = 3) EXECUTE FUNCTION slow()""",
)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_an_idle_worker_ends_at_once(deploy: Deploy) -> None:
    """Row 33. SIGTERM idle."""
    mill = deploy()
    worker = mill.start()

    assert worker.stop(8) == 0


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_sigterm_in_mid_chunk_gives_work_back_without_blame(deploy: Deploy) -> None:
    """Row 33. SIGTERM in mid-chunk."""
    mill = deploy(grace_s=0.3)
    worker, job_id = _at_work(mill)

    code = worker.stop()

    assert code == 0
    _nobody_is_blamed(mill)
    mill.start()
    mill.final(job_id, 60)
    check(mill.store, job_id)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_model_that_loads_longer_than_the_grace_period_is_not_waited_for(deploy: Deploy) -> None:
    """Row 33. SIGTERM during model load."""
    mill = deploy(grace_s=1.0)
    job_id = submit(mill.store, 40, model=model(mill.store, load_s=3600))
    worker = mill.start()
    mill.until(lambda: column(mill.store, RUNNING), what="the work to be taken")

    told = time.monotonic()
    code = worker.stop()

    assert code == 0
    assert time.monotonic() - told < 12
    _nobody_is_blamed(mill)
    model(mill.store)
    mill.start()
    mill.final(job_id, 60)
    check(mill.store, job_id)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_commit_under_way_is_waited_for(deploy: Deploy) -> None:
    """Row 33. SIGTERM during COMMIT."""
    mill = deploy(lease_s=20.0)
    for statement in SLOW_COMMIT:
        _execute(mill, statement)
    worker = mill.start()
    job_id = submit(mill.store, 40)
    mill.until(lambda: column(mill.store, COMMITTING), what="a save to be under way")

    code = worker.stop()

    assert code == 0
    _nobody_is_blamed(mill)
    assert column(mill.store, "SELECT attempt FROM chunks") == [1]
    mill.final(job_id, 5)
    check(mill.store, job_id)
    _execute(mill, "DROP FUNCTION slow CASCADE")


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([signal.SIGTERM, signal.SIGTERM], id="SIGTERM twice"),
        pytest.param([signal.SIGTERM, signal.SIGQUIT], id="SIGTERM, then SIGQUIT"),
        pytest.param([signal.SIGINT], id="SIGINT", marks=pytest.mark.thorough),
        pytest.param([signal.SIGINT, signal.SIGINT], id="SIGINT twice", marks=pytest.mark.thorough),
        pytest.param([signal.SIGQUIT], id="SIGQUIT"),
    ],
)
@pytest.mark.parametrize("hinted", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_signals_leave_nothing_running_and_nobody_blamed(
    deploy: Deploy, numbers: list[signal.Signals], *, hinted: bool
) -> None:
    """Row 33. Twice, SIGINT, SIGQUIT; in a shift that a hint started, and in one of the worker's own."""
    hurried = signal.SIGQUIT in numbers or numbers == [signal.SIGINT] * 2
    mill = deploy(grace_s=60.0 if hurried else 1.0, idle_claim_s=3600 if hinted else 0.2)
    worker, job_id = _at_work(mill, hinted=hinted)

    told = time.monotonic()
    for number in numbers:
        os.killpg(worker.pid, number)
        time.sleep(0.3)
    code = worker.wait(30)

    assert code == 0, worker.said()[-3000:]
    assert time.monotonic() - told < 15
    _nobody_is_blamed(mill)
    mill.settings = mill.settings.model_copy(update={"idle_claim_s": 0.5})
    mill.start()
    mill.final(job_id, 60)
    check(mill.store, job_id)


@pytest.mark.thorough
@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_signal_to_the_whole_group_ends_the_worker_with_what_it_started(deploy: Deploy) -> None:
    """Row 33. To the whole group."""
    mill = deploy(grace_s=1.0)
    worker, _ = _at_work(mill)
    below = psutil.Process(worker.pid).children(recursive=True)

    os.killpg(worker.pid, signal.SIGTERM)

    assert worker.wait() == 0
    assert not any(process.is_running() for process in below)
    _nobody_is_blamed(mill)


def _at_work(mill: Deployment, *, hinted: bool = False) -> tuple[Worker, str]:
    """A worker in mid-chunk, and its job."""
    worker = mill.start()
    if hinted:
        mill.until(lambda: "ready" in worker.said(), what="the consumer")
    job_id = submit(mill.store, 400, per_chunk=100, model=model(mill.store, delay_s=0.1, max_items=8))
    if hinted:
        mill.hint()
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok > 0, what="a first result")
    return worker, job_id


def _execute(mill: Deployment, statement: str) -> None:
    mill.store._db.write(lambda connection: connection.exec_driver_sql(statement))


def _nobody_is_blamed(mill: Deployment) -> None:
    assert rows(mill.store, "SELECT sum(crashes), sum(errors), count(lease_until) FROM chunks")[0] == (0, 0, 0)
    assert column(mill.store, RUNNING) == []

"""`textmill worker`: what it does when its worker dies, hangs or cannot run, and when it is told to end or killed."""

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from jobs.endings import GAVE_UP, UNFIT
from tests.checker import check, column, rows
from tests.corpora import model, submit
from tests.deployment import Deploy, Deployment
from tests.faults.supervised import Supervised, altered, health
from tests.servers import free_port

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)]


@pytest.fixture
def mill(deploy: Deploy) -> Deployment:
    """A deployment whose upkeep is the workers' own."""
    return deploy(grace_s=2.0)


@pytest.fixture
def textmill(mill: Deployment) -> Iterator[Supervised]:
    with Supervised(mill) as started:
        yield started


def test_a_killed_worker_is_replaced_and_the_reason_is_told_everywhere(mill: Deployment, textmill: Supervised) -> None:
    """Row 1. The supervised way: nobody has to start anything."""
    job_id = submit(mill.store, 400, per_chunk=16, model=model(mill.store, delay_s=0.05, max_items=8))
    first = textmill.worker()
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok > 0, what="a first result")

    os.kill(first, signal.SIGKILL)

    second = textmill.worker(other_than=first)
    mill.final(job_id, 60)
    check(mill.store, job_id)
    assert "signal 9: killed" in textmill.said()
    mill.until(lambda: mill.store.workers.ended(60), what="the reason in the database")
    assert [(row.pid, row.state) for row in mill.store.workers.ended(60)] == [
        (first, "ended: signal 9: killed, perhaps for lack of memory")
    ]
    assert {row.pid for row in mill.store.workers.live(60)} == {second}


def test_a_worker_that_is_stopped_dead_looks_hung_and_is_replaced(deploy: Deploy) -> None:
    """Row 31. A process that gets no turn at all cannot end itself; its supervisor does."""
    mill = deploy(step_timeout_s=1.0)
    quick = altered(mill, "import worker.machine; worker.machine.QUIET_S = 3.0")
    with Supervised(mill, **quick) as textmill:
        first = textmill.worker()
        assert health(mill.settings.home, "live")[0] == 0

        os.kill(first, signal.SIGSTOP)
        textmill.until(lambda: "hangs" in textmill.said(), 60, what="the hang to be noticed")
        second = textmill.worker(other_than=first)

        assert second != first
        assert not psutil.pid_exists(first)
        mill.until(lambda: mill.store.workers.ended(60), what="the reason in the database")
        assert "hung: it was silent" in mill.store.workers.ended(60)[0].state


def test_a_supervisor_that_is_killed_leaves_no_worker_behind(mill: Deployment, textmill: Supervised) -> None:
    job_id = submit(mill.store, 400, per_chunk=16, model=model(mill.store, delay_s=0.1, max_items=4))
    worker = psutil.Process(textmill.worker())
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok > 0, what="a first result")

    os.kill(textmill.pid, signal.SIGKILL)

    psutil.wait_procs([worker], timeout=15)
    assert not worker.is_running()
    assert rows(mill.store, "SELECT sum(crashes), sum(errors), count(lease_until) FROM chunks")[0] == (0, 0, 0)


def test_told_once_it_finishes_what_fits_and_told_twice_it_hurries(deploy: Deploy) -> None:
    """Row 33."""
    mill = deploy(grace_s=60.0)
    submit(mill.store, 2000, per_chunk=200, model=model(mill.store, delay_s=0.1, max_items=4))
    with Supervised(mill) as textmill:
        textmill.worker()
        mill.until(lambda: column(mill.store, "SELECT id FROM chunks WHERE state = 'running'"), what="work")

        textmill.signal(signal.SIGTERM)
        time.sleep(2)
        assert textmill.alive
        told_twice = time.monotonic()
        textmill.signal(signal.SIGTERM)
        code = textmill.wait()

    assert code == 0, textmill.said()
    assert time.monotonic() - told_twice < 10
    assert rows(mill.store, "SELECT sum(crashes), sum(errors), count(lease_until) FROM chunks")[0] == (0, 0, 0)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_every_signal_to_end_ends_worker_and_supervisor_with_0(
    mill: Deployment, textmill: Supervised, number: signal.Signals
) -> None:
    """Row 33."""
    worker = psutil.Process(textmill.worker())

    os.killpg(textmill.pid, number)

    assert textmill.wait() == 0, textmill.said()
    assert not worker.is_running()


def test_a_worker_that_cannot_run_here_is_not_tried_again(mill: Deployment) -> None:
    with Supervised(mill, REMAP_SIGTERM="SIGQUIT") as textmill:
        code = textmill.wait()

    assert code == UNFIT
    assert "REMAP_SIGTERM" in textmill.said()
    assert textmill.said().count("cannot start") == 1


@pytest.mark.thorough  # its waits between five starts are 21 s
def test_a_worker_that_dies_before_it_is_ready_is_given_up_loudly(mill: Deployment) -> None:
    with Supervised(mill, **altered(mill, "import os; os.kill(os.getpid(), 11)")) as textmill:
        code = textmill.wait(90)

    assert code == GAVE_UP
    assert textmill.said().count("segmentation fault") == 5
    assert "CRITICAL" in textmill.said()


def test_one_process_is_what_one_asks_for(mill: Deployment) -> None:
    with Supervised(mill, "--one") as textmill:
        assert textmill.worker() == textmill.pid

        os.kill(textmill.pid, signal.SIGKILL)

        assert textmill.wait() == -signal.SIGKILL


def test_a_dead_database_is_no_reason_to_be_restarted_but_keeps_a_worker_from_being_ready(deploy: Deploy) -> None:
    mill = deploy()
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    with Supervised(mill, TEXTMILL_DATABASE_URL=nowhere) as textmill:
        textmill.until(lambda: "waiting for the database" in textmill.said(), what="the worker to wait")
        time.sleep(1.5)

        assert health(mill.settings.home, "live")[0] == 0
        code, said = health(mill.settings.home, "ready")

        assert (code, "the database does not answer" in said) == (1, True), said
        textmill.signal(signal.SIGTERM)
        assert textmill.wait() == 0
    assert health(mill.settings.home, "live")[0] == 1

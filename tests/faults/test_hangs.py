"""Devices that are lost, steps that hang, leases that nobody renews: rows 31 and 32 of the fault list."""

import signal
import time
from functools import partial
from pathlib import Path

import pytest

from jobs.pulse import pulses
from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import Deploy
from tests.faults.supervised import Supervised, altered

pytestmark = pytest.mark.servers

LIMIT_S = 1.0
BLOCKED = "import time, worker.leases; worker.leases.Leases._renewed = lambda self: time.sleep(86400)"
KILLED = "import sys, worker.leases; worker.leases.Leases._renewed = lambda self: sys.exit('killed')"


@pytest.mark.parametrize(
    ("mark", "codes", "said"),
    [
        ("[[lost]]", {70}, "exit 70: device lost"),
        ("[[hang]]", {75}, "exit 75: no progress in time"),
        ("[[hang_gil 60]]", {1, 75}, "Timeout"),
    ],
)
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_what_cannot_go_on_ends_the_process_with_its_code_in_time(
    deploy: Deploy, mark: str, codes: set[int], said: str
) -> None:
    """Row 31. The process exits with its code within the limit + 5 s, and says where it was."""
    mill = deploy(step_timeout_s=LIMIT_S)
    submit(mill.store, ["fine", mark], model=model(mill.store))
    worker = mill.start()
    mill.until(lambda: column(mill.store, "SELECT started_at FROM chunks WHERE state <> 'pending'"), what="a claim")

    started = time.monotonic()
    code = worker.wait(30)

    assert code in codes
    assert time.monotonic() - started < LIMIT_S + 5 + 2.5  # and the last words' time, on a busy machine
    assert said in worker.said() or code == 75
    if code != 70:
        assert "fake.py" in worker.said()  # the stack
    if code != 1:
        assert "ended: " in column(mill.store, "SELECT state FROM workers")[0]


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "mark",
    [
        pytest.param("[[hang]]", marks=pytest.mark.thorough),
        pytest.param("[[lost]]", marks=pytest.mark.thorough),
        pytest.param("[[hang_gil 60]]", marks=pytest.mark.thorough),
    ],
)
def test_what_hung_is_run_elsewhere_and_its_neighbours_are_well(deploy: Deploy, mark: str) -> None:
    """Row 31. The chunk runs elsewhere; only the item that did it is poison."""
    mill = deploy(step_timeout_s=LIMIT_S, lease_s=1.0)
    texts = ["fine", mark, "fine too", "and this"]
    job_id = submit(mill.store, texts, per_chunk=4, model=model(mill.store))
    mill.upkeep.start()

    with Supervised(mill) as textmill:
        mill.final(job_id, 120)
        check(mill.store, job_id, poison={1})
        assert textmill.alive
        # The one that hung may still be on its way out when its lease is over and the job with it.
        textmill.until(partial(_idle, mill.settings.home), what="a worker that is well")
        textmill.signal(signal.SIGTERM)
        assert textmill.wait() == 0


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "broken",
    [pytest.param(BLOCKED, id="blocked"), pytest.param(KILLED, id="killed", marks=pytest.mark.thorough)],
)
def test_a_worker_whose_leases_are_not_renewed_fences_itself(deploy: Deploy, broken: str) -> None:
    """Row 32. It gives up what it can no longer renew, writes nothing late, and another does the work once."""
    mill = deploy(lease_s=2.0)
    job_id = submit(mill.store, 120, per_chunk=120, model=model(mill.store, delay_s=0.2, max_items=4))
    mill.upkeep.start()
    lame = mill.start(**altered(mill, broken))
    mill.until(lambda: column(mill.store, "SELECT worker_id FROM chunks WHERE state = 'running'"), what="a claim")

    mill.until(lambda: "given up" in lame.said() or "not renewed any more" in lame.said(), what="the fence")
    lame.signal(signal.SIGSTOP)
    mill.start()
    mill.final(job_id, 60)
    lame.signal(signal.SIGCONT)

    check(mill.store, job_id)
    assert lame.stop() == 0
    check(mill.store, job_id)


def _idle(home: Path) -> bool:
    return any(seen.role == "worker" and seen.facts["state"] == "idle" for seen in pulses(home))

"""Clocks that are wrong, and times when nobody works: rows 35 and 40 of the fault list."""

import os
import re
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import Deploy, sqlite_when_thorough

pytestmark = pytest.mark.servers

WRONG_CLOCK = '''
import os, random, time

_real, _offset = time.time, float(os.environ["WRONG_BY_S"])
_monotonic = time.monotonic

def _wrong():
    """Jumps to and fro every second; `WRONG_BY_S` is how far."""
    jump = 1 if os.environ["JUMPING"] == "no" or int(_monotonic()) % 2 else -1
    return _real() + jump * _offset

time.time = _wrong
time.time_ns = lambda: int(_wrong() * 1e9)
'''
"""A `sitecustomize` for worker processes: their wall clock is wrong, as far as Python code can see it."""


@pytest.mark.parametrize(
    ("wrong_by_s", "jumping"),
    [
        pytest.param(3600, "yes"),
        pytest.param(3600, "no", marks=pytest.mark.thorough),
        pytest.param(-3600, "no", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_workers_wrong_clock_makes_no_lease_end_early(
    deploy: Deploy, tmp_path: Path, wrong_by_s: int, jumping: str
) -> None:
    """Row 35. Upkeep, which reaps, runs in that worker too."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WRONG_CLOCK)
    mill = deploy()
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    worker = mill.start(PYTHONPATH=path, WRONG_BY_S=str(wrong_by_s), JUMPING=jumping)
    job_id = submit(mill.store, 240, per_chunk=24, model=model(mill.store, delay_s=0.2, max_items=12))

    mill.final(job_id, 40)

    check(mill.store, job_id)
    assert column(mill.store, "SELECT max(attempt) FROM chunks") == [1]
    assert column(mill.store, "SELECT max(crashes) FROM chunks") == [0]
    assert "given up" not in worker.said()
    logged = re.search(r"^(\S+ \S+),\d+ INFO textmill.worker: worker", worker.said(), re.MULTILINE)
    assert logged, "the worker did not say when it started"
    assert abs((datetime.fromisoformat(logged[1]) - datetime.now()).total_seconds()) > 3000


@sqlite_when_thorough
@pytest.mark.parametrize(("times", "n_workers"), [(1, 1), pytest.param(3, 4, marks=pytest.mark.thorough)])
def test_when_all_workers_are_gone_for_two_leases_nobody_is_blamed(deploy: Deploy, times: int, n_workers: int) -> None:
    """Row 40. Every worker dies in mid-batch, several times on end."""
    mill = deploy(lookahead_items=64)
    slow = model(mill.store, delay_s=0.1, max_items=8)
    job_id = submit(mill.store, 400, per_chunk=16, model=slow)

    for _ in range(times):
        done = mill.store.jobs.get(job_id).counts.ok
        workers = [mill.launch() for _ in range(n_workers)]
        mill.until(lambda before=done: mill.store.jobs.get(job_id).counts.ok > before, what="some results")
        for worker in workers:
            worker.kill()
        time.sleep(mill.settings.lease_s * 2.1)
    mill.launch()

    mill.final(job_id, 60)
    check(mill.store, job_id)
    # Of several that are started at once, one may read a dead worker's note before another has given its chunks back:
    # what was in flight is then a suspect, which runs alone, is never split and, since `check` passed, no poison.
    blamed = "state = 'split'" + (" OR crashes > 0" if n_workers == 1 else "")
    assert column(mill.store, f"SELECT count(*) FROM chunks WHERE {blamed}") == [0]
    assert column(mill.store, "SELECT max(attempt) FROM chunks")[0] > 1

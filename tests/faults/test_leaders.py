"""Who does upkeep, when several do and when the one that does is gone: row 36 of the fault list."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.upkeep import ROLE, Upkeep
from tests.checker import check, column
from tests.corpora import submit
from tests.deployment import Deploy, Deployment
from tests.faults.supervised import environment
from tests.rows import claim

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)]

HOLDER = f"SELECT holder FROM leaders WHERE role = '{ROLE}'"
TAKEOVER_S = 20.0
"""With the default time of a leadership, 10 s."""


class UpkeepProcess:
    """One `textmill upkeep`."""

    def __init__(self, mill: Deployment, log: Path) -> None:
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from jobs.cli import main; main()", "upkeep"],
                env=environment(mill),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def __enter__(self) -> "UpkeepProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def leads(self, mill: Deployment) -> bool:
        return any(holder.endswith(f":{self.process.pid}") for holder in column(mill.store, HOLDER))


@pytest.fixture
def impostors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every candidate believes that it leads, as two do for a moment when a leader was stopped."""
    with monkeypatch.context() as patched:
        patched.setattr(Upkeep, "_leads", lambda self: True)
        yield


@pytest.mark.usefixtures("impostors")
def test_two_that_lead_at_once_do_no_harm(deploy: Deploy) -> None:
    """Row 36. Reaping, finishing and topping up, each done by three at the same time."""
    mill = deploy(lease_s=1.0)
    rivals = [Upkeep(mill.store, mill.queue, mill.settings, f"rival {number}") for number in range(3)]
    job_ids = [submit(mill.store, 30, per_chunk=2) for _ in range(4)]
    lost = claim(mill.store, chunks=8, lease_s=1.0)
    for rival in rivals:
        rival.start()

    mill.until(lambda: not column(mill.store, "SELECT id FROM chunks WHERE state = 'running'"), what="the reaping")
    mill.start()
    for job_id in job_ids:
        mill.final(job_id)
    for rival in rivals:
        rival.stop()

    for job_id in job_ids:
        check(mill.store, job_id)
    assert lost
    assert max(column(mill.store, "SELECT crashes FROM chunks")) <= 1
    assert mill.queue.depth("default") <= 3 * (2 + 4)


@pytest.mark.parametrize(("ttl_s", "bound_s"), [(1.0, 8.0), pytest.param(10.0, TAKEOVER_S, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("how", [signal.SIGSTOP, pytest.param(signal.SIGKILL, marks=pytest.mark.thorough)])
def test_a_leader_that_is_stopped_is_followed_by_another(
    deploy: Deploy, tmp_path: Path, ttl_s: float, bound_s: float, how: signal.Signals
) -> None:
    """Row 36. Takeover within 20 s with the default time of a leadership."""
    mill = deploy(leader_ttl_s=ttl_s, upkeep_s=0.5)
    with UpkeepProcess(mill, tmp_path / "one.log") as first:
        mill.until(lambda: first.leads(mill), what="the first to lead")
        with UpkeepProcess(mill, tmp_path / "two.log") as second:
            mill.until(lambda: "upkeep: every" in (tmp_path / "two.log").read_text(), what="the second to be there")

            first.process.send_signal(how)
            stopped = time.monotonic()
            mill.until(lambda: second.leads(mill), what="the second to lead")

            assert time.monotonic() - stopped < bound_s
            first.process.send_signal(signal.SIGCONT)
            second.process.terminate()
            assert second.process.wait(20) == 0
    assert "Traceback" not in (tmp_path / "one.log").read_text() + (tmp_path / "two.log").read_text()

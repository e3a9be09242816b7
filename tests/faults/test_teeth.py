"""The suite bites: with a guard taken out of the product it fails, and says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.sabotage import GUARDS, VARIABLE

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
MODEL = "tests/faults/test_state_machine.py::test_any_verbs_in_any_order_leave_what_the_model_says"
PROCESSES = "tests/faults/test_processes.py"
RACES = "tests/jobs/test_store_races.py"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("guard", "test", "said"),
    [
        ("fence", f"{MODEL}[sqlite-80-50]", "assert self.store.chunks.save(saves) == present"),
        pytest.param(
            "second look",
            f"{RACES}::test_two_reapers_blame_a_crash_once[postgresql]",
            "assert sum(one.pending for one in reaped) == 20",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            "later finish",
            f"{PROCESSES}::test_two_last_chunks_that_end_at_once_finish_the_job[postgresql]",
            "state is JobState.COMPLETED",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            "skip",
            "tests/faults/test_given_back.py::test_a_chunk_goes_on_where_the_worker_before_left_it[postgresql]",
            "I1: an item that has a result ran again",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_a_guard_taken_out_is_noticed(guard: str, test: str, said: str) -> None:
    """Row 45."""
    done = _run(test, guard)

    assert done.returncode == 1, done.stdout[-3000:]
    assert said in done.stdout, done.stdout[-6000:]


def test_every_guard_has_its_test() -> None:
    """Row 45."""
    (marked,) = test_a_guard_taken_out_is_noticed.pytestmark[:1]  # type: ignore[attr-defined]
    tried = {getattr(each, "values", each)[0] for each in marked.args[1]}

    assert tried == GUARDS.keys()


def _run(test: str, guard: str) -> "subprocess.CompletedProcess[str]":
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.faults.sabotage",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [*command, "-m", "", "--seed", "1", test],
        cwd=ROOT,
        env={**environment, VARIABLE: guard},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )

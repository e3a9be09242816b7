"""`import jobs` is light and quick, and has the public names and no others."""

import subprocess
import sys

import pytest

import jobs

TIMED = "import time; start = time.perf_counter(); import jobs; print(time.perf_counter() - start)"


def test_importing_jobs_takes_a_moment() -> None:
    taken = [float(subprocess.check_output([sys.executable, "-c", TIMED])) for _ in range(3)]

    assert min(taken) < 0.5


def test_every_public_name_is_there() -> None:
    assert {name: getattr(jobs, name).__name__ for name in jobs.__all__} == {name: name for name in jobs.__all__}
    assert dir(jobs) == sorted(jobs.__all__)


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        _ = jobs.Klient

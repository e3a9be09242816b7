"""A SQLite file with many writers, under an outside lock, on a full disk, and killed over: rows 13 and 14."""

import random
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from jobs.store import Store
from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import Deploy, Deployment, Worker
from tests.disks import SmallDisk

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)]

FULL = ("the disk of the database is full", "disk I/O error")
"""What the worker says: the second where its files may not grow."""
CHECKPOINTS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=15)
print("ready", flush=True)
while True:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with SmallDisk(folder, 64) as made:
        yield made


@pytest.fixture
def sqlite_url(disk: SmallDisk) -> str:
    """The file lies on a small disk of its own, where one can be mounted."""
    url = f"sqlite:///{disk.folder / 'textmill.db'}"
    Store.open(url).close()
    return url


@pytest.mark.parametrize(
    ("n_workers", "seconds"), [(2, 2.5), pytest.param(8, 5.0, marks=pytest.mark.thorough, id="thorough")]
)
def test_many_writers_and_an_outside_lock_are_waited_for(deploy: Deploy, n_workers: int, seconds: float) -> None:
    """Row 13. The lock lasts longer than a lease."""
    mill = deploy(lookahead_items=32, lease_s=min(seconds, 4.0))
    mill.upkeep.start()
    workers = [mill.launch() for _ in range(n_workers)]
    for worker in workers:
        mill.until(lambda worker=worker: mill._is_up(worker), 120, what="a worker", worker=worker)  # type: ignore[misc]
    job_id = submit(mill.store, 160 * n_workers, per_chunk=4, model=model(mill.store, delay_s=0.05, max_items=4))
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok, what="a first result")

    with closing(sqlite3.connect(_path(mill), isolation_level=None, timeout=15)) as outside:
        outside.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        outside.execute("COMMIT")

    mill.final(job_id, 90)
    check(mill.store, job_id)
    _check_unblamed(mill)
    assert "locked" not in mill.said()
    assert "Traceback" not in mill.said()
    assert all(worker.alive for worker in workers)


def test_a_full_disk_is_told_and_waited_for(deploy: Deploy, disk: SmallDisk) -> None:
    """Row 14. Who may not mount a small disk limits the size of the files that the worker may write."""
    mill = deploy(lookahead_items=512)
    mill.upkeep.start()
    worker = mill.start()
    job_id = submit(
        mill.store,
        [{"text": f"item {n}", "pad": f"{n:04d}" * 250} for n in range(3000)],
        per_chunk=64,
        model=model(mill.store, delay_s=0.05, max_items=64),
        keep=("pad",),
    )
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok, what="a first result")

    with _no_room(disk, worker):
        mill.until(lambda: any(word in worker.said() for word in FULL), 60, what="the alarm")
        time.sleep(1)
        during = column(mill.store, "SELECT count(*) FROM results")[0]

    mill.final(job_id, 90)
    check(mill.store, job_id)
    _check_unblamed(mill)
    _check_file(mill)
    assert during < 3000
    assert worker.alive


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.thorough)])
def test_kills_during_a_checkpoint_spoil_nothing(deploy: Deploy, chance: random.Random, times: int) -> None:
    """Row 14. At last the writer is killed as well."""
    mill = deploy()
    mill.upkeep.start()
    worker = mill.start()
    job_id = submit(mill.store, 100 * times, per_chunk=4, model=model(mill.store, delay_s=0.02, max_items=4))
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok, what="a first result")

    for _ in range(times):
        with subprocess.Popen([sys.executable, "-c", CHECKPOINTS, _path(mill)], stdout=subprocess.PIPE) as checkpoints:
            assert checkpoints.stdout is not None
            checkpoints.stdout.readline()
            time.sleep(chance.uniform(0, 0.3))
            checkpoints.kill()
        _check_file(mill)
    worker.kill()
    _check_file(mill)
    mill.start()

    mill.final(job_id, 60)
    check(mill.store, job_id)


@contextmanager
def _no_room(disk: SmallDisk, worker: Worker) -> Iterator[None]:
    """While it lasts, the worker cannot make a file longer."""
    if disk.mounted:
        disk.fill()
        yield
        disk.free()
        return
    process = psutil.Process(worker.pid)
    _, most = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (worker.log.stat().st_size + 64 * 1024, most))
    yield
    process.rlimit(resource.RLIMIT_FSIZE, (most, most))


def _path(mill: Deployment) -> str:
    return str(mill.settings.database_url).removeprefix("sqlite:///")


def _check_unblamed(mill: Deployment) -> None:
    assert column(mill.store, "SELECT count(*) FROM chunks WHERE crashes + errors > 0") == [0], mill.said()


def _check_file(mill: Deployment) -> None:
    with closing(sqlite3.connect(_path(mill), timeout=15)) as outside:
        assert outside.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

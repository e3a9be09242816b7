"""A database whose disk is full for a while: row 10 of the fault list."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import doctor
from jobs.store import Store
from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import Deploy, Deployment
from tests.disks import SmallDisk
from tests.servers import UNPRIVILEGED, Postgres

pytestmark = pytest.mark.servers

SIZE_MB = 32
REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON results FOR EACH ROW EXECUTE FUNCTION refuse()
"""


class Home:
    """A database on a small disk. Who may not mount one has the database refuse results with the same error."""

    def __init__(self, server: Postgres, disk: SmallDisk, folder: Path) -> None:
        self._server, self._disk = server, disk
        self.real = disk.mounted
        self.url = server.create_database()
        self._name = self.url.rsplit("/", 1)[1]
        if self.real:
            user = pwd.getpwnam(UNPRIVILEGED)
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._outside("postgres", f"CREATE TABLESPACE small LOCATION '{folder}'")
            self._outside("postgres", f"ALTER DATABASE {self._name} SET TABLESPACE small")
        store = Store.open(self.url)
        store.upgrade()
        store.close()

    def fill(self) -> None:
        if self.real:
            self._disk.fill()
        else:
            self._outside(self._name, REFUSE)

    def free(self) -> None:
        if self.real:
            self._disk.free()
        else:
            self._outside(self._name, "DROP FUNCTION refuse CASCADE")

    def _outside(self, database: str, statement: str) -> None:
        with self._server.connect(database) as connection:
            connection.execute(statement)


@pytest.fixture
def home() -> Iterator[Home]:
    with Postgres() as server:
        folder = server.folder / "small"
        folder.mkdir()
        with SmallDisk(folder, SIZE_MB) as disk:
            yield Home(server.start(), disk, folder)
            server.kill()


@pytest.fixture
def store_url(home: Home) -> str:
    """Takes the place of the shared server in `deploy`."""
    return home.url


def test_a_full_disk_is_told_and_waited_for(deploy: Deploy, home: Home) -> None:
    """Row 10."""
    mill = deploy(lookahead_items=512)
    mill.upkeep.start()
    worker = mill.start()
    job_id = _padded_job(mill)

    home.fill()
    mill.until(lambda: "the disk of the database is full" in worker.said(), what="the alarm", timeout_s=60)
    during = _results(mill.store)
    found = doctor._look("database", lambda: doctor._database(mill.settings))
    home.free()

    mill.final(job_id, 90)
    check(mill.store, job_id)
    assert set(column(mill.store, "SELECT crashes + errors FROM chunks")) == {0}
    assert during < 3000
    assert worker.alive
    assert "Traceback" not in worker.said()
    if home.real:
        assert found.wrong
        assert "the disk of the database is full" in found.text


def _padded_job(mill: Deployment) -> str:
    """3,000 items whose results are a kilobyte each, begun."""
    slow = model(mill.store, delay_s=0.05, max_items=64)
    items: list[str | dict[str, Any]] = [{"text": f"item {n}", "pad": f"{n:04d}" * 250} for n in range(3000)]
    job_id = submit(mill.store, items, per_chunk=64, model=slow, keep=("pad",))
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok, what="a first result")
    return job_id


def _results(store: Store) -> int:
    return int(column(store, "SELECT count(*) FROM results")[0])

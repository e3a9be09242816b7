"""Workers and databases of different versions: row 42 of the fault list.

A worker refuses to start on a database of another revision, older or newer, and says what to do. One that runs while
the database is upgraded goes on: migrations only add what its statements do not name.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from jobs.endings import UNFIT
from jobs.store import Store, migrate
from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import Deployment
from tests.servers import Postgres

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
BEFORE = str(ScriptDirectory.from_config(migrate.config()).get_revision(migrate.HEAD).down_revision)
"""The revision before the newest."""
NEXT = ("ALTER TABLE chunks ADD COLUMN later_on text", "ALTER TABLE jobs ADD COLUMN later_on text")
"""What a migration of the next version may do while this one's workers run."""
Make = Callable[[str], Deployment]


@pytest.fixture
def make(tmp_path: Path, postgres: Postgres) -> Iterator[Make]:
    """Makes a deployment on a database of its own, at this revision."""
    made: list[tuple[Deployment, str]] = []

    def deployment(revision: str) -> Deployment:
        url = postgres.create_database()
        store = Store.open(url)
        _alembic(store, lambda config: command.upgrade(config, revision))
        store.close()
        made.append((Deployment(tmp_path / "home", url, lookahead_items=20), url))
        return made[-1][0]

    yield deployment
    for mill, url in made:
        mill.close()
        postgres.drop_database(url)


def test_a_worker_refuses_an_older_database_and_a_newer_one(make: Make) -> None:
    """Row 42."""
    mill = make(BEFORE)

    older = mill.launch()
    assert older.wait(60) == UNFIT
    mill.store.upgrade()
    _write(mill.store, "UPDATE alembic_version SET version_num = '9999'")
    newer = mill.launch()
    assert newer.wait(60) == UNFIT

    assert f"the database is at revision {BEFORE}, this code wants {migrate.HEAD}; run `textmill db" in older.said()
    assert f"the database is at revision 9999, this code wants {migrate.HEAD}" in newer.said()


@pytest.mark.thorough
def test_a_worker_goes_on_while_the_next_version_upgrades_the_database(make: Make) -> None:
    """Row 42."""
    mill = make(migrate.HEAD)
    job_id = _long_job(mill)
    worker = mill.start()
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok > 0, what="work to be under way")

    for statement in (*NEXT, "UPDATE alembic_version SET version_num = '9999'"):
        _write(mill.store, statement)
    mill.final(job_id, 60)

    check(mill.store, job_id)
    assert "Traceback" not in worker.said()
    assert worker.stop() == 0


@pytest.mark.thorough
def test_a_worker_of_the_version_before_works_beside_one_of_this(make: Make, tmp_path: Path) -> None:
    """Row 42. The older code comes from the repository's history; where there is none, nothing can be tried."""
    old = _code_before(tmp_path)
    mill = make(BEFORE)
    job_id = _long_job(mill)
    older = mill.launch(PYTHONPATH=str(old))
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok, 60, what="the older one to work", worker=older)

    mill.store.upgrade()
    newer = mill.start()
    mill.final(job_id, 90)

    check(mill.store, job_id)
    assert len(set(column(mill.store, "SELECT worker_id FROM chunks"))) == 2
    for worker in (older, newer):
        assert "Traceback" not in worker.said()
        assert worker.stop() == 0


def _long_job(mill: Deployment) -> str:
    return submit(mill.store, 800, per_chunk=10, model=model(mill.store, delay_s=0.1, max_items=5))


def _code_before(tmp_path: Path) -> Path:
    """The code just before the newest migration was added."""
    added = _git("log", "-1", "--diff-filter=A", "--format=%H", "--", f"migrations/versions/{migrate.HEAD}_*")
    if not added or not _git("cat-file", "-t", f"{added}^"):
        pytest.skip("the repository's history is not at hand")
    old = tmp_path / "old"
    old.mkdir()
    archive = tmp_path / "old.tar"
    _git("archive", "-o", str(archive), f"{added}^", "jobs", "worker", "migrations")
    subprocess.run(["tar", "-xf", str(archive), "-C", str(old)], check=True)
    return old


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _alembic(store: Store, do: Callable[..., None]) -> None:
    settings = migrate.config()

    def work(connection: Connection) -> None:
        settings.attributes["connection"] = connection
        do(settings)

    store._db.write(work)


def _write(store: Store, statement: str) -> None:
    store._db.write(lambda connection: connection.exec_driver_sql(statement))

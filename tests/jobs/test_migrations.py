"""Migrations: they make the tables that the code means, once, whoever starts them, from a checkout or a wheel."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import jobs
from jobs.errors import SchemaOutdated
from jobs.store import Store, migrate
from tests.rows import rows
from tests.servers import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create_database()
    yield url
    server.drop_database(url)


def test_the_migrations_make_the_tables_that_the_code_means(store: Store) -> None:
    settings = migrate.config()

    def compare(connection: Connection) -> None:
        settings.attributes["connection"] = connection
        command.check(settings)

    store._db.write(compare)


def test_the_head_written_in_the_code_is_that_of_the_folder() -> None:
    assert ScriptDirectory.from_config(migrate.config()).get_heads() == [migrate.HEAD]


def test_an_upgrade_can_be_repeated_and_undone(empty_url: str) -> None:
    store = Store.open(empty_url)
    store.upgrade()
    store.upgrade()
    store.check_schema()
    settings = migrate.config()

    def down(connection: Connection) -> None:
        settings.attributes["connection"] = connection
        command.downgrade(settings, "base")

    store._db.write(down)
    assert store.revision() is None
    store.upgrade()

    store.check_schema()
    assert store.jobs.list() == []
    store.close()


def test_upgrades_at_once_upgrade_once(empty_url: str) -> None:
    barrier, errors = threading.Barrier(4), list[BaseException]()

    def upgrade() -> None:
        barrier.wait()
        try:
            store = Store.open(empty_url)
            store.upgrade()
            store.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    store = Store.open(empty_url)
    assert len(rows(store, "SELECT version_num FROM alembic_version")) == 1
    store.close()


def test_postgresql_is_upgraded_only_when_asked(postgres: Postgres) -> None:
    store = Store.open(postgres.create_database())

    assert store.revision() is None
    with pytest.raises(SchemaOutdated, match=r"revision none.*db upgrade"):
        store.check_schema()
    store.close()


def test_a_database_of_newer_code_is_refused(store: Store, store_url: str) -> None:
    def age(version: str) -> None:
        store._db.write(
            lambda connection: connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
        )

    age("9999")
    try:
        with pytest.raises(SchemaOutdated, match="9999"):
            store.check_schema()
        with pytest.raises(SchemaOutdated, match="9999"):
            store.upgrade()
    finally:
        age(migrate.HEAD)


def test_the_migrations_inside_a_wheel_are_found(tmp_path: Path) -> None:
    """As `hatch` lays them out: `migrations` inside the package `jobs`."""
    package = Path(jobs.__file__).parent
    shutil.copytree(package, tmp_path / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(migrate.folder(), tmp_path / "jobs" / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "from jobs.store import Store, migrate; print(migrate.folder());"
        f"store = Store.open('sqlite:///{tmp_path}/new.db'); store.check_schema(); store.close()"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "jobs" / "migrations")

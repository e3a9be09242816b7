"""Fixtures shared by every test: private servers for the session, a fresh database and settings for each test."""

import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs.settings import Settings
from tests.servers import Postgres, Valkey

if TYPE_CHECKING:
    from jobs.store import Store
    from tests.deployment import Deploy

MakeSettings = Callable[..., Settings]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, default=1.0, help="how long the soak runs")
    parser.addoption("--seed", type=int, help="repeat the random choices of a run that printed this seed")


def pytest_configure() -> None:
    """A shell's `&` and nohup leave signals ignored, which processes inherit; the tests' processes are to hear them."""
    for ignored in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(ignored) == signal.SIG_IGN:
            signal.signal(ignored, signal.default_int_handler if ignored == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Every random choice of a test. Its seed is printed; `--seed` repeats it."""
    given = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(10**6) if given is None else given
    print(f"seed {seed}")
    return random.Random(f"{seed}/{request.node.nodeid}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this process's own."""
    with Postgres() as server:
        yield server.start()


@pytest.fixture(scope="session")
def postgres_database(postgres: Postgres) -> str:
    """The URL of a database with every migration applied; emptied for each test, ten times quicker than a new one."""
    from jobs.store import Store

    url = postgres.create_database()
    store = Store.open(url)
    store.upgrade()
    store.close()
    return url


@pytest.fixture
def postgres_url(postgres: Postgres, postgres_database: str) -> str:
    """The URL of a migrated database without rows, and without connections that an earlier test left."""
    postgres.empty_database(postgres_database)
    return postgres_database


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every migration applied, to be copied."""
    from jobs.store import Store

    path = tmp_path_factory.mktemp("template") / "textmill.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh, migrated SQLite file."""
    path = tmp_path / "textmill.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database: the test runs once on each kind."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def store(store_url: str) -> "Iterator[Store]":
    """A store on a fresh database: the test runs once on each kind."""
    from jobs.store import Store

    opened = Store.open(store_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey server of this process's own; tests that stop or fill it start one themselves."""
    with Valkey() as server:
        yield server.start()


@pytest.fixture
def valkey_url(valkey: Valkey) -> str:
    """The URL of an empty Valkey."""
    import redis

    with redis.Redis.from_url(valkey.url, socket_timeout=5) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
def settings(tmp_path: Path) -> MakeSettings:
    """Makes settings with a home of the test's own; keyword arguments override."""

    def make(**overrides: Any) -> Settings:
        return Settings(**{"home": tmp_path / "home", **overrides})

    return make


@pytest.fixture
def deploy(tmp_path: Path, store_url: str, valkey_url: str, request: pytest.FixtureRequest) -> "Iterator[Deploy]":
    """Makes deployments on this test's servers; keyword arguments are settings."""
    from tests.deployment import Deployment

    made: list[Deployment] = []

    def make(*, database_url: str = store_url, redis_url: str = valkey_url, **overrides: Any) -> Deployment:
        prefix = re.sub(r"\W", "_", request.node.name)[:40] + ":"
        home = tmp_path / f"home{len(made)}"
        made.append(Deployment(home, database_url, redis_url, **{"key_prefix": prefix, **overrides}))
        return made[-1]

    yield make
    for each in made:
        each.close()

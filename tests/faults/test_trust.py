"""Nobody in: encrypted connections to both servers, and no password anywhere but where it belongs."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import QueueUnavailable, StoreUnavailable
from jobs.queue import Queue
from jobs.store import Store
from tests.checker import check
from tests.corpora import submit
from tests.deployment import Deploy
from tests.leftovers import check_queue
from tests.servers import Postgres, Valkey
from tests.tls import Authority, Front

pytestmark = pytest.mark.servers

on_postgresql = pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
SECRET = "pA55-w0rd-of-a-test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def redis_front(valkey: Valkey, valkey_url: str, authority: Authority) -> Iterator[Front]:
    with Front(valkey.port, authority) as front:
        yield front


@pytest.fixture
def postgres_front(postgres: Postgres, authority: Authority) -> Iterator[Front]:
    with Front(postgres.port, authority, postgresql=True) as front:
        yield front


@on_postgresql
def test_a_job_runs_over_encrypted_connections_alone(
    deploy: Deploy, postgres_url: str, authority: Authority, redis_front: Front, postgres_front: Front
) -> None:
    """Only hints bring work, so both connections are needed."""
    database = postgres_url.rpartition("/")[2]
    mill = deploy(
        database_url=f"postgresql://postgres@127.0.0.1:{postgres_front.port}/{database}"
        f"?sslmode=verify-full&sslrootcert={authority.path}",
        redis_url=f"rediss://127.0.0.1:{redis_front.port}/0?ssl_ca_certs={authority.path}",
        idle_claim_s=3600,
    )
    worker = mill.start()
    mill.until(lambda: "ready" in worker.said(), what="the consumer", worker=worker)

    job_id = submit(mill.store, 300, per_chunk=32)
    mill.hint()

    mill.final(job_id)
    check(mill.store, job_id)
    check_queue(mill.settings)
    assert worker.stop() == 0


@on_postgresql
def test_servers_that_a_stranger_vouches_for_are_refused(
    deploy: Deploy, tmp_path: Path, postgres_url: str, redis_front: Front, postgres_front: Front
) -> None:
    stranger = Authority(tmp_path)
    database = postgres_url.rpartition("/")[2]
    mill = deploy(redis_url=f"rediss://127.0.0.1:{redis_front.port}/0?ssl_ca_certs={stranger.path}")

    with pytest.raises(QueueUnavailable, match="certificate verify failed"):
        Queue(mill.settings).hint("default")
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        Store.open(
            f"postgresql://postgres@127.0.0.1:{postgres_front.port}/{database}"
            f"?sslmode=verify-full&sslrootcert={stranger.path}"
        ).revision()


@on_postgresql
def test_an_encrypted_redis_is_not_believed_without_an_authority(deploy: Deploy, redis_front: Front) -> None:
    """`rediss://` alone checks against the system's authorities, none of which knows this server."""
    mill = deploy(redis_url=f"rediss://127.0.0.1:{redis_front.port}/0")

    with pytest.raises(QueueUnavailable, match="certificate verify failed"):
        Queue(mill.settings).hint("default")


@pytest.mark.parametrize(
    ("database_url", "redis_url"),
    [
        pytest.param(
            f"postgresql://mill:{SECRET}@127.0.0.1:1/mill",
            f"redis://:{SECRET}@127.0.0.1:1/0",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            f"postgresql://127.0.0.1:1/mill?user=mill&password={SECRET}",
            f"redis://127.0.0.1:1/0?password={SECRET}",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            f"postgresql://mill:{SECRET}@no-such-host.invalid/mill",
            f"redis://u:{SECRET}@no-such-host.invalid:6379/0",
            marks=pytest.mark.thorough,
        ),
        (f"postgresql://mill:{SECRET}@127.0.0.1:port/mill", f"redis://:{SECRET}@127.0.0.1:port/0"),
        pytest.param(
            f"sqlite:///{{home}}/textmill.db?password={SECRET}",
            f"mqtt://:{SECRET}@127.0.0.1:1/0",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_a_password_is_in_no_output_log_or_file(tmp_path: Path, database_url: str, redis_url: str) -> None:
    home = tmp_path / "home"
    urls = {
        "TEXTMILL_HOME": str(home),
        "TEXTMILL_DATABASE_URL": database_url.format(home=home),
        "TEXTMILL_REDIS_URL": redis_url,
        "TEXTMILL_LOG_LEVEL": "debug",
    }
    source = tmp_path / "in.txt"
    source.write_text("a text\n", encoding="utf-8")

    said = [
        _said(urls, [*TEXTMILL, "doctor"]),
        _said(urls, [*TEXTMILL, "list"]),
        _said(urls, [*TEXTMILL, "submit", "classify", str(source), "--model", "fake"]),
        _said(urls, [*TEXTMILL, "db", "upgrade"]),
        _said(urls, [sys.executable, "-P", "-m", "worker", "--one"], timeout_s=6),
        _said(urls, [*TEXTMILL, "upkeep"], timeout_s=3),
    ]

    assert all(said), "every command says something"
    assert [text for text in said if SECRET in text] == []
    assert [text for text in said if "Traceback" in text] == []
    written = [path for path in home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert written == []


def test_a_password_that_works_is_in_no_table_and_no_log(deploy: Deploy, tmp_path: Path) -> None:
    """A broker with a password, a worker that talks to it at the most talkative level, and everything it left."""
    with Valkey(requirepass=SECRET).start() as valkey:
        url = f"redis://:{SECRET}@127.0.0.1:{valkey.port}/0"
        mill = deploy(redis_url=url, log_level="debug")
        worker = mill.start()
        mill.until(lambda: "ready" in worker.said(), what="the consumer", worker=worker)
        job_id = submit(mill.store, 20)
        mill.hint()
        mill.final(job_id)
        check(mill.store, job_id)
        valkey.kill()
        mill.until(lambda: "onnection" in worker.said(), what="the lost connection to be told", worker=worker)
        worker.stop()

    assert SECRET not in worker.said()
    if mill.store.dialect == "sqlite":
        path = mill.settings.effective_database_url.removeprefix("sqlite:///")
        with sqlite3.connect(path) as connection:
            assert SECRET not in "\n".join(connection.iterdump())
        connection.close()


TEXTMILL = [str(Path(sys.executable).parent / "textmill")]


def _said(urls: dict[str, str], command: list[str], timeout_s: float = 60.0) -> str:
    """All that a command writes; one that goes on is ended."""
    environment = {**os.environ, **urls}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        return process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            return process.communicate(timeout=30)[0]
        finally:
            process.kill()

"""docker-compose.yml fits the Compose specification, and its very commands, started by hand, run a job."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.settings import Settings
from tests.servers import Postgres, Valkey

ROOT = Path(__file__).parents[2]
SECRETS = "/run/secrets/"
Compose = dict[str, Any]
Process = subprocess.Popen[bytes]


class ComposeValkey(Valkey):
    """Valkey, started with the arguments that the compose file gives to Redis."""

    def __init__(self, arguments: list[str]) -> None:
        super().__init__()
        self.arguments = arguments

    def _command(self) -> list[str]:
        program = str(next(iter(super()._command())))
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        return [program, *self.arguments, *place]


class Stack:
    """Services of the compose file as plain processes of this machine."""

    def __init__(self, compose: Compose, secrets: Path, home: Path) -> None:
        self.services, self._secrets, self._home = compose["services"], secrets, home
        self.processes: dict[str, Process] = {}

    def start(self, name: str) -> Process:
        """The service's own command in its own environment, as the image's PATH would find it."""
        service = self.services[name]
        program, *arguments = service["command"]
        given = {key: self._mapped(value) for key, value in service["environment"].items()}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("TEXTMILL_")}
        with (self._home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [Path(sys.executable).parent / program, *arguments],
                env=inherited | given,
                cwd=self._home,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def stop(self, name: str) -> int:
        """End the service as Compose would; its exit status. Raises TimeoutExpired after its grace period."""
        service = self.services[name]
        self.processes[name].send_signal(signal.Signals[service["stop_signal"]])
        return self.processes[name].wait(float(service["stop_grace_period"].removesuffix("s")))

    def said(self, name: str) -> str:
        return (self._home / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def kill(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def _mapped(self, value: str) -> str:
        if value.startswith(SECRETS):
            return str(self._secrets / value.removeprefix(SECRETS))
        return value.replace("/var/lib/textmill", str(self._home))


@pytest.fixture(scope="module")
def compose() -> Compose:
    loaded: Compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder that deploy/secrets.sh fills."""
    shutil.copy(ROOT / "deploy" / "secrets.sh", tmp_path)
    subprocess.run(["sh", tmp_path / "secrets.sh"], check=True, stdout=subprocess.DEVNULL)
    return tmp_path / "secrets"


@pytest.fixture
def stack(compose: Compose, secrets: Path, postgres: Postgres, tmp_path: Path) -> Iterator[Stack]:
    """The compose file's services, with the secrets pointing at private servers."""
    arguments = compose["services"]["redis"]["command"][1:]
    with ComposeValkey([part.replace(SECRETS, f"{secrets}/") for part in arguments]).start() as valkey:
        _point(secrets / "redis_url", "@redis:6379", f"@127.0.0.1:{valkey.port}")
        for name in ("database_url", "owner_url"):
            _point(secrets / name, "@postgres:5432", f"@127.0.0.1:{postgres.port}")
        postgres.run_script(ROOT / "deploy" / "postgres-roles.sh", SECRETS=str(secrets))
        started = Stack(compose, secrets, tmp_path)
        yield started
        started.kill()
        with postgres.connect() as connection:
            connection.execute("DROP DATABASE textmill WITH (FORCE)")
            connection.execute("DROP ROLE textmill, textmill_owner")


def _point(secret: Path, host: str, there: str) -> None:
    text = secret.read_text(encoding="utf-8")
    assert host in text
    secret.write_text(text.replace(host, there), encoding="utf-8")


def schema_check(path: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    return subprocess.run(command, capture_output=True, check=False, text=True)


def test_the_file_fits_the_compose_specification() -> None:
    done = schema_check(ROOT / "docker-compose.yml")

    assert done.returncode == 0, done.stdout


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, compose: Compose) -> None:
    wrong = compose | {"services": {"redis": compose["services"]["redis"] | {"stop_grace": "1m"}}}
    (tmp_path / "wrong.yml").write_text(yaml.safe_dump(wrong), encoding="utf-8")

    done = schema_check(tmp_path / "wrong.yml")

    assert done.returncode == 1
    assert "stop_grace" in done.stdout


def test_every_secret_that_a_service_uses_is_written_by_the_script(compose: Compose, secrets: Path) -> None:
    used = {secret for service in compose["services"].values() for secret in service.get("secrets", [])}

    assert used == set(compose["secrets"])
    assert {Path(secret["file"]).name for secret in compose["secrets"].values()} == {p.name for p in secrets.iterdir()}
    assert all((secrets / name).read_text(encoding="utf-8") for name in used)


def test_secrets_are_made_once_and_only_their_folder_s_owner_reaches_them(secrets: Path) -> None:
    before = (secrets / "redis_url").read_text(encoding="utf-8")

    subprocess.run(["sh", secrets.parent / "secrets.sh"], check=True, stdout=subprocess.DEVNULL)

    assert (secrets / "redis_url").read_text(encoding="utf-8") == before
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_no_password_stands_in_the_file_itself(compose: Compose) -> None:
    names = [name for service in compose["services"].values() for name in service.get("environment", {})]

    assert [name for name in names if "PASSWORD" in name or name.endswith("_URL")] == ["POSTGRES_PASSWORD_FILE"]


def test_the_gpu_worker_and_the_api_wait_for_their_profiles(compose: Compose) -> None:
    profiled = {name for name, service in compose["services"].items() if "profiles" in service}
    devices = {name for name, service in compose["services"].items() if "deploy" in service}

    assert (profiled, devices) == ({"worker-gpu", "api"}, {"worker-gpu"})
    reserved = compose["services"]["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]


def test_the_api_is_reached_from_this_machine_alone(compose: Compose) -> None:
    assert compose["services"]["api"]["ports"] == ["127.0.0.1:8460:8460"]


def test_workers_have_time_to_finish_before_they_are_killed(compose: Compose) -> None:
    for name in ("worker", "worker-gpu"):
        service = compose["services"][name]

        assert float(service["environment"]["TEXTMILL_GRACE_S"]) < float(service["stop_grace_period"].removesuffix("s"))


def test_what_needs_tables_starts_after_the_migration(compose: Compose) -> None:
    for name in ("worker", "worker-gpu", "upkeep"):
        assert compose["services"][name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", ["producer", "worker"])
def test_images_are_built_from_the_pins_and_run_as_an_ordinary_user(name: str) -> None:
    lines = (ROOT / "deploy" / f"{name}.Dockerfile").read_text(encoding="utf-8")
    final = lines.rpartition("\nFROM ")[2]
    copied = [word for line in lines.splitlines() if line.startswith("COPY ") for word in line.split()[1:-1]]

    assert "\nUSER textmill" in final
    assert lines.count("pip install") == lines.count("-c constraints.txt")
    assert [path for path in copied if not path.startswith(("--", "/")) and not (ROOT / path).exists()] == []


def test_the_producer_s_image_asks_for_no_machine() -> None:
    text = (ROOT / "deploy" / "producer.Dockerfile").read_text(encoding="utf-8")

    assert "textmill[api,evaluate,otel,postgres]" in text
    assert "[worker" not in text


@pytest.mark.servers
def test_the_file_s_own_commands_run_a_job_and_stop_in_time(stack: Stack, secrets: Path, tmp_path: Path) -> None:
    from jobs import Client

    assert stack.start("migrate").wait(60) == 0, stack.said("migrate")
    stack.start("worker")
    stack.start("upkeep")

    settings = Settings(
        home=tmp_path / "producer",
        database_url=(secrets / "database_url").read_text(encoding="utf-8"),
        redis_url=(secrets / "redis_url").read_text(encoding="utf-8"),
    )
    texts = [f"text {number}" for number in range(700)]
    with Client(settings) as client:
        job = client.submit("classify", texts, model="fake").wait(timeout=60)

    assert job.state == "completed", stack.said("worker")
    assert job.counts.ok == len(texts)
    assert stack.processes["upkeep"].poll() is None, stack.said("upkeep")
    assert [stack.stop(name) for name in ("worker", "upkeep")] == [0, 0], stack.said("worker") + stack.said("upkeep")


@pytest.mark.servers
def test_what_runs_jobs_may_write_rows_and_nothing_else(stack: Stack, secrets: Path) -> None:
    import psycopg

    assert stack.start("migrate").wait(60) == 0, stack.said("migrate")

    with psycopg.connect((secrets / "database_url").read_text(encoding="utf-8"), autocommit=True) as connection:
        connection.execute("DELETE FROM results")
        for forbidden in (
            "DROP TABLE results",
            "TRUNCATE results",
            "ALTER TABLE results ADD COLUMN more text",
            "CREATE TABLE mine (id int)",
            "CREATE ROLE other",
            "COPY results TO PROGRAM 'cat'",
            "CREATE SCHEMA other",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden)


@pytest.mark.servers
def test_redis_answers_strangers_only_that_it_is_alive(stack: Stack, secrets: Path) -> None:
    import redis

    url = (secrets / "redis_url").read_text(encoding="utf-8")
    stranger = redis.Redis.from_url(f"redis://{url.rpartition('@')[2]}", socket_timeout=5)
    known = redis.Redis.from_url(url, socket_timeout=5)

    assert stranger.ping()
    with pytest.raises(redis.exceptions.NoPermissionError):
        stranger.llen("textmill:default")
    with pytest.raises(redis.exceptions.NoPermissionError):
        known.flushall()
    assert known.llen("textmill:default") == 0
    for client in (stranger, known):
        client.close()

"""The systemd units and Kubernetes manifests in deploy/ keep what docs/operations.md promises of them."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.endings import GAVE_UP, MEANINGS, UNFIT
from jobs.store import Store
from tests.corpora import submit
from tests.rows import claim
from worker.supervise import LATE_S

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
SECRETS = "/run/secrets/textmill"
Found = dict[str, Any]


def unit(path: Path) -> dict[str, list[str]]:
    """A unit's settings; those given several times keep every value."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def manifests(kind: str) -> list[Found]:
    loaded = [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    return [each for each in loaded if each["kind"] == kind]


def pod(manifest: Found) -> Found:
    found: Found = manifest["spec"]["template"]["spec"]
    return found


def container(manifest: Found) -> Found:
    (found,) = pod(manifest)["containers"]
    return dict(found)


def variables(manifest: Found) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(manifest)["env"]}


def named(kind: str, name: str) -> Found:
    (found,) = (each for each in manifests(kind) if each["metadata"]["name"] == name)
    return found


# ----- systemd -----


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_started_again_unless_that_is_in_vain(path: Path) -> None:
    found = unit(path)

    prevented = {int(code) for code in found["RestartPreventExitStatus"][0].split()}
    assert UNFIT in prevented
    assert prevented <= {UNFIT, GAVE_UP}
    assert (found["Restart"], found["Type"], found["KillMode"]) == (["always"], ["notify"], ["mixed"])
    assert found["NotifyAccess"] == ["main"]
    assert float(found["WatchdogSec"][0]) >= 60


def test_a_worker_s_unit_waits_longer_than_the_worker_and_its_supervisor_do() -> None:
    found = unit(ROOT / "deploy" / "systemd" / "textmill-worker@.service")

    environment = dict(each.split("=", 1) for each in found["Environment"])
    assert float(found["TimeoutStopSec"][0]) > float(environment["TEXTMILL_GRACE_S"]) + LATE_S


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_no_secret_stands_in_a_unit(path: Path) -> None:
    loaded = dict(each.split(":") for each in unit(path)["LoadCredential"])

    given = [each for each in unit(path)["Environment"] if "_URL" in each]
    assert given == [f"TEXTMILL_{name.upper()}_FILE=%d/{name}" for name in loaded]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_a_unit(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("/opt/textmill/bin/textmill", "/bin/true")
    copy = tmp_path / path.name.replace("@", "@default")
    copy.write_text(text, encoding="utf-8")

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=60, check=False
    )

    assert path.stem.rstrip("@") not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.servers
def test_a_worker_tells_systemd_that_it_is_ready_alive_and_ending(tmp_path: Path, sqlite_url: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "TEXTMILL_DATABASE_URL": sqlite_url}
        with _running(["textmill", "worker"], environment | {"TEXTMILL_GRACE_S": "1"}, tmp_path) as process:
            told = [listener.recv(4096).decode() for _ in range(3)]
            process.terminate()
            assert process.wait(30) == 0
            while "STOPPING=1" not in told[-1]:
                told.append(listener.recv(4096).decode())

    assert told[0] == "READY=1"
    assert told[1].splitlines() == ["WATCHDOG=1", "STATUS=1 of 1 workers run"]


# ----- Kubernetes -----


def test_every_manifest_is_applied_or_needs_keda() -> None:
    listed = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "kustomization.yaml").read_text())["resources"]

    assert {*listed, "keda.yaml", "kustomization.yaml"} == {path.name for path in MANIFESTS}


def test_a_worker_s_pod_waits_longer_than_the_worker_and_its_supervisor_do() -> None:
    worker = named("Deployment", "textmill-worker")

    grace_s = float(variables(worker)["TEXTMILL_GRACE_S"])
    assert pod(worker)["terminationGracePeriodSeconds"] > grace_s + LATE_S


@pytest.mark.parametrize(
    "manifest", manifests("Deployment") + manifests("Job"), ids=lambda each: each["metadata"]["name"]
)
def test_pods_run_as_an_ordinary_user_and_take_secrets_from_files(manifest: Found) -> None:
    assert pod(manifest)["securityContext"]["runAsNonRoot"] is True
    assert pod(manifest)["automountServiceAccountToken"] is False
    assert container(manifest)["securityContext"]["readOnlyRootFilesystem"] is True
    assert container(manifest)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    urls = {name: value for name, value in variables(manifest).items() if "_URL" in name}
    assert urls
    assert all(name.endswith("_FILE") and value.startswith(SECRETS) for name, value in urls.items())


@pytest.mark.parametrize("manifest", manifests("Deployment"), ids=lambda each: each["metadata"]["name"])
def test_selectors_find_their_own_pods_and_a_dead_database_restarts_nobody(manifest: Found) -> None:
    spec = manifest["spec"]

    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    for probe in ("startupProbe", "livenessProbe"):
        assert container(manifest)[probe]["exec"]["command"][:3] == ["textmill", "health", "live"]
    assert container(manifest)["readinessProbe"]["exec"]["command"][:3] == ["textmill", "health", "ready"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_kubectl_understands_the_manifests() -> None:
    command = ["kubectl", "kustomize", str(ROOT / "deploy" / "kubernetes")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    kinds = [each["kind"] for each in yaml.safe_load_all(done.stdout)]
    assert sorted(kinds) == ["Deployment", "Deployment", "Job"]


@pytest.mark.servers
@pytest.mark.parametrize("name", ["textmill-worker", "textmill-upkeep"])
def test_the_manifests_own_commands_run_and_their_probes_answer(name: str, postgres_url: str, tmp_path: Path) -> None:
    manifest = named("Deployment", name)
    for secret, value in (("database_url", postgres_url), ("redis_url", "redis://127.0.0.1:1/0")):
        (tmp_path / secret).write_text(value, encoding="utf-8")
    given = {name: _here(value, tmp_path) for name, value in variables(manifest).items()}
    probes = {probe: container(manifest)[probe]["exec"]["command"] for probe in ("livenessProbe", "readinessProbe")}

    with _running(container(manifest)["command"], given, tmp_path) as process:
        for probe, command in probes.items():
            _until(partial(_succeeds, command, given, tmp_path), f"{name}'s {probe}")
        process.terminate()
        assert process.wait(pod(manifest)["terminationGracePeriodSeconds"]) == 0

    assert {_run(command, given, tmp_path) for command in probes.values()} == {1}


@pytest.mark.servers
def test_keda_counts_what_waits_and_what_runs_on_its_queue(postgres_url: str) -> None:
    import psycopg

    (trigger,) = named("ScaledObject", "textmill-worker")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    store = Store.open(postgres_url)
    submit(store, 60, per_chunk=10)
    submit(store, 50, per_chunk=10, queue="elsewhere")
    claim(store, chunks=2)
    store.close()

    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        counted = connection.execute(query).fetchone()
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}").fetchall())

    assert counted == (6,)
    assert "Seq Scan" not in plan, plan
    assert trigger["type"] == "postgresql"
    assert float(trigger["metadata"]["targetQueryValue"]) > 0


def test_keda_scales_the_worker_that_the_manifest_makes_and_never_by_redis() -> None:
    scaled = named("ScaledObject", "textmill-worker")["spec"]

    assert scaled["scaleTargetRef"]["name"] == named("Deployment", "textmill-worker")["metadata"]["name"]
    assert [each["type"] for each in scaled["triggers"]] == ["postgresql"]
    assert (
        scaled["triggers"][0]["authenticationRef"]["name"] == manifests("TriggerAuthentication")[0]["metadata"]["name"]
    )
    assert "redis" not in str(scaled).lower()


# ----- what people read -----


def test_the_page_of_operations_names_every_exit_code() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

    table = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|", page, flags=re.MULTILINE))
    assert {int(code) for code in table} == set(MEANINGS)


class _running:  # noqa: N801 - reads as a phrase
    """One of the files' own commands as a process of this machine, killed at the end if it still runs."""

    def __init__(self, command: list[str], given: dict[str, str], home: Path) -> None:
        self._log = (home / "said.log").open("wb")
        self._process = subprocess.Popen(
            [*_textmill(command)], env=_environment(given, home), cwd=home, stdout=self._log, stderr=self._log
        )

    def __enter__(self) -> "subprocess.Popen[bytes]":
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _run(command: list[str], given: dict[str, str], home: Path) -> int:
    done = subprocess.run(
        _textmill(command), env=_environment(given, home), cwd=home, capture_output=True, timeout=60, check=False
    )
    return done.returncode


def _succeeds(command: list[str], given: dict[str, str], home: Path) -> bool:
    return _run(command, given, home) == 0


def _textmill(command: list[str]) -> list[str]:
    assert command[0] == "textmill"
    return [sys.executable, "-P", "-c", "from jobs.cli import main; main()", *command[1:]]


def _environment(given: dict[str, str], home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEXTMILL_")}
    return {**inherited, "TEXTMILL_HOME": str(home), **given}


def _here(value: str, folder: Path) -> str:
    return value.replace(SECRETS, str(folder)).replace("/var/lib/textmill", str(folder))


def _until(true: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.5)

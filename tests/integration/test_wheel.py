"""The built wheel, installed outside the checkout, holds everything it needs."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import Postgres

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def textmill(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the installed `textmill` in a folder with spaces and non-ASCII letters, far from the checkout.

    The environment sees this one's dependencies, but not its editable Textmill: `.pth` files there are not followed.
    """
    folder = tmp_path_factory.mktemp("außerhalb des Checkouts 밖")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages = next((venv / "lib").glob("python*/site-packages"))
    own = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    (packages / "dependencies.pth").write_text(f"{own}\n", encoding="utf-8")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TEXTMILL_", "PYTHON"))}

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        start = "import sys; from jobs.cli import main; sys.argv[0] = 'textmill'; sys.exit(main())"
        given = environment | {"TEXTMILL_HOME": str(folder / "home"), **variables}
        return subprocess.run(
            [venv / "bin" / "python", "-c", start, *arguments],
            capture_output=True,
            check=False,
            text=True,
            cwd=folder,
            env=given,
            timeout=120,
        )

    run.folder = folder  # type: ignore[attr-defined]
    return run


def test_the_wheel_holds_both_packages_the_migrations_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    tracked = subprocess.run(
        ["git", "ls-files", "jobs", "worker"], capture_output=True, check=True, text=True, cwd=ROOT
    ).stdout.split()
    assert {name for name in tracked if (ROOT / name).exists()} <= names
    assert {f"jobs/migrations/{path.relative_to(ROOT / 'migrations')}" for path in migrations()} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "examples/", "migrations/"))]


def migrations() -> list[Path]:
    found = [path for path in (ROOT / "migrations").rglob("*") if path.suffix in (".py", ".mako")]
    assert any("versions" in path.parts for path in found)
    return found


@pytest.mark.servers
def test_the_installed_wheel_runs_a_job(textmill: Run) -> None:
    folder: Path = textmill.folder  # type: ignore[attr-defined]
    items = [{"custom_id": f"n{number}", "text": f"text number {number}"} for number in range(300)]
    (folder / "in put.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")

    done = textmill("run", "classify", "in put.jsonl", "-o", "out.jsonl", "--model", "fake")

    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [result["custom_id"] for result in results] == [item["custom_id"] for item in items]
    assert {result["status"] for result in results} == {"ok"}


@pytest.mark.servers
def test_the_installed_wheel_brings_a_postgresql_database_up_to_date(textmill: Run, postgres: Postgres) -> None:
    url = postgres.create_database()

    before = textmill("db", "check", TEXTMILL_DATABASE_URL=url)
    upgrade = textmill("db", "upgrade", TEXTMILL_DATABASE_URL=url)
    after = textmill("db", "check", TEXTMILL_DATABASE_URL=url)

    assert before.returncode == 1
    assert upgrade.returncode == 0, upgrade.stderr
    assert after.returncode == 0, after.stderr
    postgres.drop_database(url)

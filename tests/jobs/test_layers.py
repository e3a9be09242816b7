"""Imports point one way, and a producer loads nothing heavy."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "numpy", "celery", "kombu", "redis", "sqlalchemy", "alembic", "psycopg", "worker")


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout))


def ruff_on(source: str, *, pretended_path: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID253", "--no-cache"]
    return subprocess.run(
        [*command, "--stdin-filename", pretended_path, "-"],
        input=source,
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.parametrize("statement", ["import jobs", "import jobs.tasks.base, jobs.schemas"])
def test_importing_jobs_loads_nothing_heavy(statement: str) -> None:
    loaded = modules_after(statement)

    assert "jobs" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_producer_loads_neither_celery_nor_the_machine() -> None:
    loaded = modules_after("from jobs import *")

    assert "jobs.client" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "numpy", "celery", "worker"})


def test_the_check_of_loaded_modules_sees_a_heavy_one() -> None:
    assert "sqlalchemy" in modules_after("import jobs.store")


def test_every_import_points_the_way_the_layers_allow() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True, cwd=ROOT)

    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_against_the_layers_is_found(tmp_path: Path) -> None:
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "upper.py").touch()
    (package / "lower.py").write_text("import house.upper\n", encoding="utf-8")
    (tmp_path / ".importlinter").write_text(
        "[importlinter]\nroot_package = house\n"
        "[importlinter:contract:1]\nname = layers\ntype = layers\nlayers =\n  house.upper\n  house.lower\n",
        encoding="utf-8",
    )

    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True, cwd=tmp_path)

    assert done.returncode == 1
    assert "house.lower -> house.upper" in done.stdout


@pytest.mark.parametrize("package", ["torch", "celery", "sqlalchemy", "redis", "numpy", "transformers", "openvino"])
def test_a_heavy_import_at_module_level_is_refused(package: str) -> None:
    at_the_top = ruff_on(f"import {package}\n", pretended_path="jobs/somewhere.py")
    when_needed = ruff_on(f"def use():\n    import {package}\n", pretended_path="jobs/somewhere.py")

    assert at_the_top.returncode == 1
    assert "TID253" in at_the_top.stdout
    assert when_needed.returncode == 0, when_needed.stdout


@pytest.mark.parametrize("library", ["ctranslate2", "openvino"])
def test_only_its_engine_imports_an_optional_library(library: str) -> None:
    ours = (path for package in ("jobs", "worker") for path in (ROOT / package).rglob("*.py"))
    imported = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)

    found = {path.parent.relative_to(ROOT).as_posix() for path in ours if imported.search(path.read_text("utf-8"))}

    assert found == {f"worker/engines/{library}"}


def test_the_engines_package_loads_no_engine() -> None:
    loaded = modules_after("import worker.engines; assert 'openvino' in worker.engines.names()")

    assert loaded.isdisjoint({"torch", "transformers", "numpy", "ctranslate2", "openvino"})


def test_no_module_of_the_domain_has_a_heavy_import_at_its_top() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID253", "--no-cache", "jobs", "worker"]

    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=ROOT)

    assert done.returncode == 0, done.stdout

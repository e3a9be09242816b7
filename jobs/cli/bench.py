"""`textmill models bench`: which engine and precision suit a model, measured here on the user's own texts."""

import json
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import options
from jobs.cli.inputs import open_inputs
from jobs.cli.session import registry, store
from jobs.cli.table import table
from jobs.errors import InvalidInput, TextmillError, UnknownModel

if TYPE_CHECKING:
    from jobs.models import ModelSpec
    from jobs.settings import Settings

READ_ONCE, GENERATED = 256, 16
"""Texts that are taken by default: of models that read a text once, and of those that write one."""
UNTOLD = ("revision", "generation", "prompts", "max_input_tokens")
"""What `textmill models add` has no option for."""


@click.command()
@click.argument("model", help=options.ANY_MODEL)
@click.argument("inputs", metavar="[INPUT]...", nargs=-1, help="As for `textmill run`; without: a few sample texts.")
@options.text_field
@click.option(
    "--items", metavar="N", type=click.IntRange(min=1), help="Texts to take from the input's start [256, or 16]."
)
@click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(1, 100),
    default=3,
    help="Each engine answers all texts so often, in turns.",
)
@click.option(
    "--new-tokens", metavar="N", type=click.IntRange(min=1), default=64, help="Most tokens of each generated text."
)
@click.option(
    "--agreement",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    default=0.98,
    help="Share of answers that must equal the reference's.",
)
@options.as_json("The report as one JSON object.")
def bench(
    model: str,
    inputs: tuple[str, ...],
    text_field: str | None,
    items: int | None,
    rounds: int,
    new_tokens: int,
    agreement: float,
    as_json: bool,
) -> None:
    """Measure a model in every engine and precision installed here, and recommend one.

    Reference is engine torch in float32. What is recommended is the fastest of those that answer like it.
    """
    from jobs.settings import load_settings

    settings = load_settings()
    spec = _spec(settings, model)
    most = items or (GENERATED if spec.head == "generate" and spec.engine != "fake" else READ_ONCE)
    order: dict[str, Any] = {"spec": spec.model_dump(mode="json"), "rounds": rounds}
    order |= {"new_tokens": new_tokens, "bound": agreement}
    if inputs:
        order["texts"] = _texts(settings, spec, inputs, text_field, most)
    report = _measured(settings, order)
    click.echo(json.dumps(report | _use(spec, report)) if as_json else _words(spec, report))


def _spec(settings: "Settings", model: str) -> "ModelSpec":
    """The registry's entry; a folder or a Hub id is looked at, and not registered."""
    from jobs.models import inspect

    with store(settings) as opened:
        try:
            return registry(opened, settings).get(model)
        except UnknownModel:
            if "/" not in model:
                raise
    return inspect(model)


def _texts(
    settings: "Settings", spec: "ModelSpec", inputs: Sequence[str], text_field: str | None, most: int
) -> list[str]:
    """The texts of the first items. Raises InvalidInput when there are none."""
    from jobs.corpus import Fields
    from jobs.tasks import find

    main = find(spec.tasks[0]).main_field
    fields = Fields(main=main, text=text_field)
    with open_inputs(inputs, settings, fields, say=lambda text: click.echo(text, err=True)) as source:
        found = list(islice(_main_texts(source, main), most))
    if not found:
        raise InvalidInput(f"{', '.join(inputs)}: no item has a text in {main!r}; name its field with --text-field")
    return found


def _main_texts(source: Any, main: str) -> Iterator[str]:
    for _, line in source:
        if isinstance(line, bytes):
            try:
                item = json.loads(line)
            except (ValueError, RecursionError):
                continue  # `textmill run` says what is wrong with it; here the other texts will do
            text = item if isinstance(item, str) else item.get(main) if isinstance(item, dict) else None
            if isinstance(text, str) and text.strip():
                yield text


def _measured(settings: "Settings", order: dict[str, Any]) -> dict[str, Any]:
    """The machine measures in processes of its own; its progress goes to our stderr."""
    from jobs.local.process import PYTHON, environment

    command = [*PYTHON, "-m", "worker.bench"]
    done = subprocess.run(
        command, input=json.dumps(order).encode(), stdout=subprocess.PIPE, env=environment(settings), check=False
    )
    if done.returncode or not done.stdout.strip():
        raise TextmillError(f"model {order['spec']['name']!r} was not measured; the reason is above")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _words(spec: "ModelSpec", report: dict[str, Any]) -> str:
    reference, best = report["reference"], report["recommended"]
    head = f"{report['model']}: {report['items']} texts on {report['device']}, {report['threads']} threads, medians of "
    head += f"{report['rounds']} rounds; equal: share of answers like those of {_name(reference)}"
    rows = [_cells(row) for row in report["rows"]]
    lines = [head, "", table(("ENGINE", "DTYPE", "ITEMS/S", "TOKENS/S", "MEMORY", "LOAD", "EQUAL", "CLOSENESS"), rows)]
    lines += ["", *(f"not measured: {_name(each)}: {each['reason']}" for each in report["failed"])]
    lines += [f"not installed: {reason}" for reason in report["missing"].values()]
    lines += [f"Recommended: {_name(best)}, the fastest with at least {report['bound']:.0%} equal answers."]
    if spec.engine != "fake":
        use = _use(spec, report)
        lines += [f"Use it: {use['command'] or 'by this table of a models file, which keeps its settings:'}"]
        lines += [] if use["command"] else ["", use["entry"] or ""]
    return "\n".join(lines)


def _name(row: dict[str, Any]) -> str:
    return f"{row['engine']} {row['dtype']}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["engine"],
        row["dtype"],
        f"{row['items_per_s']:,.1f}",
        f"{row['tokens_per_s']:,.0f}",
        f"{row['memory_bytes'] / 1e6:,.0f} MB",
        f"{row['load_s']:.1f} s",
        f"{row['agreement']:.1%}",
        row["closeness"],
    )


def _use(spec: "ModelSpec", report: dict[str, Any]) -> dict[str, str | None]:
    """How the recommended one is registered: as a table of a models file, and by a command where that loses nothing."""
    best = {name: report["recommended"][name] for name in ("engine", "dtype")}
    given = ["textmill", "models", "add", spec.name, spec.path, "--engine", best["engine"], "--dtype", best["dtype"]]
    given += ["--tasks", ",".join(spec.tasks)]
    for option, value in (("--adapter", spec.adapter), ("--device", spec.device)):
        given += [option, value] if value else []
    whole = not any(getattr(spec, name) for name in UNTOLD)
    return {"command": shlex.join(given) if whole else None, "entry": _entry(spec.model_copy(update=best))}


def _entry(spec: "ModelSpec") -> str:
    """The model as a table of a models file."""
    fields = spec.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    return "\n".join([f"[models.{json.dumps(spec.name)}]", *(f"{name} = {_toml(fields[name])}" for name in fields)])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key, ensure_ascii=False)} = {_toml(each)}" for key, each in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

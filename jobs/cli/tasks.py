"""`textmill tasks`: what can be asked for, and with which parameters."""

import json
from typing import Annotated, Any

import typer

from jobs.cli.table import facts, table


def add_to(app: typer.Typer) -> None:
    app.command("tasks")(tasks)


def tasks(name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this task in full.")] = None) -> None:
    """The tasks there are. With NAME: its fields and parameters."""
    typer.echo(_one(name) if name else _all())


def _all() -> str:
    from jobs.tasks import all_tasks

    rows = [(task.name, task.summary, ", ".join(task.aliases)) for task in all_tasks()]
    return table(("TASK", "WHAT IT DOES", "ALSO CALLED"), rows) + "\n\nOne of them in full: textmill tasks NAME"


def _one(name: str) -> str:
    from jobs.tasks import find

    task = find(name)
    head = facts([("task", task.name), ("does", task.summary), ("also called", ", ".join(task.aliases))])
    parts = [("item", task.input), ("params", task.params), ("output", task.output)]
    fields = "\n\n".join(f"{title}\n{_fields(schema)}" for title, schema in parts)
    return f"{head}\n\n{fields}\n\nexample: textmill run {task.name} INPUT -o out.jsonl --model fake"


def _fields(schema: Any) -> str:
    described = schema.model_json_schema()
    required = described.get("required", ())
    lines = [_field(name, field, name in required) for name, field in described.get("properties", {}).items()]
    return "\n".join(lines) or "  (none)"


def _field(name: str, field: dict[str, Any], required: bool) -> str:
    default = field.get("default")
    tail = " (required)" if required else "" if default is None else f" = {json.dumps(default)}"
    return f"  {name}: {_kind(field)}{tail}"


def _kind(field: dict[str, Any]) -> str:
    """A JSON schema in a few words: `integer, 1 to 16`, `short | medium | long`."""
    if "anyOf" in field:
        return " or ".join(_kind(each) for each in field["anyOf"] if each.get("type") != "null")
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if field.get("type") == "array" and "items" in field:
        return f"list of {_kind(field['items'])}"
    kind = field.get("type", field.get("$ref", "object"))
    return str(kind).rsplit("/", 1)[-1] + _range(field)


def _range(field: dict[str, Any]) -> str:
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    if low is None and high is None:
        return ""
    return f", {low} to {high}" if None not in (low, high) else f", from {low}" if high is None else f", up to {high}"

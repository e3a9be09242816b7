"""`textmill tasks`: what can be asked for, and with which parameters."""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

import click

from jobs.cli.table import facts, table

Schema = Mapping[str, Any]
WIDTH = 100
IN = " " * 6


@click.command()
@click.argument("name", required=False, help="Show this task in full.")
def tasks(name: str | None) -> None:
    """The tasks there are. With NAME: its fields and parameters."""
    click.echo(_one(name) if name else _all())


def _all() -> str:
    from jobs.tasks import all_tasks

    rows = [(task.name, task.summary, ", ".join(task.aliases)) for task in all_tasks()]
    return table(("TASK", "WHAT IT DOES", "ALSO CALLED"), rows) + "\n\nOne of them in full: textmill tasks NAME"


def _one(name: str) -> str:
    from jobs.tasks import find

    task = find(name)
    head = facts([("task", task.name), ("does", task.summary), ("also called", ", ".join(task.aliases))])
    parts = [
        ("item", task.input.model_json_schema(), {}),
        ("params", task.params.model_json_schema(), getattr(task.params, "other_names", {})),
        ("output", {**task.output.model_json_schema(mode="serialization"), "required": ()}, {}),
    ]
    fields = "\n\n".join(f"{title}\n{_fields(schema, other_names)}" for title, schema, other_names in parts)
    return f"{head}\n\n{fields}\n\nexample: textmill run {task.name} INPUT -o out.jsonl --model fake"


def _fields(schema: Schema, other_names: Mapping[str, str]) -> str:
    required, parts = schema.get("required", ()), schema.get("$defs", {})
    lines = [
        _field(name, field, parts, needed=name in required, others=[o for o, own in other_names.items() if own == name])
        for name, field in schema.get("properties", {}).items()
    ]
    return "\n".join(lines) or "  (none)"


def _field(name: str, field: Schema, parts: Schema, *, needed: bool, others: list[str]) -> str:
    default = field.get("default")
    tail = " (required)" if needed else "" if default is None else f" = {json.dumps(default)}"
    also = f" (also {', '.join(others)})" if others else ""
    said = textwrap.fill(" ".join(field.get("description", "").split()), WIDTH, initial_indent=IN, subsequent_indent=IN)
    return f"  {name}{also}: {_kind(field, parts)}{tail}" + (f"\n{said}" if said else "")


def _kind(field: Schema, parts: Schema) -> str:
    """A JSON schema in a few words: `integer, 1 to 16`, `short | medium | long`, `list of {label: string, ...}`."""
    if "$ref" in field:
        return _kind(parts[field["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in field:
        return " or ".join(_kind(each, parts) for each in field["anyOf"] if each.get("type") != "null")
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "properties" in field:
        return "{" + ", ".join(f"{name}: {_kind(each, parts)}" for name, each in field["properties"].items()) + "}"
    if field.get("type") == "array" and "items" in field:
        each = {key: value for key, value in field["items"].items() if key not in ("minLength", "maxLength")}
        return f"list of {_kind(each, parts)}" + _bounds(field, "minItems", "maxItems")
    if field.get("type") == "string":
        size = _bounds(field, "minLength", "maxLength")
        return "string" + (f"{size} characters" if size else "")
    return str(field.get("type", "object")) + _bounds(field, "minimum", "maximum")


def _bounds(field: Schema, lower: str, upper: str) -> str:
    above, low, high = field.get("exclusiveMinimum"), field.get(lower), field.get(upper)
    if above is not None:
        return f", above {above}" + ("" if high is None else f", to {high}")
    if low is None:
        return "" if high is None else f", at most {high}"
    return f", from {low}" if high is None else f", {low} to {high}"

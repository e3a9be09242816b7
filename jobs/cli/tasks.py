"""`textmill tasks`: what can be asked for, and with which parameters."""

from typing import Annotated, Any

import typer

from jobs.cli.table import facts, table


def add_to(app: typer.Typer) -> None:
    app.command("tasks")(tasks)


def tasks(name: Annotated[str | None, typer.Argument(help="Show this task in full.")] = None) -> None:
    """The tasks there are, or one of them with its fields and parameters."""
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
    lines = [f"  {name}: {_kind(field)}{_default(field)}" for name, field in schema.model_fields.items()]
    return "\n".join(lines) or "  (none)"


def _kind(field: Any) -> str:
    kind = field.annotation
    return str(kind).replace("typing.", "").replace("NoneType", "None") if not isinstance(kind, type) else kind.__name__


def _default(field: Any) -> str:
    if field.is_required():
        return "  (required)"
    return "" if field.default is None else f" = {field.get_default(call_default_factory=True)!r}"

"""The page about the tasks says what the code does: every parameter, its default, what is allowed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from jobs import tasks
from jobs.tasks.base import Task
from jobs.tasks.params import GenerationParams, Params

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
NAMES = [task.name for task in tasks.all_tasks()]


def rows(title: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def documented(title: str) -> dict[str, tuple[set[str], str, str, str]]:
    """Other names, default, what is allowed and what it does, by parameter."""
    found = {}
    for names, default, allowed, does in rows(title):
        name, *others = re.findall(r"`(\w+)`", names)
        found[name] = (set(others), default, allowed, does)
    return found


def declared(schema: type[Params], names: list[str]) -> dict[str, tuple[set[str], str, str, str]]:
    properties = schema.model_json_schema()["properties"]
    return {
        name: (
            {other for other, own in schema.other_names.items() if own == name},
            f"`{json.dumps(properties[name]['default'])}`",
            allowed(properties[name]),
            explained(properties[name]),
        )
        for name in names
    }


def explained(schema: dict[str, Any]) -> str:
    """A property's explanation, as a cell of a table has it."""
    said = " ".join(schema["description"].split()).rstrip(".")
    return said[0].lower() + said[1:]


def allowed(schema: dict[str, Any]) -> str:
    """A property's values, in the page's words."""
    schema = next((each for each in schema.get("anyOf", []) if each["type"] != "null"), schema)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    if kind in ("integer", "number"):
        return ("whole, " if kind == "integer" else "") + bounds(schema)
    if kind == "array":
        least, most = schema.get("minItems"), schema["maxItems"]
        return f"list of text, {least} to {most}" if least else f"list of text, at most {most}"
    if kind == "string":
        return f"text, {schema['minLength']} to {schema['maxLength']} characters"
    return {"boolean": "true, false", "object": "object"}[kind]


def bounds(schema: dict[str, Any]) -> str:
    above, least, most = schema.get("exclusiveMinimum"), schema.get("minimum"), schema.get("maximum")
    if above is not None:
        return f"above {above}, to {most}"
    if least is not None:
        return f"{least} to {most}" if most is not None else f"from {least}"
    return "any number"


def inherited(schema: type[Params]) -> set[str]:
    base = GenerationParams if issubclass(schema, GenerationParams) else Params
    return set(base.model_fields)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_names_a_tasks_own_params_as_they_are(name: str) -> None:
    schema = tasks.find(name).params

    own = [field for field in schema.model_fields if field not in inherited(schema)]

    assert documented(name) == declared(schema, own)


def test_the_page_names_the_shared_params_as_they_are() -> None:
    generation = [field for field in GenerationParams.model_fields if field not in Params.model_fields]

    assert documented("Common params") == declared(Params, list(Params.model_fields))
    assert documented("Generation params") == declared(GenerationParams, generation)


def test_the_page_lists_the_tasks_with_their_names_items_outputs_and_models() -> None:
    listed = {cells[0].split("]")[0].lstrip("["): cells[1:] for cells in rows_of_the_first_table()}

    assert listed == {task.name: summary(task) for task in tasks.all_tasks() if task.name in NAMES}
    assert list(listed) == NAMES


def rows_of_the_first_table() -> list[list[str]]:
    lines = PAGE.split("\n\n")[2].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def summary(task: Task[Any, Any, Any]) -> list[str]:
    fields = [name for name in task.input.model_fields if name not in ("custom_id", "params")]
    optional = {name for name in fields if not task.input.model_fields[name].is_required()}
    if task.name == "generate":
        item = " or ".join(f"`{name}`" for name in fields)
    else:
        item = ", ".join(f"`{name}`" + ("?" if name in optional else "") for name in fields)
    return [
        ", ".join(f"`{alias}`" for alias in task.aliases),
        item,
        ", ".join(f"`{name}`" for name in task.output.model_fields),
        ", ".join(sorted(task.kinds - {"any"}, key=["encoder", "causal", "seq2seq"].index)),
    ]


def test_the_example_on_the_page_is_a_task() -> None:
    source = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "TASK = Task(" in block)
    space: dict[str, Any] = {"__name__": "shout"}

    exec(source, space)

    assert isinstance(space["TASK"], Task)
    assert space["TASK"].params().marks == 1

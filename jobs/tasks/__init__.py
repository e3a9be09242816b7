"""The tasks there are, found by name; a new one is a file here with a `TASK`, or an entry point `textmill.tasks`."""

import difflib
import importlib
import logging
import pkgutil
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from jobs.errors import InvalidParams, UnknownTask
from jobs.tasks.base import Task

AnyTask = Task[Any, Any, Any]
ENTRY_POINTS = "textmill.tasks"
Par = TypeVar("Par", bound=BaseModel)

_log = logging.getLogger(__name__)
_LISTS = dict.fromkeys(("tuple_type", "list_type"), 'Input should be a list, in JSON: ["one", "two"]')
"""Said in place of the library's words, which name Python's types."""
_PLACEHOLDER = re.compile(r"\\\{(\w+)\\\}")


def all_tasks() -> tuple[AnyTask, ...]:
    """Every task, by name."""
    return tuple(sorted(_table().values(), key=lambda task: task.name))


def find(name: str) -> AnyTask:
    """The task of that name or alias. Raises UnknownTask with the names there are."""
    return resolve(name)[0]


def resolve(name: str, params: Mapping[str, Any] | None = None) -> tuple[AnyTask, dict[str, Any]]:
    """The task, and `params` with those that an alias like `translation_en_to_fr` stands for.

    Raises UnknownTask, and InvalidParams when the alias and `params` say different things.
    """
    task = _names().get(_key(name))
    if task is not None:
        return task, dict(params or {})
    for pattern, candidate in _patterns():
        if match := pattern.fullmatch(name.strip()):
            return candidate, _both(name, _typed(candidate.params, match.groupdict()), params or {})
    raise UnknownTask(_unknown("task", name, [task.name for task in all_tasks()], among=_spellings()))


def validate_params(task: AnyTask, params: Mapping[str, Any] | None = None) -> Any:
    """The task's params, checked. Raises InvalidParams naming each wrong parameter and what is allowed."""
    return _validated(task.params, params or {})


def merge(params: Par, overrides: Mapping[str, Any] | None) -> Par:
    """The job's params with an item's own over them; the very same object when there are none. Raises InvalidParams."""
    if not overrides:
        return params
    schema = type(params)
    given = params.model_dump(exclude_unset=True)
    return _validated(schema, given | _canonical(schema, overrides))


@cache
def task_adapter(task: AnyTask) -> TypeAdapter[list[Any]]:
    """Validates a list of the task's items in one call, from objects or from JSON."""
    return TypeAdapter(list[task.input])  # type: ignore[name-defined]


def explain(error: ValidationError) -> list[str]:
    """One line for each thing that is wrong, naming the field, what is allowed and the value given."""
    return [_told(".".join(map(str, detail["loc"])), detail) for detail in _causes(error)]


@cache
def _table() -> dict[str, AnyTask]:
    """Tasks by name: ours, then those of other distributions, which cannot take a name that is taken."""
    found: dict[str, AnyTask] = {}
    taken: set[str] = set()
    for task in (*_own(), *_foreign()):
        names = {_key(name) for name in (task.name, *task.aliases)}
        if names & taken:
            _log.error("task %r is left out: %s is taken by another task", task.name, sorted(names & taken))
            continue
        taken |= names
        found[task.name] = task
    return found


def _own() -> Iterator[AnyTask]:
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        task = getattr(importlib.import_module(f"{__name__}.{module.name}"), "TASK", None)
        if isinstance(task, Task):
            yield task


def _foreign() -> Iterator[AnyTask]:
    for point in entry_points(group=ENTRY_POINTS):
        try:
            loaded = point.load()
        except Exception:
            _log.exception("entry point %r (%s) is left out: it does not load", point.name, point.value)
            continue
        task = getattr(loaded, "TASK", loaded)
        if isinstance(task, Task):
            yield task
        else:
            _log.error("entry point %r (%s) is left out: it is no Task", point.name, point.value)


@cache
def _names() -> dict[str, AnyTask]:
    return {_key(name): task for task in all_tasks() for name in (task.name, *task.aliases) if "{" not in name}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], AnyTask], ...]:
    """Aliases with parameters in them, as patterns whose groups are those parameters."""
    return tuple(
        (re.compile(_PLACEHOLDER.sub(r"(?P<\1>[A-Za-z0-9_-]+?)", re.escape(alias)), re.IGNORECASE), task)
        for task in all_tasks()
        for alias in task.aliases
        if "{" in alias
    )


def _key(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _spellings() -> list[str]:
    return [name for task in all_tasks() for name in (task.name, *task.aliases)]


def _typed(schema: type[BaseModel], words: Mapping[str, str]) -> dict[str, Any]:
    """What the words of an alias mean as parameters: `3` is a number where one is wanted."""
    try:
        return schema.model_validate(words, strict=False).model_dump(include=set(words))
    except ValidationError:
        return dict(words)  # to be told what is wrong with them as with any other


def _both(name: str, implied: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    for parameter, value in implied.items():
        if params.get(parameter, value) != value:
            raise InvalidParams(f"parameter {parameter!r}: {params[parameter]!r} is given, but {name!r} says {value!r}")
    return {**params, **implied}


def _validated(schema: type[Par], params: Mapping[str, Any]) -> Par:
    given = _canonical(schema, params)
    known = list(schema.model_fields)
    if unknown := [name for name in given if name not in schema.model_fields]:
        raise InvalidParams("\n".join(_unknown("parameter", name, known) for name in unknown))
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise InvalidParams("\n".join(_told(_parameter(each["loc"]), each) for each in _causes(error))) from error


def _canonical(schema: type[BaseModel], params: Mapping[str, Any]) -> dict[str, Any]:
    """The params under their own names, whatever names they were given by. Raises InvalidParams when doubled."""
    other_names: Mapping[str, str] = getattr(schema, "other_names", {})
    given: dict[str, Any] = {}
    said: dict[str, str] = {}
    for name, value in params.items():
        own = other_names.get(name, name)
        if own in given:
            raise InvalidParams(f"parameter {own!r} is given twice: as {said[own]!r} and as {name!r}")
        given[own], said[own] = value, name
    return given


def _causes(error: ValidationError) -> list[Any]:
    """What is wrong, without what only follows from it: a list that seems too short because its elements are bad."""
    details = error.errors(include_url=False)
    inside = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
    return [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in inside]


def _parameter(loc: tuple[int | str, ...]) -> str:
    if not loc:
        return ""
    return f"parameter {loc[0]!r}" + "".join(f"[{part}]" for part in loc[1:] if isinstance(part, int))


def _told(where: str, detail: Any) -> str:
    message = _LISTS.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    if not where:
        return str(message)
    given = repr(detail["input"])
    shown = given if len(given) <= 80 else given[:77] + "..."
    return f"{where}: {message} (given {shown})"


def _unknown(what: str, name: str, known: list[str], among: list[str] | None = None) -> str:
    close = difflib.get_close_matches(name, among or known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {what} {name!r}; {hint}known{' tasks' if what == 'task' else ''}: {', '.join(known)}"

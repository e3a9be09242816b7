"""A batch of lines to checked items: each line alone is an item of the task, or a named problem."""

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ValidationError

from jobs.corpus import Line
from jobs.errors import InvalidParams, Problem
from jobs.fingerprints import Fingerprints, Print
from jobs.patterns import Pattern
from jobs.schemas import Item, JobSpec
from jobs.tasks import AnyTask, explain, merge, task_adapter, validate_params

NO_NUMBER = re.compile("NaN|Infinity")
"""Numbers that Python and others write and JSON does not have."""
DEFAULT_NEW_TOKENS = 128
"""Assumed output of a generating task whose params name no `max_new_tokens`."""


class Checked(NamedTuple):
    """Items that the task takes, in order, as columns: a row an item would cost more than its check."""

    numbers: list[int]
    """Line numbers of the source."""
    lines: list[bytes]
    """One JSON object each, under the task's field names."""
    ids: list[str | None]
    allowances: list[int]
    """Tokens that may come out."""
    models: list[str | None]
    """Where items of one job go to several models; None: the job's."""
    prints: list[Print]
    """Of each item, where they were asked for; else there is none at all."""

    def without(self, positions: Container[int]) -> "Checked":
        """The items but those at these positions."""
        return Checked(*(_left(column, positions) for column in self))

    def with_(self, others: "Checked") -> "Checked":
        """These items, then others."""
        columns: Iterator[tuple[list[Any], list[Any]]] = zip(self, others, strict=True)
        return Checked(*(mine + theirs for mine, theirs in columns))


class Parsed(NamedTuple):
    numbers: list[int]
    lines: list[bytes]
    values: list[dict[str, Any]]

    def without(self, positions: Container[int]) -> "Parsed":
        return Parsed(*(_left(column, positions) for column in self))


class Checker:
    """Checks lines against one job's task and params."""

    def __init__(
        self,
        task: AnyTask,
        spec: JobSpec,
        max_text_chars: int,
        pattern: Pattern | None = None,
        fingerprints: Fingerprints | None = None,
    ) -> None:
        """`pattern`: what the job names in place of one model. `fingerprints`: makes the items'. Raises
        InvalidParams."""
        self._task, self._keep, self._max_text_chars = task, spec.keep, max_text_chars
        self._params: BaseModel = validate_params(task, spec.params)
        self._allowance = allowance(self._params)
        self._pattern, self._fingerprints = pattern, fingerprints
        if pattern is not None:
            pattern.check(self._params)
        self._prefix = b"{" + orjson.dumps(task.main_field) + b":"
        self._many = task_adapter(task)
        self.never_seen = dict.fromkeys(spec.keep)
        """Fields to keep that no item had so far, in their order."""

    def check(self, batch: Sequence[Line]) -> tuple[Checked, list[Problem]]:
        """The items of the batch, and what is wrong with the other lines."""
        parsed, problems = self._parse(batch)
        parsed, items = self._validate(parsed, problems)
        allowances = [self._allowance] * len(items)
        refused: dict[int, Problem] = {}
        for at, problem in self._beyond_schema(parsed, items, allowances):
            refused.setdefault(at, problem)
        models = self._routed(items, refused)
        checked = Checked(parsed.numbers, parsed.lines, [item.custom_id for item in items], allowances, models, [])
        if refused:
            checked, items = checked.without(refused), _left(items, refused)
        if self._fingerprints is not None:
            checked = checked._replace(prints=self._fingerprints.prints(items, checked.models))
        return checked, [*problems, *refused.values()]

    def _routed(self, items: Sequence[Item], refused: Container[int]) -> list[str | None]:
        """Each item's model, where the job names a pattern."""
        route = self._task.route
        if self._pattern is None or route is None:
            return [None] * len(items)
        return [
            None if at in refused else route(item, merge(self._params, item.params), self._pattern)
            for at, item in enumerate(items)
        ]

    def _parse(self, batch: Sequence[Line]) -> tuple[Parsed, list[Problem]]:
        """The lines as objects. A bare string becomes the main field."""
        numbers, lines, values = parsed = Parsed([], [], [])
        problems: list[Problem] = []
        for number, line in batch:
            if not isinstance(line, bytes):
                problems.append(replace(line, line=number))
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                problems.append(_malformed(number, line, error))
                continue
            if type(value) is str:
                value, line = {self._task.main_field: value}, self._prefix + line.strip() + b"}"
            elif type(value) is not dict:
                problems.append(
                    Problem(number, "invalid_type", f"an item is an object or a string, not {_kind(value)}")
                )
                continue
            numbers.append(number)
            lines.append(line)
            values.append(value)
        return parsed, problems

    def _validate(self, parsed: Parsed, problems: list[Problem]) -> tuple[Parsed, list[Item]]:
        """The task's items, all in one call. Only when it fails are the bad ones told from the good."""
        try:
            return parsed, self._many.validate_python(parsed.values)
        except ValidationError as error:
            bad = {int(detail["loc"][0]) for detail in error.errors(include_url=False, include_context=False)}
        problems += [self._invalid(parsed.numbers[at], value) for at, value in enumerate(parsed.values) if at in bad]
        good = parsed.without(bad)
        return good, self._many.validate_python(good.values)

    def _beyond_schema(self, parsed: Parsed, items: list[Item], allowances: list[int]) -> Iterator[tuple[int, Problem]]:
        """What the schema does not see: the items' own params, kept fields, very long texts."""
        for at, item in enumerate(items):
            if item.params and (wrong := self._override(at, item.params, allowances)):
                yield at, Problem(parsed.numbers[at], "invalid_params", wrong)
        for at, value in enumerate(parsed.values if self._keep else ()):
            self._see(value)
            if not _can_be_kept([value.get(name) for name in self._keep]):
                yield at, Problem(parsed.numbers[at], "invalid_field", "a kept field is nested too deeply")
        for at, line in enumerate(parsed.lines):
            if len(line) > self._max_text_chars and (name := self._too_long(parsed.values[at])):
                message = f"{name!r} is longer than {self._max_text_chars:,} characters (setting max_text_chars)"
                yield at, Problem(parsed.numbers[at], "text_too_long", message)

    def _see(self, value: dict[str, Any]) -> None:
        for name in self.never_seen.keys() & value.keys():
            del self.never_seen[name]

    def _override(self, at: int, params: dict[str, Any], allowances: list[int]) -> str | None:
        """Take an item's own params into account; what is wrong with them."""
        try:
            allowances[at] = allowance(merge(self._params, params))
        except InvalidParams as error:
            return str(error)
        except RecursionError:
            return "nested too deeply"
        return None

    def _invalid(self, number: int, value: dict[str, Any]) -> Problem:
        try:
            self._task.input.model_validate(value)
        except ValidationError as error:
            return Problem(number, _code(error), "; ".join(explain(error)))
        except RecursionError:
            return Problem(number, "malformed_json", "nested too deeply")
        raise AssertionError("an item that fails among others and not alone")

    def _too_long(self, value: dict[str, Any]) -> str | None:
        texts = (name for name, text in value.items() if isinstance(text, str) and len(text) > self._max_text_chars)
        return next(texts, None)


def allowance(params: BaseModel) -> int:
    """Tokens that may come out of one item under these params; 0 for tasks that do not generate."""
    if "max_new_tokens" not in type(params).model_fields:
        return 0
    samples = max(getattr(params, "n", 1), getattr(params, "num_beams", None) or 1)
    return int((getattr(params, "max_new_tokens", None) or DEFAULT_NEW_TOKENS) * samples)


def _left(column: list[Any], positions: Container[int]) -> list[Any]:
    return [each for at, each in enumerate(column) if at not in positions]


def _malformed(number: int, line: bytes, error: orjson.JSONDecodeError) -> Problem:
    """Why a line is no JSON; orjson says "surrogates" for any bytes that are not UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        byte = line[bad.start]
        return Problem(number, "not_utf8", f"not UTF-8: byte 0x{byte:02x} at offset {bad.start} of the line")
    if "surrogate" in error.msg:
        return Problem(number, "invalid_text", f"a lone surrogate, which is no character, at offset {error.pos}")
    if found := NO_NUMBER.match(error.doc, error.pos):
        return Problem(number, "malformed_json", f"{found[0]} is no JSON number, at column {error.colno}")
    return Problem(number, "malformed_json", f"{error.msg} at column {error.colno}")


def _code(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if detail["type"] == "missing":
        return "missing_field"
    return {"params": "invalid_params", "custom_id": "invalid_id"}.get(
        str(next(iter(detail["loc"]), "")), "invalid_field"
    )


def _kind(value: Any) -> str:
    return {list: "a list", bool: "true or false", type(None): "null"}.get(type(value), "a number")


def _can_be_kept(value: Any) -> bool:
    try:
        return bool(orjson.dumps(value))
    except TypeError:
        return False

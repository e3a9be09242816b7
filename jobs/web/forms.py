"""A task's params as fields of a form, by their JSON schema; and what was typed, as params again."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import orjson

from jobs.errors import InvalidParams
from jobs.tasks.params import GenerationParams

Kind = Literal["number", "whole", "choice", "switch", "text", "list", "json"]
SIMPLE: dict[str, Kind] = {"integer": "whole", "number": "number", "boolean": "switch", "string": "text"}
PREFIX = "p_"
"""Of a param's name in a form: other fields have names, too."""
RARE = {*GenerationParams.model_fields} - {"max_new_tokens", "temperature"}
"""Params that many tasks share and few jobs give."""


class Field(NamedTuple):
    """One param."""

    name: str
    kind: Kind
    choices: tuple[str, ...]
    default: str
    """As it would be typed; empty: the model decides, or there is none."""
    about: str
    needed: bool
    least: float | None
    most: float | None
    rare: bool
    """It stands behind a fold."""

    @property
    def typed_as(self) -> str:
        """Its name in a form."""
        return PREFIX + self.name


def fields(schema: Mapping[str, Any]) -> list[Field]:
    """The params of a task, the needed ones first."""
    required, parts = schema.get("required", ()), schema.get("$defs", {})
    found = [_field(name, each, parts, name in required) for name, each in schema.get("properties", {}).items()]
    return sorted(found, key=lambda field: not field.needed)


def params(known: list[Field], typed: Mapping[str, str]) -> dict[str, Any]:
    """What was typed into the fields; those left empty are left out. Raises InvalidParams."""
    return {field.name: _value(field, text) for field in known if (text := typed.get(field.typed_as, "").strip())}


def typed(known: list[Field], given: Mapping[str, Any]) -> dict[str, str]:
    """Params as they would be typed."""
    return {
        field.typed_as: _text(field.kind, given[field.name]) for field in known if given.get(field.name) is not None
    }


def _field(name: str, schema: Mapping[str, Any], parts: Mapping[str, Any], needed: bool) -> Field:
    shape = _shape(schema, parts)
    choices = tuple(map(str, shape.get("enum", (shape["const"],) if "const" in shape else ())))
    of_texts = shape.get("type") == "array" and _shape(shape.get("items", {}), parts).get("type") == "string"
    kind: Kind = "choice" if choices else "list" if of_texts else SIMPLE.get(shape.get("type", ""), "json")
    default = schema.get("default")
    return Field(
        name,
        kind,
        choices,
        "" if default is None else _text(kind, default),
        " ".join(str(schema.get("description", "")).split()),
        needed,
        shape.get("minimum", shape.get("exclusiveMinimum")),
        shape.get("maximum", shape.get("exclusiveMaximum")),
        name in RARE and not needed,
    )


def _shape(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one shape that a param may have beside null; one of several counts as any JSON."""
    shapes = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    if len(shapes) != 1:
        return {}
    found: Mapping[str, Any] = shapes[0]
    return parts.get(found["$ref"].rpartition("/")[2], {}) if "$ref" in found else found


def _text(kind: Kind, value: Any) -> str:
    if kind == "switch":
        return "yes" if value else "no"
    if kind == "list" and not any("," in each or each != each.strip() for each in value):
        return ", ".join(value)
    return str(value) if kind in ("text", "choice") else json.dumps(value, ensure_ascii=False)


def _value(field: Field, text: str) -> Any:
    if field.kind in ("text", "choice"):
        return text
    if field.kind == "switch":
        return text == "yes"
    if field.kind == "list" and not text.startswith("["):
        return [each.strip() for each in re.split(r"[,\n]", text) if each.strip()]
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        wanted = {"whole": "a whole number", "number": "a number"}.get(field.kind, 'JSON, such as ["a", "b"]')
        raise InvalidParams(f"parameter {field.name!r}: {text[:100]!r} is not {wanted}") from error

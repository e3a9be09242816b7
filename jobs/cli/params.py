"""Parameters as they are typed: `--param num_beams=4`, `--param 'labels=["good", "bad"]'`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
import typer


def parse(given: Sequence[str]) -> dict[str, Any]:
    """The params by name. A value that is JSON is read as JSON, any other is a string. Refuses a pair without `=`."""
    params: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--param")
        if name.strip() in params:
            raise typer.BadParameter(f"{name.strip()!r} is given twice", param_hint="--param")
        params[name.strip()] = _value(value)
    return params


def words(given: str | None) -> tuple[str, ...]:
    """`a, b` as ("a", "b"); a word given twice counts once."""
    return tuple(dict.fromkeys(word for word in (part.strip() for part in (given or "").split(",")) if word))


def labels(given: Sequence[str]) -> dict[str, str]:
    """`team=search` pairs; values stay text."""
    found = dict(pair.partition("=")[::2] for pair in given)
    if "" in found or any("=" not in pair for pair in given):
        raise typer.BadParameter(f"{list(given)} are not NAME=VALUE", param_hint="--label")
    return found


def on_invalid_of(given: str) -> Literal["reject", "skip"]:
    """The value of --on-invalid, checked."""
    if given == "reject":
        return "reject"
    if given == "skip":
        return "skip"
    raise typer.BadParameter(f"{given!r} is neither 'reject' nor 'skip'", param_hint="--on-invalid")


def as_utc(moment: datetime | None) -> datetime | None:
    """The moment; one without a time zone is meant as UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text

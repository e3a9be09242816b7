"""Parameters as they are typed: `--param num_beams=4`, `--param 'labels=["good", "bad"]'`."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import orjson

from jobs.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.corpus import Rows

ESCAPED = {"n": "\n", "t": "\t", "\\": "\\"}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse(given: Sequence[str]) -> dict[str, Any]:
    """The params by name. A value that is JSON is read as JSON, any other is a string. Refuses a pair without `=`."""
    params: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--param")
        if name.strip() in params:
            raise click.BadParameter(f"{name.strip()!r} is given twice", param_hint="--param")
        params[name.strip()] = _value(value)
    return params


def words(given: str | None) -> tuple[str, ...]:
    """`a, b` as ("a", "b"); a word given twice counts once."""
    return tuple(dict.fromkeys(word for word in (part.strip() for part in (given or "").split(",")) if word))


def labels(given: Sequence[str]) -> dict[str, str]:
    """`team=search` pairs; values stay text."""
    found = dict(pair.partition("=")[::2] for pair in given)
    if "" in found or any("=" not in pair for pair in given):
        raise click.BadParameter(f"{list(given)} are not NAME=VALUE", param_hint="--label")
    return found


def rows(fields: Sequence[str], template: str | None, seed: int | None, **given: Any) -> "Rows":
    """`text=doc.body` pairs and what else says which rows become items; in a template `\\n` and `\\t` are line and tab.

    Refuses what is no filter or template, and a seed of no sample.
    """
    from jobs.corpus import Rows

    if seed is not None and given.get("sample") is None:
        raise click.BadParameter("there is no sample (--sample N) that it could be of", param_hint="--seed")
    pairs = dict(pair.partition("=")[::2] for pair in fields)
    if any("=" not in pair for pair in fields) or len(pairs) < len(fields):
        raise click.BadParameter(f"{list(fields)} are not FIELD=COLUMN, each field once", param_hint="--map")
    if template is not None:
        template = re.sub(r"\\([nt\\])", lambda found: ESCAPED[found[1]], template)
    try:
        return Rows(map=pairs, template=template, seed=seed or 0, **given)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error


def moment(given: str) -> datetime:
    """An ISO 8601 date or time; one without a time zone is meant as UTC."""
    try:
        read = datetime.fromisoformat(given)
    except ValueError as error:
        allowed = "a date or time such as 2027-01-31, 2027-01-31T18:00 or 2027-01-31T18:00+01:00"
        raise click.BadParameter(f"{given!r} is not {allowed}") from error
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def seconds(given: str) -> float:
    """`90`, `90s`, `15m`, `2h`, `1d` in seconds."""
    number, unit = (given[:-1], given[-1]) if given[-1:] in UNITS else (given, "s")
    try:
        return float(number) * UNITS[unit]
    except ValueError as error:
        raise click.BadParameter(f"{given!r} is not a time such as 90s, 15m, 2h or 1d") from error


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text

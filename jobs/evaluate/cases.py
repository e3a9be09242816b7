"""Results beside their gold values: kept with the items, or from a file by `custom_id`."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from jobs.errors import InvalidInput, MissingGold
from jobs.schemas import Result


class Case(NamedTuple):
    """One item: what came out, and what should have."""

    custom_id: str
    output: dict[str, Any] | None
    """None: the item ended as an error, which counts as a wrong answer."""
    gold: Any
    tokens: int
    """Of its input."""


def cases(results: Iterable[Result], field: str, golds: Mapping[str, Any] | None = None) -> list[Case]:
    """The items that have a gold value: `golds` by `custom_id`, else what was kept as `field`. Raises MissingGold when
    none was kept with one, InvalidInput when none is in `golds`; both name what there is instead."""
    found: list[Case] = []
    seen: Result | None = None
    kept: set[str] = set()
    for result in results:
        seen = result
        kept.update(result.kept)
        gold = result.kept.get(field) if golds is None else golds.get(result.custom_id)
        if gold is not None:
            found.append(Case(result.custom_id, result.output, gold, result.usage.input_tokens))
    if not found:
        raise _nothing(field, golds, seen, kept)
    return found


def golds_of(path: Path, field: str, id_field: str = "custom_id") -> dict[str, Any]:
    """The gold value of each item in a .jsonl or .csv file, by the field that names items (without: by position,
    counted from 0). Raises InvalidInput with the line."""
    found: dict[str, Any] = {}
    for at, (line, row) in enumerate(_rows(path)):
        name = str(at) if row.get(id_field) is None else str(row[id_field])
        if name in found:
            raise InvalidInput(f"{path}, line {line}: {id_field} {name[:100]!r} is there twice")
        found[name] = _gold_of(row, field, f"{path}, line {line}")
    return found


def golds_in(rows: Mapping[str, Mapping[str, Any]], field: str) -> dict[str, Any]:
    """The gold value of each item, from rows by `custom_id`. Raises InvalidInput with the row that has none."""
    return {name: _gold_of(row, field, f"gold of item {name!r}") for name, row in rows.items()}


def _gold_of(row: Mapping[str, Any], field: str, where: str) -> Any:
    if field not in row:
        raise InvalidInput(f"{where}: no field {field!r}; there are {', '.join(map(str, row)) or 'none'}")
    return row[field]


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows, each with the line that it ends on."""
    line = 0
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                for row in (reader := csv.DictReader(file)):
                    line = reader.line_num
                    yield line, row
            return
        with path.open("rb") as lines:
            for line, text in enumerate(lines, 1):
                if text.strip():
                    row = orjson.loads(text)
                    if not isinstance(row, dict):
                        raise InvalidInput(f"{path}, line {line}: not a JSON object")
                    yield line, row
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{path}, line {line}: {error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path}, after line {line}: {error}") from None


def _nothing(field: str, golds: Mapping[str, Any] | None, seen: Result | None, kept: Iterable[str]) -> InvalidInput:
    if seen is None:
        return InvalidInput("the job has no results yet")
    if golds is not None:
        named = ", ".join(list(golds)[:3]) or "no item"
        return InvalidInput(f"no item of the job has a gold value: those are of {named}; the job has {seen.custom_id}")
    return MissingGold(f"no result has the field {field!r} under kept; kept: {', '.join(sorted(kept)) or 'nothing'}")

"""JSON Lines: an object or a bare string a line; results one object a line."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import orjson

from jobs.corpus.base import Fields, Format, Line, Place
from jobs.corpus.lines import read_lines
from jobs.errors import Problem


def read(place: Place, fields: Fields, max_bytes: int) -> Iterator[Line]:
    """The lines as they are, blank ones left out; fields are renamed where the caller named some."""
    with place.open() as stream:
        for number, line in read_lines(stream, place.name, max_bytes):
            if isinstance(line, Problem):
                yield number, line
            elif line and not line.isspace():
                yield number, _renamed(number, line, fields) if fields.mapped else line


class JsonlWriter:
    """One result a line, with every key of its shape."""

    def __init__(self, stream: BinaryIO, columns: Sequence[str] = (), kept: Sequence[str] = ()) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        self._stream.write(line + b"\n")

    def finish(self) -> None:
        """Nothing is held back."""


FORMAT = Format("jsonl", (".jsonl", ".ndjson"), read, JsonlWriter)


def _renamed(number: int, line: bytes, fields: Fields) -> bytes | Problem:
    """The line under the task's field names. What is no JSON object passes as it is: the intake says why."""
    try:
        item = orjson.loads(line)
        if not isinstance(item, dict):
            return line
        rename(item, fields)
        return orjson.dumps(item)
    except orjson.JSONDecodeError:
        return line
    except KeyError as error:
        return Problem(number, "missing_field", f"no field {error.args[0]!r}; the line has: {_shown(item)}")
    except ValueError as error:
        return Problem(number, "invalid_id", str(error))
    except TypeError as error:
        return Problem(number, "malformed_json", str(error))


def rename(item: dict[str, Any], fields: Fields) -> None:
    """Move the named fields to their place. A number as id becomes text. Raises KeyError, ValueError for no id."""
    if fields.id is not None:
        value = item[fields.id]
        if value is None or value == "":
            raise ValueError(f"field {fields.id!r} is {'null' if value is None else 'empty'}, so the item has no id")
        is_number = isinstance(value, int) and not isinstance(value, bool)
        item["custom_id"] = str(value) if is_number else value
    if fields.text is not None:
        item[fields.main] = item[fields.text]
        if fields.text not in (fields.main, "custom_id"):
            del item[fields.text]


def _shown(item: dict[str, Any]) -> str:
    names = [name[:40] for name in item][:20]
    return ", ".join(names) or "no fields"

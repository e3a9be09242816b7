"""JSON Lines: an object or a bare string a line; results one object a line."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import orjson

from jobs.corpus.base import Columns, Fields, Format, Place, Read
from jobs.corpus.lines import read_runs
from jobs.corpus.mapping import Mapper
from jobs.errors import Problem


def read(place: Place, fields: Fields, max_bytes: int) -> Iterator[Read]:
    """The lines as they are, blank ones left out; mapped where the caller says how."""
    mapper = Mapper(fields) if fields.mapped else None
    with place.open() as stream:
        for start, run in read_runs(stream, place.name, max_bytes):
            if isinstance(run, Problem):
                yield start, run
                continue
            for number, line in enumerate(run, start):
                if line and not line.isspace():
                    yield number, line if mapper is None else _mapped(number, line, mapper)


class JsonlWriter:
    """One result a line, with every key of its shape."""

    def __init__(self, stream: BinaryIO, columns: Columns = (), kept: Sequence[str] = ()) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        self._stream.write(line + b"\n")

    def finish(self) -> None:
        """Nothing is held back."""


FORMAT = Format("jsonl", (".jsonl", ".ndjson"), read, JsonlWriter)


def _mapped(number: int, line: bytes, mapper: Mapper) -> bytes | Problem | None:
    """The line under the task's field names. What is no JSON object or text passes as it is: the intake says why."""
    try:
        row = orjson.loads(line)
        if isinstance(row, str):
            item = mapper.text(number, row)
            if item == {mapper.main: row}:
                return line
        elif isinstance(row, dict):
            item = mapper.item(number, row)
        else:
            return line
        return orjson.dumps(item) if isinstance(item, dict) else item
    except orjson.JSONDecodeError:
        return line
    except TypeError as error:
        return Problem(number, "malformed_json", str(error))

"""Plain text: every line is one item's main field, blank ones too, so that line and `seq` agree."""

from collections.abc import Iterator

import orjson

from jobs.corpus.base import Fields, Format, Line, Place, refuse_fields
from jobs.corpus.lines import not_utf8, read_lines
from jobs.errors import Problem


def read(place: Place, fields: Fields, max_bytes: int) -> Iterator[Line]:
    """An item a line."""
    refuse_fields(place, fields, "a text")
    with place.open() as stream:
        for number, line in read_lines(stream, place.name, max_bytes):
            yield number, line if isinstance(line, Problem) else item_line(number, line, fields.main)


def item_line(number: int, text: bytes, main: str) -> bytes | Problem:
    """A text as an item of its main field."""
    try:
        return orjson.dumps({main: text.decode()})
    except UnicodeDecodeError as error:
        return not_utf8(number, error)


FORMAT = Format("text", (".txt", ".text"), read)

"""Plain text: every line is one item's main field, blank ones too, so that line and `seq` agree."""

from collections.abc import Iterator

import orjson

from jobs.corpus.base import Fields, Format, Place, Read, check_text
from jobs.corpus.lines import not_utf8, read_lines
from jobs.corpus.mapping import Mapper
from jobs.errors import Problem


def read(place: Place, fields: Fields, max_bytes: int) -> Iterator[Read]:
    """An item a line."""
    check_text(place, fields, "a text", (fields.main,))
    mapper = Mapper(fields)
    with place.open() as stream:
        for number, line in read_lines(stream, place.name, max_bytes):
            yield number, line if isinstance(line, Problem) else _item(number, line, mapper)


def _item(number: int, line: bytes, mapper: Mapper) -> bytes | Problem | None:
    try:
        item = mapper.text(number, line.decode())
    except UnicodeDecodeError as error:
        return not_utf8(number, error)
    return orjson.dumps(item) if isinstance(item, dict) else item


FORMAT = Format("text", (".txt", ".text"), read)

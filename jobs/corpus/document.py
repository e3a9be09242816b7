"""A whole file as one item: what a .txt file is among the other files of a folder."""

from collections.abc import Iterator
from functools import partial

import orjson

from jobs.corpus.base import ID, Fields, Format, Place, Read, check_text
from jobs.corpus.mapping import Mapper
from jobs.corpus.source import content_digest
from jobs.errors import Problem

SUFFIX = ".txt"


def document(name: str) -> Format:
    """The format of a file that is one text; `name`, its path inside its folder, is the item's `custom_id`."""
    return Format("document", (), partial(_read, name), fingerprint=partial(_fingerprint, name))


def _read(name: str, place: Place, fields: Fields, max_bytes: int) -> Iterator[Read]:
    check_text(place, fields, "a text", (ID, fields.main))
    with place.open() as stream:
        data = stream.read(max_bytes + 1)
    yield 1, _item(name, data, Mapper(fields), max_bytes)


def _item(name: str, data: bytes, mapper: Mapper, max_bytes: int) -> bytes | Problem | None:
    if len(data) > max_bytes:
        return Problem(1, "line_too_long", f"longer than {max_bytes:,} bytes (setting max_line_bytes)")
    try:
        item = mapper.item(1, {ID: name, mapper.main: data.decode("utf-8-sig")})
        return orjson.dumps(item) if isinstance(item, dict) else item
    except UnicodeDecodeError as error:
        return Problem(1, "not_utf8", f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}")
    except TypeError:
        return Problem(1, "invalid_text", "the file's name is not UTF-8")


def _fingerprint(name: str, place: Place) -> bytes:
    return name.encode(errors="surrogateescape") + b"\0" + content_digest(place)

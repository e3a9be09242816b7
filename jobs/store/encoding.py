"""Text in the store: a block's items as the JSON lines they came in, and messages that both databases can hold."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

JSONL_ZLIB = "jsonl+zlib"


def lines(encoding: str, data: bytes) -> list[bytes]:
    """The block's items, one JSON text each, in order."""
    if encoding != JSONL_ZLIB:
        raise ValueError(f"unknown block encoding {encoding!r}; known: {JSONL_ZLIB}")
    found = zlib.decompress(data).split(b"\n")
    return found[:-1] if found and not found[-1] else found


def custom_id(seq: int, line: bytes) -> str:
    """The item's own id, or its `seq` as text."""
    item = orjson.loads(line)
    given = item.get("custom_id") if isinstance(item, Mapping) else None
    return given if isinstance(given, str) else str(seq)


def kept(line: bytes, keep: Sequence[str]) -> str | None:
    """The item's fields that are to come back untouched, as JSON text."""
    item: Any = orjson.loads(line) if keep else None
    if not isinstance(item, Mapping):
        return None
    return orjson.dumps({name: item[name] for name in keep if name in item}).decode()


def storable(message: str) -> str:
    """The message without what a database's text cannot hold: NUL and lone surrogates."""
    return message.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")

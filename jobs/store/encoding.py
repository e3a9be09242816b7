"""Text in the store: items as the JSON lines they came in, results as the lines they leave in, storable messages."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from jobs.errors import InvalidInput
from jobs.store.values import ResultRow
from jobs.tasks.embed import numbers

JSONL_ZLIB = "jsonl+zlib"
LONGEST_ID = 512
LARGEST_BLOCK = 2**30 + 2**21
"""Bytes of a block, unpacked: the longest line that may be allowed, and what may stand before it."""


def parse_block(encoding: str, data: bytes) -> list[bytes]:
    """The items of a stored block, each a line of JSON: an object under the task's field names. Raises InvalidInput."""
    if encoding != JSONL_ZLIB:
        raise InvalidInput(f"a block is stored as {encoding!r}; this version reads {JSONL_ZLIB!r}")
    unpacking = zlib.decompressobj()
    lines = unpacking.decompress(data, LARGEST_BLOCK)
    if not unpacking.eof:
        raise InvalidInput(f"a block is cut off, or has more than {LARGEST_BLOCK:,} bytes when it is unpacked")
    return lines.split(b"\n")


def custom_id(seq: int, line: bytes) -> str:
    """The item's own id, or its `seq` as text; also of a line that is no item, or has an id that cannot be stored."""
    given = _object(line).get("custom_id")
    usable = isinstance(given, str) and given and "\0" not in given
    return str(given)[:LONGEST_ID] if usable else str(seq)


def kept(line: bytes, keep: Sequence[str]) -> str | None:
    """The item's fields that are to come back untouched, as JSON text; None when it has none of them."""
    fields = _object(line) if keep else {}
    found = {name: fields[name] for name in keep if name in fields}
    return orjson.dumps(found).decode() if found else None


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, Mapping) else {}


def suspects_of(stored: str | None) -> dict[int, int]:
    """A chunk's suspects: how often each has ended a worker alone, by `seq`."""
    return {int(seq): times for seq, times in orjson.loads(stored).items()} if stored else {}


def suspects_text(suspects: Mapping[int, int], seqs: Collection[int]) -> str | None:
    """Those of the suspects that are among `seqs`, to be stored with their chunk."""
    mine = {str(seq): times for seq, times in suspects.items() if seq in seqs}
    return orjson.dumps(mine).decode() if mine else None


def storable(message: str) -> str:
    """The message without what a database's text cannot hold: NUL and lone surrogates."""
    return message.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def embedding(row: ResultRow, beside: Mapping[str, Any]) -> list[float] | list[list[float]]:
    """The row's vector as numbers, or those of each of its tokens. `beside`: what is stored with it."""
    return numbers(row.vector or b"", beside.get("tokens"))


def result_line(row: ResultRow) -> bytes:
    """The result as one JSON text in the shape callers see. Put together from stored JSON: nothing is parsed."""
    output = row.output or "null"
    if row.vector is not None:
        given: dict[str, Any] = orjson.loads(row.output) if row.output else {}
        output = orjson.dumps({**given, "embedding": embedding(row, given)}).decode()
    error = "null"
    if row.error_code is not None:
        error = orjson.dumps({"code": row.error_code, "message": row.error or ""}).decode()
    return (
        f'{{"seq":{row.seq},"custom_id":{orjson.dumps(row.custom_id).decode()},"status":"{row.status}",'
        f'"output":{output},"error":{error},"usage":{{"input_tokens":{row.tokens_in},"output_tokens":{row.tokens_out},'
        f'"truncated_tokens":{row.truncated_tokens},"windows":{row.windows}}},"kept":{row.kept or "{}"}}}'
    ).encode()

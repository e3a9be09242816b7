"""Text in the store: items as the JSON lines they came in, results as the lines they leave in, storable messages."""

import zlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from jobs.errors import InvalidInput
from jobs.store.values import ResultRow

JSONL_ZLIB = "jsonl+zlib"


def parse_block(encoding: str, data: bytes) -> list[bytes]:
    """The items of a stored block, each a line of JSON: an object under the task's field names. Raises InvalidInput."""
    if encoding != JSONL_ZLIB:
        raise InvalidInput(f"a block is stored as {encoding!r}; this version reads {JSONL_ZLIB!r}")
    return zlib.decompress(data).split(b"\n")


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


def embedding(row: ResultRow) -> list[float]:
    """The row's vector as numbers."""
    vector = array("f")
    vector.frombytes(row.vector or b"")
    return vector.tolist()


def result_line(row: ResultRow) -> bytes:
    """The result as one JSON text in the shape callers see. Put together from stored JSON: nothing is parsed."""
    output = row.output or "null"
    if row.vector is not None:
        given: dict[str, Any] = orjson.loads(row.output) if row.output else {}
        output = orjson.dumps({**given, "embedding": embedding(row)}).decode()
    error = "null"
    if row.error_code is not None:
        error = orjson.dumps({"code": row.error_code, "message": row.error or ""}).decode()
    return (
        f'{{"seq":{row.seq},"custom_id":{orjson.dumps(row.custom_id).decode()},"status":"{row.status}",'
        f'"output":{output},"error":{error},"usage":{{"input_tokens":{row.tokens_in},"output_tokens":{row.tokens_out},'
        f'"truncated_tokens":{row.truncated_tokens},"windows":{row.windows}}},"kept":{row.kept or "{}"}}}'
    ).encode()

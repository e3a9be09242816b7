"""Blocks: a run of items as stored bytes, and its cut into chunks."""

import hashlib
import zlib
from collections.abc import Sequence

from jobs.store.encoding import JSONL_ZLIB
from jobs.store.values import NewBlock, NewChunk

CHUNK_ITEMS = 256
CHUNK_TOKENS = 65_536
"""Estimated tokens, in and out, of one chunk: the unit of claim, lease and retry."""
BYTES_PER_TOKEN = 4
"""A rough measure for English; other scripts have more bytes and more tokens."""
LEVEL = 1
"""zlib's quickest: a higher one saves a few per cent and costs several times as long."""


def costs_of(lines: Sequence[bytes], allowances: Sequence[int]) -> list[int]:
    """Estimated tokens of items, those that may come out of each (`allowances`) included."""
    return [len(line) // BYTES_PER_TOKEN + 1 + out for line, out in zip(lines, allowances, strict=True)]


def build_block(
    seq_lo: int, lines: Sequence[bytes], allowances: Sequence[int], models: Sequence[str | None] = ()
) -> NewBlock:
    """The block of these items. `allowances`: tokens that may come out of each. `models`: where they have their own."""
    raw = b"\n".join(lines)
    digest = hashlib.sha256(raw).digest()
    chunks = cut(seq_lo, costs_of(lines, allowances), models)
    return NewBlock(seq_lo, len(lines), JSONL_ZLIB, digest, zlib.compress(raw, LEVEL), chunks)


def cut(seq_lo: int, costs: Sequence[int], models: Sequence[str | None] = ()) -> tuple[NewChunk, ...]:
    """Chunks over items of these costs, in order, each of one model and within both limits unless a single item is
    above."""
    chunks: list[NewChunk] = []
    own = models or [None] * len(costs)
    lo, total = 0, 0
    for at, cost in enumerate(costs):
        if at > lo and (total + cost > CHUNK_TOKENS or at - lo == CHUNK_ITEMS or own[at] != own[lo]):
            chunks.append(NewChunk(seq_lo + lo, seq_lo + at, total, own[lo]))
            lo, total = at, 0
        total += cost
    chunks.append(NewChunk(seq_lo + lo, seq_lo + len(costs), total, own[lo]))
    return tuple(chunks)

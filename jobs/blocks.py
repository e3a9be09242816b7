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


def build_block(seq_lo: int, lines: Sequence[bytes], allowances: Sequence[int]) -> NewBlock:
    """The block of these items. `allowances`: tokens that may come out of each."""
    raw = b"\n".join(lines)
    costs = [len(line) // BYTES_PER_TOKEN + 1 + out for line, out in zip(lines, allowances, strict=True)]
    digest = hashlib.sha256(raw).digest()
    return NewBlock(seq_lo, len(lines), JSONL_ZLIB, digest, zlib.compress(raw, LEVEL), cut(seq_lo, costs))


def cut(seq_lo: int, costs: Sequence[int]) -> tuple[NewChunk, ...]:
    """Chunks over items of these costs, in order, each within both limits unless a single item is above."""
    chunks: list[NewChunk] = []
    lo, total = 0, 0
    for at, cost in enumerate(costs):
        if at > lo and (total + cost > CHUNK_TOKENS or at - lo == CHUNK_ITEMS):
            chunks.append(NewChunk(seq_lo + lo, seq_lo + at, total))
            lo, total = at, 0
        total += cost
    chunks.append(NewChunk(seq_lo + lo, seq_lo + len(costs), total))
    return tuple(chunks)

"""The rows that cross the store's border: plain values, no ORM, no SQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from jobs.states import Control


class NewChunk(NamedTuple):
    seq_lo: int
    seq_hi: int
    """Exclusive."""
    cost: int
    """Estimated tokens."""
    model: str | None = None
    """None: the job's."""


class Sighting(NamedTuple):
    """An item that an incremental job runs."""

    key: bytes
    fingerprint: bytes
    custom_id: str | None
    seq: int


class Sightings(NamedTuple):
    """Those of one block."""

    name: str
    """The corpus that they are items of."""
    rows: Sequence[Sighting]


class NewBlock(NamedTuple):
    """A run of items as they came in; its chunks partition [seq_lo, seq_lo + n_items)."""

    seq_lo: int
    n_items: int
    encoding: str
    """How `data` is to be read: `jsonl+zlib`."""
    sha256: bytes
    """Of the uncompressed lines: the same block sent twice is recognised by it."""
    data: bytes
    chunks: tuple[NewChunk, ...]
    seen: Sightings | None = None


class Pick(NamedTuple):
    """An item of a job's canary."""

    seq: int
    cost: int
    """Estimated tokens."""


class Claim(NamedTuple):
    """A chunk this worker holds until its lease ends; every later write shows `token`."""

    chunk_id: int
    job_id: str
    block_id: int
    block_lo: int
    """`seq` of the block's first item."""
    seq_lo: int
    seq_hi: int
    cost: int
    tenant: str
    task: str
    model: str
    named: str
    """What the job calls its model: this one, or a pattern that it is one of."""
    params: dict[str, Any]
    keep: tuple[str, ...]
    attempt: int
    """1 for the first claim; above 1 some items may have results already."""
    crashes: int
    """Above 0 the chunk is a suspect: it is run with nothing else in flight."""
    errors: int
    token: str
    traceparent: str | None
    """The trace that the job's submit belongs to."""
    suspects: Mapping[int, int]
    """Items that were in flight when a worker died, and how often each has ended one alone: they run one at a time."""


class ResultRow(NamedTuple):
    """One item's result as stored; `output` and `kept` are JSON text, `vector` is float32 little-endian."""

    seq: int
    custom_id: str
    status: str
    output: str | None
    vector: bytes | None
    error_code: str | None
    error: str | None
    tokens_in: int
    tokens_out: int
    truncated_tokens: int
    windows: int
    kept: str | None


class Save(NamedTuple):
    """Results of one held chunk. `done`: these are its last."""

    chunk_id: int
    token: str
    rows: list[ResultRow]
    done: bool


class Renewal(NamedTuple):
    """What a renewal says of a chunk that is still held."""

    chunk_id: int
    control: Control


class InFlight(NamedTuple):
    """What a dead worker had in flight of one chunk."""

    chunk_id: int
    token: str
    seqs: Sequence[int] | None
    """None: any of its items; it was being prepared as a whole."""


class Pulse(NamedTuple):
    """What changes while a job goes on."""

    state: str
    control: str
    done: int
    """Items with a result."""


class Finished(NamedTuple):
    """A job that was completed just now."""

    id: str
    task: str
    model: str
    traceparent: str | None
    created_at: datetime
    finished_at: datetime


class Reaped(NamedTuple):
    """How many chunks of dead workers went which way."""

    pending: int
    """Back in line with one more crash against them."""
    split: int
    poisoned: int
    unblamed: int
    """Back in line as they were: nobody was watching when their lease ended, or nothing of them was in flight."""


class WorkerRow(NamedTuple):
    """A worker as it last reported itself."""

    id: str
    host: str
    pid: int
    boot_id: str
    device: str
    models: tuple[str, ...]
    queues: tuple[str, ...]
    state: str
    load: Mapping[str, float] | None
    """What its device did since the report before: `busy`, `padding`, `occupancy` (shares), `tokens_per_s`,
    `batch_tokens`. None: it had no work."""
    quiet: bool
    """It was told to claim nothing more."""
    memory_bytes: int | None
    """Of its device."""
    models_bytes: int | None
    """What loaded models take of it."""
    started_at: datetime
    heartbeat_at: datetime

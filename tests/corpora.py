"""Jobs for tests of the machine: items in, a sealed job out, without client or intake."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from jobs.blocks import build_block
from jobs.models import ModelSpec
from jobs.schemas import JobSpec
from jobs.store import Store
from jobs.store.values import NewBlock
from jobs.tasks import all_tasks

MARKED = "marked"
"""The fake engine with marks in a text turned on."""


def model(store: Store, name: str = MARKED, *, tasks: Sequence[str] = (), **options: Any) -> str:
    """Register the fake engine under a name, by default obeying marks (`worker.engines.fake.Marks`)."""
    served = tuple(tasks) or tuple(task.name for task in all_tasks())
    spec = ModelSpec(
        name=name,
        path="fake",
        kind="any",
        tasks=served,
        engine="fake",
        head="generate",
        generation={"markers": True, **options},
    )
    store.models.put(spec)
    return name


def submit(
    store: Store,
    items: int | Iterable[str | dict[str, Any]],
    *,
    per_block: int = 1000,
    per_chunk: int = 256,
    **spec: Any,
) -> str:
    """The id of a sealed job of these items (or of so many ordinary ones)."""
    texts = (f"item number {seq} of a test" for seq in range(items)) if isinstance(items, int) else items
    lines = [orjson.dumps(item if isinstance(item, dict) else {"text": item}) for item in texts]
    job, _ = store.jobs.create(JobSpec(**{"task": "classify", "model": "fake", **spec}), request_hash=os.urandom(32))
    blocks = [_block(lo, lines[lo : lo + per_block], per_chunk) for lo in range(0, len(lines), per_block)]
    store.jobs.append(job.id, blocks)
    return store.jobs.seal(job.id).id


def raw_submit(store: Store, lines: Sequence[bytes], **spec: Any) -> str:
    """The same of lines that no intake has checked."""
    job, _ = store.jobs.create(JobSpec(**{"task": "classify", "model": "fake", **spec}), request_hash=os.urandom(32))
    store.jobs.append(job.id, [_block(0, lines, 256)])
    return store.jobs.seal(job.id).id


def _block(lo: int, lines: Sequence[bytes], per_chunk: int) -> NewBlock:
    whole = build_block(lo, lines, [0] * len(lines))
    hi = lo + len(lines)
    chunk = type(whole.chunks[0])
    cuts = [chunk(at, min(at + per_chunk, hi), 8 * (min(at + per_chunk, hi) - at)) for at in range(lo, hi, per_chunk)]
    return whole._replace(chunks=tuple(cuts))

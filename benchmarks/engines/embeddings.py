"""Sentence vectors: Textmill's engine beside sentence-transformers' `encode`, which sorts texts by length as well."""

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.engines import inputs
from benchmarks.engines.direct import Direct
from benchmarks.engines.race import Finish, Gate, Run, Way, best_peer, race
from jobs.models import ModelSpec
from jobs.tasks.base import Embed

TEXTS = 128
BATCHES = (32, 128)
"""Batch sizes of `encode`: its default, and a larger one."""
SAME = 1e-5
"""Largest difference of vectors of length 1."""


def measure(name: str, corpus: str, *, threads: int, n: int = TEXTS) -> tuple[list[dict[str, object]], list[Gate]]:
    """A row for each way, and what is promised about them."""
    lengths = (inputs.skewed if corpus == "skewed" else inputs.uniform)(n)
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        spec = inputs.minilm(Path(folder)).model_copy(update={"tasks": ("embed",), "head": "embed"})
        finishes = race(list(ways(spec, inputs.texts(lengths), threads=threads)), threads=threads)
    ours, best = finishes["textmill"], best_peer(finishes)
    rows = [_row(corpus, each, ours, sum(lengths)) for each in finishes.values()]
    away = max(_away(each.outputs, ours.outputs) for each in finishes.values())
    return rows, [
        Gate(f"embed, {corpus}: {best.way.name}", best.seconds / ours.seconds, 1.0),
        Gate(f"embed, {corpus}: {SAME:g} over the largest difference", SAME / max(away, 1e-12), 1.0),
    ]


def ways(spec: ModelSpec, asked: list[str], *, threads: int) -> Iterator[Way]:
    """Textmill first; each gives the vector of every text, of length 1."""
    yield Way("textmill", partial(_textmill, spec, asked, threads), peer=False)
    for size in BATCHES:
        yield Way(f"sentence-transformers, {size}", partial(_encode, spec, asked, size))


def _textmill(spec: ModelSpec, asked: list[str], threads: int) -> Run:
    direct = Direct(spec, threads=threads)
    requests = [Embed(text, normalize=True) for text in asked]
    return lambda: [array("f", outcome.vector) for outcome in direct(requests)]  # type: ignore[union-attr]


def _encode(spec: ModelSpec, asked: list[str], size: int) -> Run:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(spec.path, device="cpu")
    return lambda: list(model.encode(asked, batch_size=size, normalize_embeddings=True, show_progress_bar=False))


def _row(corpus: str, finish: Finish, ours: Finish, tokens: int) -> dict[str, object]:
    return {
        "corpus": corpus,
        "way": finish.way.name,
        "seconds": round(finish.seconds, 3),
        "x textmill": round(ours.seconds / finish.seconds, 2),
        "tokens/s": round(tokens / finish.seconds),
        "largest difference": f"{_away(finish.outputs, ours.outputs):.1e}",
    }


def _away(some: Sequence[Any], others: Sequence[Any]) -> float:
    one, other = (torch.tensor([list(each) for each in side]) for side in (some, others))
    return float((one - other).abs().max())

"""Whole tasks on encoders, text to output: Textmill's tasks and engine beside the pipelines of Transformers."""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.engines import inputs
from benchmarks.engines.direct import Direct
from benchmarks.engines.race import Finish, Gate, Run, Way, race
from jobs import tasks
from jobs.models import ModelSpec
from jobs.tasks.base import Outcome

TEXTS = {"ner": 128, "zero_shot": 64}
LABELS = tuple(f"w{number}" for number in range(1000, 1020))
BATCH = 32
TODAY = {"ner": 4.0, "zero_shot": 8.0}
"""What is wanted against the pipeline in batches of 32, arrival order."""
BUILDERS = {"ner": inputs.tagger, "zero_shot": inputs.inference}
PARAMS: dict[str, dict[str, Any]] = {"ner": {}, "zero_shot": {"labels": LABELS, "hypothesis_template": "w7 w8 w9 {}"}}
CLOSE = 1e-4


def measure(
    name: str, corpus: str, *, threads: int, n: int | None = None
) -> tuple[list[dict[str, object]], list[Gate]]:
    """A row for each way, and what is promised about them."""
    count = n or TEXTS[name]
    asked = inputs.texts((inputs.skewed if corpus == "skewed" else inputs.uniform)(count))
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        spec = BUILDERS[name](Path(folder))
        finishes = race(list(ways(name, spec, asked, threads=threads)), threads=threads)
    base, ours = finishes[f"pipeline, {BATCH}"], finishes["textmill"]
    rows = [_row(name, corpus, each, base, ours) for each in finishes.values()]
    gates = [Gate(f"{name}: pipeline in batches of {BATCH}", base.seconds / ours.seconds, TODAY[name])]
    return rows, gates if corpus == "skewed" else []


def ways(name: str, spec: ModelSpec, asked: list[str], *, threads: int) -> Iterator[Way]:
    """Textmill first; each gives every text's answers as (label, place, score)."""
    yield Way("textmill", partial(_textmill, name, spec, asked, threads), peer=False)
    for size, said in ((1, "pipeline, one by one"), (BATCH, f"pipeline, {BATCH}")):
        yield Way(said, partial(_pipeline, name, spec, asked, size))


def _textmill(name: str, spec: ModelSpec, asked: list[str], threads: int) -> Run:
    direct, task = Direct(spec, threads=threads), tasks.find(name)
    params = tasks.validate_params(task, PARAMS[name])
    items = [task.input(text=text) for text in asked]

    def run() -> list[Any]:
        every = [task.preprocess(item, params, direct.codec) for item in items]
        outcomes: list[Outcome] = direct([request for each in every for request in each.requests])
        found, start = [], 0
        for item, each in zip(items, every, strict=True):
            end = start + len(each.requests)
            output: Any = task.postprocess(item, each, outcomes[start:end], params)
            found.append(_ours(name, output))
            start = end
        return found

    return run


def _pipeline(name: str, spec: ModelSpec, asked: list[str], size: int) -> Run:
    kind = {"ner": "token-classification", "zero_shot": "zero-shot-classification"}[name]
    made: Any = transformers.pipeline(kind, model=spec.path, dtype=torch.float32, device="cpu")
    if name == "ner":
        return lambda: [
            [(e["entity_group"], (e["start"], e["end"]), float(e["score"])) for e in row]
            for row in made(asked, batch_size=size, aggregation_strategy="simple")
        ]
    params = PARAMS[name]
    return lambda: [
        sorted((label, None, score) for label, score in zip(row["labels"], row["scores"], strict=True))
        for row in made(
            asked, list(params["labels"]), hypothesis_template=params["hypothesis_template"], batch_size=size
        )
    ]


def _ours(name: str, output: Any) -> list[Any]:
    if name == "ner":
        return [(each["entity_group"], (each["start"], each["end"]), each["score"]) for each in output.entities]
    return sorted((each["label"], None, each["score"]) for each in output.labels)


def _row(name: str, corpus: str, finish: Finish, base: Finish, ours: Finish) -> dict[str, object]:
    return {
        "task": name,
        "corpus": corpus,
        "way": finish.way.name,
        "seconds": round(finish.seconds, 2),
        f"x pipeline, {BATCH}": round(base.seconds / finish.seconds, 2),
        "texts/s": round(len(finish.outputs) / finish.seconds, 1),
        "equal": f"{_equal(finish.outputs, ours.outputs):.1%}",
    }


def _equal(some: Sequence[Any], others: Sequence[Any]) -> float:
    """Share of texts with the same labels in the same places, and the same scores but for rounding."""
    return sum(map(_same, some, others)) / len(others)


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return [each[:2] for each in one] == [each[:2] for each in other] and all(
        abs(left[2] - right[2]) <= CLOSE for left, right in zip(one, other, strict=True)
    )

"""Answers to prompts that share an instruction: Textmill's engine beside `generate()`, Transformers' continuous
batching and CTranslate2."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.engines import inputs
from benchmarks.engines.direct import Direct
from benchmarks.engines.forced import equal, generated
from benchmarks.engines.race import Finish, Gate, Run, Way, best_peer, race
from jobs.models import ModelSpec
from jobs.tasks.base import Generate, Sampling

ITEMS = 48
BATCH = 16
TODAY = (5.5, 6.0)
"""What is wanted against `generate()` in batches of 16, and one by one."""
PEER = 4.0
"""What is wanted against the best peer that batches by itself."""


def measure(name: str, corpus: str, *, threads: int, n: int = ITEMS) -> tuple[list[dict[str, object]], list[Gate]]:
    """A row for each way, and what is promised about them."""
    skewed = corpus == "skewed"
    own = [max(4, length) for length in inputs.skewed(n)] if skewed else [inputs.OWN] * n
    lengths = inputs.answers(n) if skewed else [32] * n
    asked = inputs.prompts(n, own=own)
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        finishes = race(list(ways(inputs.smollm2(Path(folder)), asked, lengths, threads=threads)), threads=threads)
    ours, base = finishes["textmill"], finishes[f"generate(), {BATCH}"]
    rows = [_row(corpus, each, base, sum(lengths)) for each in finishes.values()]
    peers = {name: each for name, each in finishes.items() if not name.startswith("generate()")}
    gates = []
    if any(each.way.peer for each in peers.values()):
        best = best_peer(peers)
        gates.append(Gate(f"causal, {corpus}: best peer ({best.way.name})", best.seconds / ours.seconds, PEER))
    if skewed:
        gates.append(Gate(f"causal: generate() in batches of {BATCH}", base.seconds / ours.seconds, TODAY[0]))
        one = finishes["generate(), one by one"]
        gates.append(Gate("causal: generate() one by one", one.seconds / ours.seconds, TODAY[1]))
    return rows, gates


def ways(spec: ModelSpec, asked: list[str], lengths: list[int], *, threads: int) -> Iterator[Way]:
    """Textmill first; each gives the new tokens of every prompt."""
    yield Way("textmill", partial(_textmill, spec, asked, lengths, threads), peer=False)
    yield Way("generate(), one by one", partial(_generate, spec, asked, lengths, 1))
    yield Way(f"generate(), {BATCH}", partial(_generate, spec, asked, lengths, BATCH))
    yield Way("continuous batching of Transformers", partial(_continuous, spec, asked, lengths))
    yield Way("ctranslate2, told the lengths", partial(_ctranslate2, spec, asked, lengths, threads))


def _textmill(spec: ModelSpec, asked: list[str], lengths: list[int], threads: int) -> Run:
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path)
    direct = Direct(spec, threads=threads)
    requests = [
        Generate(prompt=prompt, sampling=Sampling(max_new_tokens=length, min_new_tokens=length, temperature=0))
        for prompt, length in zip(asked, lengths, strict=True)
    ]

    def run() -> list[list[int]]:
        texts = [outcome.samples[0].text for outcome in direct(requests)]  # type: ignore[union-attr]
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    return run


def _plain(spec: ModelSpec) -> tuple[Any, Any]:
    """The model and its tokenizer as Transformers loads them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(spec.path, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(spec.path, padding_side="left")


def _generate(spec: ModelSpec, asked: list[str], lengths: list[int], size: int) -> Run:
    model, tokenizer = _plain(spec)

    def run() -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(asked), size):
            given = tokenizer(asked[start : start + size], return_tensors="pt", padding=True)
            given = {name: given[name] for name in ("input_ids", "attention_mask")}
            width = given["input_ids"].shape[1]
            found += generated(model, given, lengths[start : start + size], start=width)
        return found

    return run


def _continuous(spec: ModelSpec, asked: list[str], lengths: list[int]) -> Run:
    """It takes one length for all of a call, and has no end to stop at here: what is generated after an item's own
    length is in vain, as it would not be with texts that end by themselves."""
    model, tokenizer = _plain(spec)

    def run() -> list[list[int]]:
        ids = [tokenizer(prompt)["input_ids"] for prompt in asked]
        config = transformers.GenerationConfig(
            max_new_tokens=max(lengths),
            do_sample=False,
            eos_token_id=-1,
            pad_token_id=0,
            num_blocks=256,
            max_batch_tokens=512,
        )
        made = model.generate_batch(inputs=ids, generation_config=config, progress_bar=False)
        found = {tuple(each.prompt_ids): list(each.generated_tokens) for each in made.values()}
        return [found[tuple(each)][:length] for each, length in zip(ids, lengths, strict=True)]

    return run


def _ctranslate2(spec: ModelSpec, asked: list[str], lengths: list[int], threads: int) -> Run:
    import ctranslate2

    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path)
    with tempfile.TemporaryDirectory(prefix="textmill-ct2-") as folder:
        ctranslate2.converters.TransformersConverter(spec.path).convert(f"{folder}/model", quantization="float32")
        generator = ctranslate2.Generator(f"{folder}/model", intra_threads=threads, compute_type="float32")

    def run() -> list[list[int]]:
        found: list[list[int]] = [[] for _ in asked]
        order = sorted(range(len(asked)), key=lengths.__getitem__)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            ends = [lengths[at] for at in batch]
            prompts = [tokenizer.convert_ids_to_tokens(tokenizer(asked[at])["input_ids"]) for at in batch]
            made = generator.generate_batch(
                prompts,
                max_length=max(ends),
                min_length=max(ends),
                include_prompt_in_result=False,
                callback=lambda step, ends=ends: step.step + 1 >= ends[step.batch_id],  # type: ignore[misc]
            )
            for at, each in zip(batch, made, strict=True):
                found[at] = each.sequences_ids[0][: lengths[at]]
        return found

    return run


def _row(corpus: str, finish: Finish, base: Finish, tokens: int) -> dict[str, object]:
    return {
        "corpus": corpus,
        "way": finish.way.name,
        "seconds": round(finish.seconds, 2),
        f"x generate(), {BATCH}": round(base.seconds / finish.seconds, 2),
        "new tokens/s": round(tokens / finish.seconds),
        "same tokens": f"{equal(finish.outputs, base.outputs):.1%}",
    }

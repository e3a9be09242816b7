"""Translations, greedy and by beam search: Textmill's engine beside `generate()` and CTranslate2."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import transformers

from benchmarks.engines import inputs
from benchmarks.engines.direct import Direct
from benchmarks.engines.forced import equal, generated
from benchmarks.engines.race import Finish, Gate, Run, Way, race
from jobs.models import ModelSpec
from jobs.tasks.base import Generate, Sampling

ITEMS = 128
BATCH = 32
STEP = 4
"""Lengths of answers are multiples of this, so that a peer that is told them can batch those of equal length."""
BUILDERS = {"marian": inputs.marian, "t5": inputs.t5}
TODAY = {1: 3.0, 4: 6.0}
"""What is wanted against `generate()` in batches of 32 in arrival order, by beams."""
SHORTEST, LONGEST = 5, 80


def measure(name: str, corpus: str, *, threads: int, n: int = ITEMS) -> tuple[list[dict[str, object]], list[Gate]]:
    """A row for each way, and what is promised about them."""
    skewed = corpus == "skewed"
    sizes = [min(LONGEST, max(SHORTEST, length)) for length in inputs.skewed(n)] if skewed else [32] * n
    lengths = inputs.answers(n, step=STEP) if skewed else [32] * n
    asked = inputs.sources(sizes)
    rows: list[dict[str, object]] = []
    gates: list[Gate] = []
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        spec = BUILDERS[name](Path(folder))
        for beams in TODAY:
            finishes = race(list(ways(spec, asked, lengths, beams, threads=threads)), threads=threads)
            base = finishes[f"generate(), {BATCH}"]
            rows += [_row(name, corpus, beams, each, base, sum(lengths)) for each in finishes.values()]
            gates += _gates(
                f"{name}, {corpus}, {'greedy' if beams == 1 else f'{beams} beams'}", finishes, base, beams, skewed
            )
    return rows, gates


def ways(spec: ModelSpec, asked: list[str], lengths: list[int], beams: int, *, threads: int) -> Iterator[Way]:
    """Textmill first; each gives the new tokens of every text."""
    yield Way("textmill", partial(_textmill, spec, asked, lengths, beams, threads), peer=False)
    yield Way(f"generate(), {BATCH}", partial(_generate, spec, asked, lengths, beams))
    yield Way("ctranslate2, told the lengths", partial(_ctranslate2, spec, asked, lengths, beams, threads))


def _textmill(spec: ModelSpec, asked: list[str], lengths: list[int], beams: int, threads: int) -> Run:
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path)
    direct = Direct(spec, threads=threads)
    requests = [
        Generate(
            source=text,
            sampling=Sampling(max_new_tokens=length, min_new_tokens=length, num_beams=beams, temperature=0),
        )
        for text, length in zip(asked, lengths, strict=True)
    ]

    def run() -> list[list[int]]:
        texts = [outcome.samples[0].text for outcome in direct(requests)]  # type: ignore[union-attr]
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    return run


def _generate(spec: ModelSpec, asked: list[str], lengths: list[int], beams: int) -> Run:
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(spec.path, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path)

    def run() -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(asked), BATCH):
            given = tokenizer(asked[start : start + BATCH], return_tensors="pt", padding=True)
            given = {name: given[name] for name in ("input_ids", "attention_mask")}
            found += generated(model, given, lengths[start : start + BATCH], start=1, num_beams=beams)
        return found

    return run


def _ctranslate2(spec: ModelSpec, asked: list[str], lengths: list[int], beams: int, threads: int) -> Run:
    import ctranslate2

    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path)
    with tempfile.TemporaryDirectory(prefix="textmill-ct2-") as folder:
        ctranslate2.converters.TransformersConverter(spec.path).convert(f"{folder}/model", quantization="float32")
        translator = ctranslate2.Translator(f"{folder}/model", intra_threads=threads, compute_type="float32")
    ids = [tokenizer(text)["input_ids"] for text in asked]
    tokens = [tokenizer.convert_ids_to_tokens(each) for each in ids]

    def run() -> list[list[int]]:
        found: list[list[int]] = [[] for _ in asked]
        for length in sorted(set(lengths)):
            batch = [at for at, each in enumerate(lengths) if each == length]
            made = translator.translate_batch(
                [tokens[at] for at in batch],
                beam_size=beams,
                max_batch_size=BATCH,
                min_decoding_length=length,
                max_decoding_length=length,
                length_penalty=1.0,
            )
            for at, each in zip(batch, made, strict=True):
                found[at] = tokenizer.convert_tokens_to_ids(each.hypotheses[0])
        return found

    return run


def _gates(name: str, finishes: dict[str, Finish], base: Finish, beams: int, skewed: bool) -> list[Gate]:
    ours = finishes["textmill"].seconds
    told = finishes.get("ctranslate2, told the lengths")
    gates = [Gate(f"{name}: CTranslate2, told the lengths", told.seconds / ours, 1.0)] if told else []
    return (
        [*gates, Gate(f"{name}: generate() in batches of {BATCH}", base.seconds / ours, TODAY[beams])]
        if skewed
        else gates
    )


def _row(model: str, corpus: str, beams: int, finish: Finish, base: Finish, tokens: int) -> dict[str, object]:
    return {
        "model": model,
        "corpus": corpus,
        "beams": beams,
        "way": finish.way.name,
        "seconds": round(finish.seconds, 2),
        f"x generate(), {BATCH}": round(base.seconds / finish.seconds, 2),
        "new tokens/s": round(tokens / finish.seconds),
        "same tokens": f"{equal(finish.outputs, base.outputs):.1%}",
    }

"""Engines on a GPU, in bfloat16: Textmill's beside the pipeline and `generate()` on the same card.

    python -m benchmarks.engines.gpu [encoders causal seq2seq]

All ways share a process and a card, and take turns; seconds are medians, tokenizing included.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from benchmarks.engines import inputs
from benchmarks.engines.direct import Direct
from benchmarks.engines.encoders import BUILDERS, useful_gflop
from benchmarks.engines.forced import equal, generated
from benchmarks.engines.race import Run, be_quiet
from benchmarks.report import show
from jobs.models import ModelSpec
from jobs.tasks.base import Classify, Embed, Generate, Sampling

GPU = "cuda:0"
ROUNDS = 3
BATCHES = (32, 256)
CORPORA = {"skewed": inputs.skewed, "uniform": inputs.uniform}
MEMORY = 32 * 2**30
TOKENS = 262_144
"""Most tokens of a pass: the engine takes fewer where that is faster."""
MATRIX = 8192
"""Rows and columns of the product by which the card's peak is measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--items", type=int, help="so many instead of the usual number")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--corpora", nargs="+", choices=list(CORPORA), default=list(CORPORA), help="for encoders")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes of the peers' batches")
    asked = parser.parse_args()
    be_quiet()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)  # as a worker has it
    card, peak = torch.cuda.get_device_name(GPU), peak_tflops()
    print(f"{card}: {peak:.0f} TFLOP/s in bfloat16 products of {MATRIX}, torch {torch.__version__}", flush=True)
    for kind in asked.kinds:
        for rows in KINDS[kind](Asked(peak, asked.items, asked.rounds, asked.batches, asked.corpora)):
            show(f"engines on a GPU: {kind}", rows, note=f"{card}, bfloat16, medians of {asked.rounds}")


class Asked(NamedTuple):
    """What is measured, how often, and beside what."""

    peak: float
    items: int | None
    rounds: int
    batches: Sequence[int]
    corpora: Sequence[str]

    def peers(self, name: str, make: Callable[[int], Run]) -> dict[str, Callable[[], Run]]:
        return {f"{name}, {size}": partial(make, size) for size in self.batches}


def peak_tflops() -> float:
    one, other = (torch.randn(MATRIX, MATRIX, device=GPU, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(5):
            one @ other
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / 5)
    return 2 * MATRIX**3 / statistics.median(seconds) / 1e12


def busy_share(run: Run) -> float:
    """The share of one run during which the card computed."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return sum(each.self_device_time_total for each in seen.key_averages()) / 1e6 / seconds


def raced(ways: dict[str, Callable[[], Run]], rounds: int) -> dict[str, tuple[float, Sequence[Any], Run]]:
    """Median seconds and outputs of each way, and the way itself; one round before them does not count."""
    runs = {name: make() for name, make in ways.items()}
    outputs = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    print({name: [round(each, 3) for each in some] for name, some in seconds.items()}, flush=True)
    return {name: (statistics.median(seconds[name]), outputs[name], runs[name]) for name in runs}


# ----- encoders ------------------------------------------------------------------------------------------

Rows = list[dict[str, object]]


def encoders(asked: Asked) -> Iterator[Rows]:
    for name in BUILDERS:
        for corpus in asked.corpora:
            with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
                yield _encoder(BUILDERS[name](Path(folder)), corpus, CORPORA[corpus](asked.items or 16_384), asked)


def _encoder(spec: ModelSpec, corpus: str, lengths: list[int], asked: Asked) -> Rows:
    texts = inputs.texts(lengths)
    peers = asked.peers("pipeline", partial(_pipeline, spec, texts))
    found = raced({"textmill": partial(_classified, spec, texts), **peers}, asked.rounds)
    gflop = useful_gflop(spec, lengths)
    first = next(iter(peers))
    base, wanted = found[first][0], torch.tensor(list(found[first][1]))
    rows: Rows = []
    for name, (seconds, outputs, run) in found.items():
        away = float((torch.tensor(list(outputs)) - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
        rows.append(
            {
                "model": spec.name,
                "corpus": corpus,
                "way": name,
                "seconds": round(seconds, 3),
                f"x {first}": round(base / seconds, 2),
                "tokens/s": round(sum(lengths) / seconds),
                "of the peak": f"{gflop / seconds / 1e3 / asked.peak:.1%}",
                "busy": f"{busy_share(run):.0%}",
                "largest difference": f"{away:.1e}",
            }
        )
    return rows


def _classified(spec: ModelSpec, asked: list[str]) -> Run:
    direct = _direct(spec)
    requests = [Classify(text) for text in asked]
    return lambda: [outcome.logits for outcome in direct(requests)]  # type: ignore[union-attr]


def _direct(spec: ModelSpec) -> Direct:
    threads = len(os.sched_getaffinity(0))
    given = spec.model_copy(update={"dtype": "bfloat16"})
    return Direct(given, threads=threads, max_batch_tokens=TOKENS, memory_bytes=MEMORY, device=GPU)


def _pipeline(spec: ModelSpec, asked: list[str], size: int) -> Run:
    made = transformers.pipeline("text-classification", model=spec.path, dtype=torch.bfloat16, device=GPU)

    def run() -> list[Any]:
        found = made(asked, batch_size=size, top_k=None, function_to_apply="none")
        scores = [{each["label"]: each["score"] for each in row} for row in found]
        return [tuple(row[label] for label in inputs.LABELS.values()) for row in scores]

    return run


# ----- embeddings ----------------------------------------------------------------------------------------


def embeddings(asked: Asked) -> Iterator[Rows]:
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        spec = inputs.minilm(Path(folder)).model_copy(update={"tasks": ("embed",), "head": "embed"})
        lengths = inputs.skewed(asked.items or 16_384)
        requests = [Embed(text) for text in inputs.texts(lengths)]
        direct = _direct(spec)
        seconds, _, run = raced({"textmill": lambda: lambda: direct(requests)}, asked.rounds)["textmill"]
        rates = {"texts/s": round(len(requests) / seconds), "tokens/s": round(sum(lengths) / seconds)}
        yield [{**rates, "busy": f"{busy_share(run):.0%}"}]


# ----- generation ----------------------------------------------------------------------------------------


def causal(asked: Asked) -> Iterator[Rows]:
    n = asked.items or 1024
    texts, lengths = inputs.prompts(n, own=[max(4, length) for length in inputs.skewed(n)]), inputs.answers(n)
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        spec = inputs.smollm2(Path(folder))
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path, padding_side="left")
        model = transformers.AutoModelForCausalLM.from_pretrained(spec.path, dtype=torch.bfloat16).eval().to(GPU)
        peers = asked.peers("generate()", partial(_generate, model, tokenizer, texts, lengths, 1))
        found = raced({"textmill": partial(_written, spec, texts, lengths), **peers}, asked.rounds)
        yield _generations("smollm2", 1, found, next(iter(peers)), sum(lengths))


def seq2seq(asked: Asked) -> Iterator[Rows]:
    n = asked.items or 1024
    texts = inputs.sources([min(80, max(5, length)) for length in inputs.skewed(n)])
    lengths = inputs.answers(n, step=4)
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        spec = inputs.marian(Path(folder))
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path)
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(spec.path, dtype=torch.bfloat16).eval().to(GPU)
        for beams in (1, 4):
            peers = asked.peers("generate()", partial(_generate, model, tokenizer, texts, lengths, beams))
            found = raced({"textmill": partial(_written, spec, texts, lengths, beams), **peers}, asked.rounds)
            yield _generations("marian", beams, found, next(iter(peers)), sum(lengths))


def _written(spec: ModelSpec, asked: list[str], lengths: list[int], beams: int = 1) -> Run:
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path)
    direct = _direct(spec)
    field = "source" if spec.kind == "seq2seq" else "prompt"
    requests = [
        Generate(
            **{field: text},
            sampling=Sampling(max_new_tokens=length, min_new_tokens=length, num_beams=beams, temperature=0),
        )
        for text, length in zip(asked, lengths, strict=True)
    ]

    def run() -> list[list[int]]:
        texts = [outcome.samples[0].text for outcome in direct(requests)]  # type: ignore[union-attr]
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    return run


def _generate(model: Any, tokenizer: Any, asked: list[str], lengths: list[int], beams: int, size: int) -> Run:
    def run() -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(asked), size):
            given = tokenizer(asked[start : start + size], return_tensors="pt", padding=True).to(GPU)
            given = {name: given[name] for name in ("input_ids", "attention_mask")}
            width = 1 if model.config.is_encoder_decoder else given["input_ids"].shape[1]
            found += generated(model, given, lengths[start : start + size], start=width, num_beams=beams)
        return found

    return run


def _generations(
    model: str, beams: int, found: dict[str, tuple[float, Sequence[Any], Run]], first: str, tokens: int
) -> Rows:
    base = found[first]
    return [
        {
            "model": model,
            "beams": beams,
            "way": name,
            "seconds": round(seconds, 2),
            f"x {first}": round(base[0] / seconds, 2),
            "new tokens/s": round(tokens / seconds),
            "busy": f"{busy_share(run):.0%}" if name == "textmill" else "",
            "same tokens": f"{equal(outputs, base[1]):.1%}",
        }
        for name, (seconds, outputs, run) in found.items()
    ]


KINDS: dict[str, Callable[[Asked], Iterator[Rows]]] = {
    "encoders": encoders,
    "embeddings": embeddings,
    "causal": causal,
    "seq2seq": seq2seq,
}

if __name__ == "__main__":
    main()

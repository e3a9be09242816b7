"""Classification by encoders: Textmill's engine beside the pipeline, OpenVINO, CTranslate2 and ONNX Runtime."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers

from benchmarks.engines import inputs
from benchmarks.engines.direct import Direct
from benchmarks.engines.race import Finish, Gate, Run, Way, best_peer, race
from jobs.models import ModelSpec
from jobs.tasks.base import Classify
from worker.engines.torch.linear import peak_gflops
from worker.packing import pack

TEXTS = 128
BATCHES = (8, 32, 128)
"""Batch sizes at which the pipeline is tried."""
BUDGET = 2048
"""Padded tokens of a peer's batch: the size that was best for most of them here."""
BUILDERS = {"minilm": inputs.minilm, "distilbert": inputs.distilbert}
TODAY = {"minilm": (9.0, 3.2), "distilbert": (9.0, 3.2)}
"""What is wanted against the pipeline: in batches of 32 in arrival order, and one by one."""
PEAK_SHARE = 0.6

Texts = list[str]


def measure(name: str, corpus: str, *, threads: int, n: int = TEXTS) -> tuple[list[dict[str, object]], list[Gate]]:
    """A row for each way, and what is promised about them."""
    lengths = (inputs.skewed if corpus == "skewed" else inputs.uniform)(n)
    asked = inputs.texts(lengths)
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        spec = BUILDERS[name](Path(folder))
        finishes = race(list(ways(spec, asked, threads=threads)), threads=threads)
        gflops = useful_gflop(spec, lengths)
    peak = peak_gflops()
    base, ours, best = finishes["pipeline, 32"], finishes["textmill"], best_peer(finishes)
    rows = [_row(name, corpus, each, base, ours, gflops, peak, sum(lengths)) for each in finishes.values()]
    gates = [
        Gate(f"{name}, {corpus}: best peer ({best.way.name})", best.seconds / ours.seconds, 1.0),
        Gate(f"{name}, {corpus}: share of the GEMM peak", gflops / ours.seconds / peak, PEAK_SHARE),
    ]
    if corpus == "skewed":
        one = finishes["pipeline, one by one"]
        gates += [
            Gate(f"{name}: pipeline in batches of 32", base.seconds / ours.seconds, TODAY[name][0]),
            Gate(f"{name}: pipeline one by one", one.seconds / ours.seconds, TODAY[name][1]),
        ]
    return rows, gates


def ways(spec: ModelSpec, asked: Texts, *, threads: int) -> Iterator[Way]:
    """Textmill first; each gives the logits of every text."""
    yield Way("textmill", partial(_textmill, spec, asked, threads), peer=False)
    yield Way("pipeline, one by one", partial(_pipeline, spec, asked, 1))
    for size in BATCHES:
        yield Way(f"pipeline, {size}", partial(_pipeline, spec, asked, size))
    for name, forward in (("openvino", _openvino), ("ctranslate2", _ctranslate2), ("onnxruntime", _onnxruntime)):
        yield Way(f"{name}, sorted", partial(_sorted, spec, asked, partial(forward, spec, threads)))


def useful_gflop(spec: ModelSpec, lengths: Sequence[int]) -> float:
    """Multiplications and additions that the texts need, without any padding: linear layers and attention."""
    config = inputs.numbers_of(spec)
    width = config.get("hidden_size") or config["dim"]
    layers = config.get("num_hidden_layers") or config["n_layers"]
    inside = config.get("intermediate_size") or config["hidden_dim"]
    weights = layers * (4 * width * width + 2 * width * inside)
    return sum(2 * weights * length + 4 * layers * width * length**2 for length in lengths) / 1e9


def _textmill(spec: ModelSpec, asked: Texts, threads: int) -> Run:
    direct = Direct(spec, threads=threads)
    requests = [Classify(text) for text in asked]
    return lambda: [outcome.logits for outcome in direct(requests)]  # type: ignore[union-attr]


def _pipeline(spec: ModelSpec, asked: Texts, size: int) -> Run:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(spec.path, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path)
    made = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")

    def run() -> list[Any]:
        found = made(asked, batch_size=size, top_k=None, function_to_apply="none")
        order = list(inputs.LABELS.values())
        return [_in_order(row, order) for row in found]

    return run


def _in_order(row: list[dict[str, Any]], labels: list[str]) -> tuple[float, ...]:
    scores = {each["label"]: each["score"] for each in row}
    return tuple(scores[label] for label in labels)


Forward = Callable[[dict[str, Any]], Any]


def _sorted(spec: ModelSpec, asked: Texts, make: Callable[[], Forward]) -> Run:
    """A peer with what a careful user would give it: texts sorted by length, batches of a token budget."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.path)
    forward = make()

    def run() -> list[Any]:
        ids = tokenizer(asked)["input_ids"]
        found: list[Any] = [None] * len(asked)
        for batch in pack([len(each) for each in ids], BUDGET):
            given = tokenizer.pad({"input_ids": [ids[at] for at in batch]}, return_tensors="np")
            for at, row in zip(batch, forward(dict(given)), strict=True):
                found[at] = tuple(map(float, row))
        return found

    return run


def _openvino(spec: ModelSpec, threads: int) -> Forward:
    import openvino

    model = transformers.AutoModelForSequenceClassification.from_pretrained(spec.path, dtype=torch.float32).eval()
    example = {"input_ids": torch.ones(2, 8).long(), "attention_mask": torch.ones(2, 8).long()}
    converted = openvino.convert_model(model, example_input=example)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda given: compiled([given["input_ids"], given["attention_mask"]])[0]


def _ctranslate2(spec: ModelSpec, threads: int) -> Forward:
    import ctranslate2

    with tempfile.TemporaryDirectory(prefix="textmill-ct2-") as folder:
        ctranslate2.converters.TransformersConverter(spec.path).convert(f"{folder}/model", quantization="float32")
        encoder = ctranslate2.Encoder(f"{folder}/model", device="cpu", intra_threads=threads, compute_type="float32")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(spec.path, dtype=torch.float32).eval()

    def head(hidden: torch.Tensor) -> torch.Tensor:
        if hasattr(model, "pre_classifier"):
            return model.classifier(model.pre_classifier(hidden[:, 0]).relu())  # type: ignore[no-any-return]
        return model.classifier(model.bert.pooler(hidden))  # type: ignore[no-any-return]

    def forward(given: dict[str, Any]) -> Any:
        lengths = given["attention_mask"].sum(1).astype("int32")
        output = encoder.forward_batch(
            ctranslate2.StorageView.from_array(given["input_ids"].astype("int32")),
            lengths=ctranslate2.StorageView.from_array(lengths),
        )
        with torch.inference_mode():
            return head(torch.as_tensor(numpy.array(output.last_hidden_state))).numpy()

    return forward


def _onnxruntime(spec: ModelSpec, threads: int) -> Forward:
    import onnxruntime

    model = transformers.AutoModelForSequenceClassification.from_pretrained(spec.path, dtype=torch.float32).eval()
    example = (torch.ones(2, 8).long(), torch.ones(2, 8).long())
    with tempfile.TemporaryDirectory(prefix="textmill-onnx-") as folder:
        file = f"{folder}/model.onnx"
        axes = {"input_ids": {0: "texts", 1: "tokens"}, "attention_mask": {0: "texts", 1: "tokens"}}
        torch.onnx.export(model, example, file, input_names=list(axes), dynamic_axes=axes, dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, {name: given[name] for name in axes})[0]


def _row(
    model: str, corpus: str, finish: Finish, base: Finish, ours: Finish, gflop: float, peak: float, tokens: int
) -> dict[str, object]:
    return {
        "model": model,
        "corpus": corpus,
        "way": finish.way.name,
        "seconds": round(finish.seconds, 3),
        "x pipeline, 32": round(base.seconds / finish.seconds, 2),
        "tokens/s": round(tokens / finish.seconds),
        "GFLOP/s": round(gflop / finish.seconds),
        "of the peak": f"{gflop / finish.seconds / peak:.0%}",
        "largest difference": f"{_difference(finish.outputs, ours.outputs):.1e}",
    }


def _difference(some: Sequence[Any], others: Sequence[Any]) -> float:
    """Of the logits, as a share of the largest (but at least of 1)."""
    one, other = torch.tensor(list(some)), torch.tensor(list(others))
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))

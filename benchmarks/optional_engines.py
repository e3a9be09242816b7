"""The optional engines beside their own libraries, called directly on the same prepared inputs: what the port costs."""

import argparse
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy

from benchmarks.engines import inputs
from benchmarks.engines.race import Gate, Run, Way, be_quiet, best_peer, race
from benchmarks.report import show
from jobs.models import ModelSpec
from jobs.tasks.base import Classified, Classify, Generate, Request, Sampling
from worker.engines import engine
from worker.engines.base import Encoded, EngineCodec, Model, Room, Work
from worker.packing import pack

WANTED = 0.95
"""Of the library's own rate."""
NEW_TOKENS = 24
LONGEST_SOURCE = 80


class Loaded:
    """A model behind the port, and requests that are tokenized already."""

    def __init__(self, spec: ModelSpec, requests: Sequence[Request], *, threads: int, cache: Path) -> None:
        found = engine(spec.engine)
        self.codec: EngineCodec = found.codec(spec)
        room = Room("cpu", 4 * 2**30, threads, 4096, spec.dtype or "float32", cache)
        self.model: Model = found.load(spec, self.codec, room)
        self.encoded: list[Any] = [each for each in self.codec.encode(requests) if isinstance(each, Encoded)]

    def run(self) -> list[Any]:
        """The outcomes, in the order of the requests."""
        self.model.add([Work(at, each, at) for at, each in enumerate(self.encoded)])
        found: dict[Any, Any] = {}
        while self.model.pending():
            found.update(self.model.step())
        return [found[at] for at in range(len(self.encoded))]


def openvino(folder: Path, *, threads: int, n: int = 256, dtype: str = "float32") -> tuple[list[Way], str]:
    """A MiniLM-size classifier on skewed texts."""
    spec = inputs.minilm(folder).model_copy(update={"engine": "openvino", "dtype": dtype})
    requests = [Classify(text) for text in inputs.texts(inputs.skewed(n))]
    load = partial(Loaded, spec, requests, threads=threads, cache=folder / "converted")
    ways = [
        Way("textmill", partial(_textmill, load), peer=False),
        *(Way(f"openvino, {tokens} tokens", partial(_openvino, load, tokens)) for tokens in (512, 1024, 4096)),
    ]
    return ways, f"MiniLM size, {dtype}"


def _textmill(load: partial[Loaded]) -> Run:
    loaded = load()
    return lambda: [_plainly(outcome) for outcome in loaded.run()]


def _plainly(outcome: Any) -> Any:
    """Logits, or the text."""
    return outcome.logits if isinstance(outcome, Classified) else outcome.samples[0].text


def _openvino(load: partial[Loaded], tokens: int) -> Run:
    """The library's own call on padded arrays that lie ready, sorted by length."""
    loaded = load()
    compiled: Any = loaded.model._net._reader._pass  # type: ignore[attr-defined]
    ids = [each.payload.ids for each in loaded.encoded]
    plan = pack(list(map(len, ids)), tokens)
    arrays = [_side_by_side([ids[at] for at in batch], loaded.codec) for batch in plan]

    def run() -> list[Any]:
        found: dict[int, Any] = {}
        for batch, given in zip(plan, arrays, strict=True):
            logits = compiled.infer(given, share_inputs=True)[0].tolist()
            found.update(zip(batch, map(tuple, logits), strict=True))
        return [found[at] for at in range(len(ids))]

    return run


def _side_by_side(rows: Sequence[Sequence[int]], codec: Any) -> list[Any]:
    ids = numpy.full((len(rows), max(map(len, rows))), codec.pad, dtype=numpy.int64)
    mask = numpy.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)], mask[at, : len(row)] = row, 1
    return [ids, mask, numpy.zeros_like(ids)]


def ctranslate2(
    folder: Path, *, threads: int, n: int = 128, dtype: str = "float32", beams: int = 1
) -> tuple[list[Way], str]:
    """A Marian-size translator on skewed texts, answers of one length."""
    spec = inputs.marian(folder).model_copy(update={"engine": "ctranslate2", "dtype": dtype})
    lengths = [min(LONGEST_SOURCE, length) for length in inputs.skewed(n)]
    wishes = Sampling(max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, num_beams=beams, temperature=0)
    requests = [Generate(source=text, sampling=wishes) for text in inputs.sources(lengths)]
    load = partial(Loaded, spec, requests, threads=threads, cache=folder / "converted")
    budget = {"max_batch_size": 2048, "batch_type": "tokens"}
    ways = [
        Way("textmill", partial(_textmill, load), peer=False),
        Way("ctranslate2, 32 texts", partial(_ctranslate2, load, beams, max_batch_size=32)),
        Way("ctranslate2, 2,048 tokens", partial(_ctranslate2, load, beams, **budget)),
    ]
    return ways, f"Marian size, {dtype}, {beams} beam(s)"


def _ctranslate2(load: partial[Loaded], beams: int, **batches: Any) -> Run:
    """The library's own call, which sorts and cuts batches by itself, on tokens that lie ready."""
    loaded = load()
    translator: Any = loaded.model._net._model  # type: ignore[attr-defined]
    rows = [list(map(str, each.payload.ids)) for each in loaded.encoded]
    decode: Any = loaded.codec.tokens.decode  # type: ignore[attr-defined]
    limits = {"max_decoding_length": NEW_TOKENS, "min_decoding_length": NEW_TOKENS, "max_input_length": 0}

    def run() -> list[Any]:
        found = translator.translate_batch(rows, [["0"]] * len(rows), beam_size=beams, **limits, **batches)
        return [decode(list(map(int, result.hypotheses[0]))) for result in found]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=("openvino", "ctranslate2"))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "int8"])
    parser.add_argument("--beams", nargs="+", type=int, default=[1])
    parser.add_argument("--items", type=int)
    asked = parser.parse_args()
    be_quiet()
    rows: list[dict[str, object]] = []
    gates: list[Gate] = []
    for dtype in asked.dtypes:
        more = {"threads": asked.threads, "dtype": dtype} | ({"n": asked.items} if asked.items else {})
        if asked.only != "ctranslate2":
            _measure(openvino, rows, gates, more)
        if asked.only != "openvino":
            for beams in asked.beams:
                _measure(ctranslate2, rows, gates, {**more, "beams": beams})
    show("optional engines", rows, note=f"{asked.threads} threads")
    show("optional engines: gates", [gate.row() for gate in gates])


def _measure(ways_of: Any, rows: list[dict[str, object]], gates: list[Gate], more: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        ways, what = ways_of(Path(folder), **more)
        finishes = race(ways, threads=more["threads"])
    ours, best = finishes["textmill"], best_peer(finishes)
    rows += [
        {
            "engine": ways_of.__name__,
            "what": what,
            "way": each.way.name,
            "items/s": len(each.outputs) / each.seconds,
            "ratio": best.seconds / each.seconds,
            "equal": _equal(ours.outputs, each.outputs),
        }
        for each in finishes.values()
    ]
    gates.append(Gate(f"{ways_of.__name__}, {what}", best.seconds / ours.seconds, WANTED))


def _equal(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Share of equal answers; logits count as equal when they are but for rounding."""
    pairs = list(zip(ours, theirs, strict=True))
    if isinstance(ours[0], str):
        return sum(one == other for one, other in pairs) / len(pairs)
    return sum(numpy.allclose(one, other, rtol=0, atol=1e-4) for one, other in pairs) / len(pairs)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.engines [encoders ...]`: every engine beside its peers, and whether the promises are met."""

import argparse
import importlib
import os
from itertools import product

from benchmarks.engines.race import Gate, be_quiet
from benchmarks.report import show

KINDS = {
    "encoders": ("minilm", "distilbert"),
    "causal": ("smollm2",),
    "seq2seq": ("marian", "t5"),
    "tasks": ("ner", "zero_shot"),
    "embeddings": ("minilm",),
}
CORPORA = ("skewed", "uniform")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--models", nargs="+", help="only these")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=CORPORA)
    parser.add_argument("--items", type=int, help="so many instead of the usual number")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    be_quiet()
    gates: list[Gate] = []
    for kind in asked.kinds:
        measure = importlib.import_module(f"benchmarks.engines.{kind}").measure
        for model, corpus in product([m for m in KINDS[kind] if m in (asked.models or [m])], asked.corpora):
            rows, promised = measure(
                model, corpus, threads=asked.threads, **({"n": asked.items} if asked.items else {})
            )
            show(f"engines: {kind}", rows, note=f"{model}, {corpus} lengths, {asked.threads} threads")
            gates += promised
    show("engines: gates", [gate.row() for gate in gates])


if __name__ == "__main__":
    main()

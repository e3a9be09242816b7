"""Exact search among the vectors of an embed job: the time of one query once they are loaded."""

import statistics
import time
from collections.abc import Iterator

import numpy

from benchmarks.report import show
from jobs.search import Index
from jobs.store.values import ResultRow

VECTORS, WIDTH, QUERIES, TOP = 1_000_000, 384, 20, 10


def main() -> None:
    start = time.perf_counter()
    index = Index(_rows(), VECTORS)
    loaded = time.perf_counter() - start
    draw = numpy.random.default_rng(1)
    seconds = []
    for _ in range(QUERIES):
        query = draw.standard_normal(WIDTH)
        start = time.perf_counter()
        index.nearest(query, TOP)
        seconds.append(time.perf_counter() - start)
    row = {
        "vectors": VECTORS,
        "width": WIDTH,
        "median ms": round(statistics.median(seconds) * 1e3, 1),
        "slowest ms": round(max(seconds) * 1e3, 1),
        "seconds to load (drawn, not read)": round(loaded, 1),
        "wanted ms": 100,
    }
    show("search", [row], note=f"exact, the {TOP} nearest")


def _rows() -> Iterator[ResultRow]:
    draw = numpy.random.default_rng(0)
    for first in range(0, VECTORS, 4096):
        for at, vector in enumerate(
            draw.standard_normal((min(4096, VECTORS - first), WIDTH), dtype=numpy.float32), first
        ):
            yield ResultRow(at, str(at), "ok", None, vector.tobytes(), None, None, 1, 0, 0, 1, None)


if __name__ == "__main__":
    main()

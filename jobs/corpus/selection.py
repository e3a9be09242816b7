"""The first of an input's rows, or a sample of them."""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter

from jobs.corpus.base import Line
from jobs.corpus.rows import Rows


def selected(read: Callable[[], Iterator[Line]], rows: Rows, *, once: bool) -> Iterator[Line]:
    """The rows that are asked for, in their order. `once`: they can be read only once.

    A sample reads them twice, and holds only the places of the chosen ones; what can be read only once is held itself.
    """
    if rows.sample is None:
        yield from islice(read(), rows.limit)
        return
    chosen = _sample(islice(read(), rows.limit), rows.sample, rows.seed, held=once)
    if once:
        yield from (line for _, line in chosen if line is not None)
        return
    left = deque(place for place, _ in chosen)
    for place, line in enumerate(read()):
        if not left:
            break
        if place == left[0]:
            left.popleft()
            yield line


def _sample(lines: Iterable[Line], n: int, seed: int, *, held: bool) -> list[tuple[int, Line | None]]:
    """The places, and with `held` the rows, whose random numbers are the smallest."""
    drawn = random.Random(seed).random  # the same sequence in every version of Python
    heap: list[tuple[float, int, Line | None]] = []
    for place, line in enumerate(lines):
        # Negative, as the root of the heap is the smallest.
        entry = (-drawn(), place, line if held else None)
        if len(heap) < n:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)
    return sorted(((place, line) for _, place, line in heap), key=itemgetter(0))

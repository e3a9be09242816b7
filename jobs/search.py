"""The results of an embed job, searched by vector: exact, in memory."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.errors import InvalidInput, UsageError

if TYPE_CHECKING:
    import numpy

    from jobs.store import Store
    from jobs.store.values import ResultRow

    Array = numpy.ndarray[Any, Any]

PAGE = 4096
BLOCK = 64
"""Scores of which only the largest is looked at first: the best of a million are found in a tenth of the time."""


class Hit(NamedTuple):
    """A result that was found."""

    seq: int
    custom_id: str
    score: float
    """Cosine of the angle between its vector and the query's."""


class Index:
    """The vectors of a job, each of length 1: 4 bytes a number, so 1.5 GB for a million of 384 numbers."""

    def __init__(self, rows: "Iterable[ResultRow]", most: int) -> None:
        """Of at most so many results; those without a vector are left out. Raises InvalidInput when none has one, and
        UsageError without numpy."""
        try:
            import numpy
        except ImportError:
            raise UsageError("search needs numpy: pip install 'textmill[evaluate]'") from None
        self._names: list[str] = []
        self._seqs = array("q")
        self._matrix: Array | None = None
        for page in _pages(row for row in rows if row.vector is not None):
            if page[0].output is not None:
                raise UsageError("the job has a vector for each token (pooling none); search needs one for each text")
            if len(self._names) + len(page) > most:
                page = page[: most - len(self._names)]
            vectors = numpy.frombuffer(b"".join(row.vector or b"" for row in page), "<f4").reshape(len(page), -1)
            if self._matrix is None:
                self._matrix = numpy.empty((most, vectors.shape[1]), "<f4")
            lengths = numpy.linalg.norm(vectors, axis=1, keepdims=True)
            first = len(self._names)
            numpy.divide(vectors, numpy.maximum(lengths, 1e-30), out=self._matrix[first : first + len(page)])
            self._names += [row.custom_id for row in page]
            self._seqs.extend(row.seq for row in page)
        if self._matrix is None:
            raise InvalidInput("the job has no vectors yet")
        self._matrix = self._matrix[: len(self._names)]

    def __len__(self) -> int:
        return len(self._names)

    def vector(self, custom_id: str) -> "Array":
        """The vector of this item. Raises UsageError."""
        if custom_id not in self._names:
            raise UsageError(f"no result of the job is named {custom_id!r}")
        assert self._matrix is not None
        found: Array = self._matrix[self._names.index(custom_id)]
        return found

    def nearest(self, query: "Sequence[float] | Array", top: int) -> list[Hit]:
        """The `top` nearest results, the best first; of equal ones the earlier first. Raises InvalidInput for a query
        of another width."""
        import numpy

        assert self._matrix is not None
        given = numpy.asarray(query, "<f4")
        if given.shape != self._matrix.shape[1:]:
            raise InvalidInput(f"the query has {given.size} numbers, the job's vectors {self._matrix.shape[1]}")
        scores = self._matrix @ (given / max(float(numpy.linalg.norm(given)), 1e-30))
        best = _best(scores, min(top, len(scores)))
        return [Hit(self._seqs[at], self._names[at], float(scores[at])) for at in best]


def open_index(store: "Store", job_id: str) -> Index:
    """The vectors of a job, those of its retries laid over them. Raises UsageError for a job of another task."""
    job = store.jobs.get(job_id)
    if job.task != "embed":
        raise UsageError(f"{job.id} is a job of {job.task}; what is searched is the results of embed")
    return Index(store.retries.latest_rows(job.id), job.counts.total)


def _best(scores: "Array", top: int) -> list[int]:
    """Where the largest are: in the blocks that hold the largest."""
    import numpy

    blocks = len(scores) // BLOCK
    if blocks > 2 * top:
        whole = scores[: blocks * BLOCK].reshape(blocks, BLOCK)
        largest = numpy.argpartition(whole.max(1), -top)[-top:]
        near = (largest[:, None] * BLOCK + numpy.arange(BLOCK)).ravel()
        near = numpy.concatenate([near, numpy.arange(blocks * BLOCK, len(scores))])
    else:
        near = numpy.arange(len(scores))
    order = numpy.lexsort((near, -scores[near]))[:top]
    found: list[int] = near[order].tolist()
    return found


def _pages(rows: "Iterable[ResultRow]") -> "Iterator[list[ResultRow]]":
    left = iter(rows)
    while page := list(islice(left, PAGE)):
        yield page

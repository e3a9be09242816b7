"""The results of an embed job, searched by vector: exact, in memory."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from jobs.errors import InvalidInput, NotInstalled
from jobs.schemas import DIRECT_LABEL, Found, Job, Result

if TYPE_CHECKING:
    import numpy

    from jobs.client import Client
    from jobs.handle import JobHandle
    from jobs.store import Store
    from jobs.store.values import ResultRow

    Array = numpy.ndarray[Any, Any]

PAGE = 4096
BLOCK = 64
"""Scores of which only the largest is looked at first: the best of a million are found in a tenth of the time."""
NAME_BYTES = 100
"""What an item takes in memory beside its vector, about: its `custom_id` and its place in the input."""
FIRST = 100
"""Priority of queries: somebody waits."""

Room = Callable[[int], None]
"""Told how many bytes an index is about to take; raises to refuse it."""


class Hit(NamedTuple):
    """A result that was found."""

    seq: int
    custom_id: str
    score: float
    """Cosine of the angle between its vector and the query's."""


class Index:
    """The vectors of a job, each of length 1: 4 bytes a number, so 1.5 GB for a million of 384 numbers."""

    def __init__(self, rows: "Iterable[ResultRow]", most: int, room: Room = lambda needed: None) -> None:
        """Of at most so many results; those without a vector are left out. Raises InvalidInput when none has one, and
        NotInstalled without numpy."""
        try:
            import numpy
        except ImportError:
            raise NotInstalled("search needs numpy: pip install 'textmill[evaluate]'") from None
        self.size_bytes = 0
        """What it takes in memory, about."""
        self._names: list[str] = []
        self._seqs = array("q")
        self._matrix: Array | None = None
        for page in _pages(row for row in rows if row.vector is not None):
            if page[0].output is not None:
                raise InvalidInput("the job has a vector for each token (pooling none); search needs one for each text")
            if len(self._names) + len(page) > most:
                page = page[: most - len(self._names)]
            vectors = numpy.frombuffer(b"".join(row.vector or b"" for row in page), "<f4").reshape(len(page), -1)
            if self._matrix is None:
                self.size_bytes = most * (4 * vectors.shape[1] + NAME_BYTES)
                room(self.size_bytes)
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

    def like(self, custom_id: str, top: int) -> list[Hit]:
        """The `top` results that are nearest to this item, itself left out. Raises InvalidInput when it has none."""
        if custom_id not in self._names:
            raise InvalidInput(f"no result of the job is named {custom_id!r}")
        assert self._matrix is not None
        hits = self.nearest(self._matrix[self._names.index(custom_id)], top + 1)
        return [hit for hit in hits if hit.custom_id != custom_id][:top]

    def nearest(self, query: "Sequence[float] | Array", top: int) -> list[Hit]:
        """The `top` nearest results, the best first; of equal ones the earlier first. Raises InvalidInput for a query
        of another width."""
        import numpy

        assert self._matrix is not None
        given = numpy.asarray(query, "<f8")
        if given.shape != self._matrix.shape[1:]:
            raise InvalidInput(f"the query has {given.size} numbers, the job's vectors {self._matrix.shape[1]}")
        given = given / max(float(abs(given).max()), 1e-300)  # so that no square is too large or too small to count
        scores = self._matrix @ (given / max(float(numpy.linalg.norm(given)), 1e-30)).astype("<f4")
        best = _best(scores, min(top, len(scores)))
        return [Hit(self._seqs[at], self._names[at], float(scores[at])) for at in best]


def open_index(store: "Store", job_id: str, room: Room = lambda needed: None) -> Index:
    """The vectors of a job, those of its retries laid over them. Raises InvalidInput for a job of another task."""
    job = store.jobs.get(job_id)
    if job.task != "embed":
        raise InvalidInput(f"{job.id} is a job of {job.task}; what is searched is the results of embed")
    first = store.jobs.get(store.retries.chain(job.id)[0])
    return Index(store.retries.latest_rows(job.id), first.counts.total, room)


def with_items(store: "Store", job_id: str, hits: Sequence[Hit], most_bytes: int | None = None) -> list[Found]:
    """What was found in a job, with the items' texts. Raises InvalidInput for items that are longer together."""
    lines = store.jobs.lines_of(store.retries.chain(job_id)[0], [hit.seq for hit in hits], most_bytes)
    items = {seq: orjson.loads(line) for seq, line in lines.items()}
    return [Found(rank=rank, **hit._asdict(), item=items.get(hit.seq)) for rank, hit in enumerate(hits, 1)]


def submit_query(client: "Client", job: Job, text: str, queue: str) -> "JobHandle":
    """A job of one item that embeds a text as those of `job` were. Raises what `Client.submit` raises."""
    return client.submit(
        "embed",
        [text],
        model=job.model,
        params=job.params,
        queue=queue,
        priority=FIRST,
        tenant=job.tenant,
        labels={DIRECT_LABEL: "search"},
    )


def query_vector(text: str, answer: Result | None, why: str | None = None) -> list[float]:
    """The vector of a query from the result of its job; `why` there is none. Raises InvalidInput."""
    if answer is None or answer.output is None:
        said = f"{answer.error.code}: {answer.error.message}" if answer and answer.error else why
        raise InvalidInput(f"the query {text!r} could not be embedded: {said}")
    vector: list[float] = answer.output["embedding"]
    return vector


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

"""The items of a job that have no ok result, as the source of a new job."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import orjson

from jobs.corpus import Line

if TYPE_CHECKING:
    from jobs.store import Store

PAGE = 1000


class RetrySource:
    """The items of an ended job without an ok result, each under the `custom_id` it had."""

    def __init__(self, store: "Store", job_id: str) -> None:
        self._store, self._job_id = store, job_id

    def __iter__(self) -> Iterator[Line]:
        done = self._done()
        next_done = next(done, None)
        for seq, line in self._store.jobs.lines(self._job_id):
            if seq == next_done:
                next_done = next(done, None)
            else:
                yield seq + 1, named(seq, line)

    def fingerprint(self) -> str | None:
        """The job's id stands for what an ended job has left."""
        return f"retry of {self._job_id}"

    def locate(self, line: int) -> tuple[str | None, int]:
        return self._job_id, line

    def _done(self) -> Iterator[int]:
        after = -1
        while page := self._store.results.page(self._job_id, after=after, limit=PAGE, status="ok"):
            yield from (result.seq for result in page)
            after = page[-1].seq


def named(seq: int, line: bytes) -> bytes:
    """The item with its `custom_id` written down where it was only its position."""
    item = orjson.loads(line)
    if item.get("custom_id") is not None:
        return line
    # The last of two equal keys counts, so an explicit null before it does no harm.
    return line.rstrip()[:-1] + b',"custom_id":' + orjson.dumps(str(seq)) + b"}"

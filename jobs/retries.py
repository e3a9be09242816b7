"""The items of a job that have no ok result, as the source of a new job."""

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import orjson

from jobs.corpus import Line

if TYPE_CHECKING:
    from jobs.store import Store


class RetrySource:
    """The items of an ended job without an ok result, in it or in any of its retries, each under the `custom_id` it
    had. Can be read once."""

    def __init__(self, store: "Store", job_id: str) -> None:
        self._job_id = job_id
        self._lines = store.retries.open_lines(job_id)
        self._first = next(self._lines, None)

    @property
    def empty(self) -> bool:
        """Whether every item has an ok result."""
        return self._first is None

    def __iter__(self) -> Iterator[Line]:
        ahead = () if self._first is None else (self._first,)
        return ((seq + 1, named(seq, line)) for seq, line in chain(ahead, self._lines))

    def fingerprint(self) -> str | None:
        """The job's id stands for what an ended job has left."""
        return f"retry of {self._job_id}"

    def locate(self, line: int) -> tuple[str | None, int]:
        return self._job_id, line


def named(seq: int, line: bytes) -> bytes:
    """The item with its `custom_id` written down where it was only its position."""
    item = orjson.loads(line)
    if item.get("custom_id") is not None:
        return line
    # The last of two equal keys counts, so an explicit null before it does no harm.
    return line.rstrip()[:-1] + b',"custom_id":' + orjson.dumps(str(seq)) + b"}"

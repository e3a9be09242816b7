"""What kinds of errors the items of some chunks ended with, however many there are: only so many are looked at."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, select

from jobs.store.tables import chunks, results

LOOKED_AT, LOOKED_AT_OF_ONE = 20_000, 2000
"""Items that are looked at, in all and of one chunk."""
COLUMNS = tuple(chunks.c[name] for name in ("id", "job_id", "seq_lo", "seq_hi", "n_error", "finished_at"))
"""What is to be known of a chunk."""


class Found(NamedTuple):
    """The items of one chunk that failed with one code."""

    chunk: Any
    code: str
    n_items: int
    message: str
    """Of one of them."""


def within_reach(found: Sequence[Row[Any]]) -> list[Row[Any]]:
    """The first of these chunks: as many as have the items that may be looked at, one at least."""
    left, taken = LOOKED_AT, list[Row[Any]]()
    for chunk in found:
        if left <= 0:
            break
        taken.append(chunk)
        left -= min(chunk.seq_hi - chunk.seq_lo, LOOKED_AT_OF_ONE)
    return taken


def codes(connection: Connection, looked_at: Sequence[Row[Any]]) -> list[Found]:
    """What failed in these chunks, rows of `COLUMNS`."""
    mine = (results.c.job_id == chunks.c.job_id) & (results.c.seq >= chunks.c.seq_lo)
    reach = (results.c.seq < chunks.c.seq_hi) & (results.c.seq < chunks.c.seq_lo + LOOKED_AT_OF_ONE)
    wanted = (
        select(chunks.c.id, results.c.error_code, func.count(), func.min(results.c.error))
        .join(results, mine & reach)
        .where(chunks.c.id.in_([chunk.id for chunk in looked_at]), results.c.status == "error")
        .group_by(chunks.c.id, results.c.error_code)
    )
    known = {chunk.id: chunk for chunk in looked_at}
    return [Found(known[row[0]], row[1], row[2], row[3] or "") for row in connection.execute(wanted)]


def scale(found: Sequence[Found], n_items: int) -> float:
    """What the counts are to be multiplied with, when so many items failed in all; 1: each was looked at."""
    seen = sum(each.n_items for each in found)
    return n_items / seen if 0 < seen < n_items else 1.0

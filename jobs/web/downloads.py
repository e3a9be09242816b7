"""The results of a job as a file: JSON Lines, CSV, Parquet, as the command line writes them."""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from jobs.api.problems import HttpProblem
from jobs.corpus import formats
from jobs.schemas import Job
from jobs.store.encoding import result_line
from jobs.tasks import find
from jobs.web.pages import Looks

ROWS = 1000
"""Read from the database at once."""
TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

router = APIRouter()


@router.get("/jobs/{job_id}/results.{form}")
def download(job_id: str, form: str, look: Looks) -> StreamingResponse:
    """Those there are by now, in the order of the items."""
    job = look.service.job(look.caller, job_id)
    if form not in TYPES:
        raise HttpProblem(404, "not_found", f"results are not given as {form[:20]!r}; there are: {', '.join(TYPES)}")
    headers = {"Content-Disposition": f'attachment; filename="{job.id}.{form}"', "Cache-Control": "no-store"}
    return StreamingResponse(_pieces(look, job, form), media_type=TYPES[form], headers=headers)


def _pieces(look: Looks, job: Job, form: str) -> Iterator[bytes]:
    """The file as it grows; never in memory as a whole."""
    written = _Taken()
    make = formats()[form].write
    assert make is not None
    writer = make(cast(BinaryIO, written), tuple(find(job.task).output.model_fields), job.keep)
    after = -1
    while rows := look.service.store.results.rows_after(job.id, after=after, limit=ROWS):
        for row in rows:
            writer.write(result_line(row))
        after = rows[-1].seq
        if piece := written.take():
            yield piece
    writer.finish()
    yield written.take()


class _Taken(io.RawIOBase):
    """A stream to write to, from which is taken what was written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        found = b"".join(self._parts)
        self._parts.clear()
        return found

"""A batch's lines: requests on their way in, answers and errors on their way out."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from jobs.api.openai import errors
from jobs.api.openai.endpoints import Answering, Call, Endpoint
from jobs.api.openai.errors import BadRequest
from jobs.corpus import Line
from jobs.errors import Problem
from jobs.schemas import Job, Result
from jobs.states import JobState
from jobs.store.encoding import custom_id
from jobs.store.results import results_of

if TYPE_CHECKING:
    from jobs.store import Store

PART = "\x1f"
"""In the `custom_id` of an item, what stands between that of its line and its place among the line's inputs: `2/7`."""
LONGEST_ID = 490
"""Characters of a line's `custom_id`: those of an item less room for its place."""
STATUS = {"poison": 500, "chunk_error": 500, "model_error": 500}
"""By error code; all others are the request's fault."""
NOT_RUN = {JobState.EXPIRED: "batch_expired", JobState.CANCELLED: "batch_cancelled", JobState.FAILED: "batch_failed"}


class BatchSource:
    """The requests of a file as items. Each line is one item, or one for each of its inputs."""

    def __init__(self, opened: Callable[[], BinaryIO], file_id: str, endpoint: Endpoint, most_bytes: int) -> None:
        self._opened, self._file_id, self._endpoint, self._most_bytes = opened, file_id, endpoint, most_bytes
        self.model: str | None = None
        """That of the first line that names one; all have to be for it."""

    def __iter__(self) -> Iterator[Line]:
        with self._opened() as stream:
            for number, line in _lines(stream, self._most_bytes):
                if line is None:
                    yield number, Problem(number, "invalid_json_line", f"longer than {self._most_bytes:,} bytes")
                elif line.strip():
                    yield from self._items(number, line)

    def fingerprint(self) -> str | None:
        """Files never change."""
        return self._file_id

    def locate(self, line: int) -> tuple[str | None, int]:
        return None, line

    def first_model(self) -> str | None:
        """The model of the first line that is a request."""
        for _ in self:
            if self.model is not None:
                return self.model
        return None

    def _items(self, number: int, line: bytes) -> Iterator[Line]:
        try:
            name, call = self._read(line)
        except BadRequest as error:
            where = f"{error.param}: " if error.param and error.param not in error.message else ""
            yield number, Problem(number, error.code, where + error.message)
            return
        for at, item in enumerate(call.items):
            own = name if len(call.items) == 1 else f"{name}{PART}{at}/{len(call.items)}"
            yield number, orjson.dumps({**item, "custom_id": own})

    def _read(self, line: bytes) -> tuple[str, Call]:
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadRequest(str(error), code="invalid_json_line") from error
        if not isinstance(request, dict):
            raise BadRequest("a line is an object", code="invalid_json_line")
        name = request.get("custom_id")
        if not isinstance(name, str) or not name or len(name) > LONGEST_ID or PART in name or "\0" in name:
            raise BadRequest(f"'custom_id' is a text of 1 to {LONGEST_ID} characters", "custom_id")
        if request.get("method", "POST") != "POST":
            raise BadRequest("'method' is POST", "method")
        if request.get("url") != self._endpoint.path:
            raise BadRequest(f"'url' is that of the batch, {self._endpoint.path}", "url", "url_mismatch")
        body = request.get("body")
        if not isinstance(body, dict):
            raise BadRequest("'body' is an object", "body")
        call = self._endpoint.read(body)
        self.model = self.model or call.model
        if call.model != self.model:
            said = f"all lines of a batch are for one model: {self.model!r}, not {call.model[:100]!r}"
            raise BadRequest(said, "body.model", "model_mismatch")
        return name, call


def output_lines(store: "Store", job: Job, endpoint: Endpoint) -> Iterator[bytes]:
    """The lines of the output file: requests whose every item is ok."""
    for name, results in _answered(store, job):
        if all(result.status == "ok" for result in results):
            yield _line(job, name, results[0].seq, 200, endpoint.write(_about(job, results[0].seq), results))


def error_lines(store: "Store", job: Job) -> Iterator[bytes]:
    """The lines of the error file: requests that failed, then those that were not run."""
    for name, results in _answered(store, job):
        wrong = next((result.error for result in results if result.error is not None), None)
        if wrong is not None:
            status = STATUS.get(wrong.code, 400)
            yield _line(job, name, results[0].seq, status, errors.body(status, wrong.message, code=wrong.code))
    code = NOT_RUN.get(job.state)
    if code is None or not job.counts.pending:
        return
    done = (row.seq for row in store.results.all_rows(job.id))
    following = next(done, None)
    told = None
    for seq, line in store.jobs.lines(job.id):
        if seq == following:
            following = next(done, None)
            continue
        name = _name(custom_id(seq, line))
        if name != told:
            told = name
            error = {"code": code, "message": f"This request was not run: {job.error or code.replace('_', ' ')}."}
            yield _dumped({"id": _request_id(job, seq), "custom_id": name, "response": None, "error": error})


def about_now(job: Job, *, base64: bool) -> Answering:
    """For an answer that is given at once."""
    return _about(job, 0)._replace(base64=base64)


def _answered(store: "Store", job: Job) -> Iterator[tuple[str, list[Result]]]:
    """The results of each line of which all inputs have one, by the line's `custom_id`."""
    for name, group in groupby(_results(store, job), key=lambda result: _name(result.custom_id)):
        if len(found := list(group)) == _inputs(found[0].custom_id):
            yield name, found


def _name(custom_id: str) -> str:
    """That of the line."""
    return custom_id.partition(PART)[0]


def _inputs(custom_id: str) -> int:
    """How many inputs the item's line has."""
    _, parted, place = custom_id.partition(PART)
    return int(place.partition("/")[2]) if parted else 1


def _results(store: "Store", job: Job) -> Iterator[Result]:
    after = -1
    while rows := store.results.rows_after(job.id, after=after):
        yield from results_of(rows)
        after = rows[-1].seq


def _about(job: Job, seq: int) -> Answering:
    created = int((job.finished_at or job.created_at).timestamp())
    return Answering(f"gen-{job.id.removeprefix('job_')}-{seq}", job.model, created)


def _line(job: Job, name: str, seq: int, status: int, body: dict[str, Any]) -> bytes:
    request_id = _request_id(job, seq)
    response = {"status_code": status, "request_id": request_id, "body": body}
    return _dumped({"id": f"batch_{request_id}", "custom_id": name, "response": response, "error": None})


def _request_id(job: Job, seq: int) -> str:
    return f"req_{job.id.removeprefix('job_')}_{seq}"


def _dumped(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value) + b"\n"


def _lines(stream: BinaryIO, most: int) -> Iterator[tuple[int, bytes | None]]:
    """The lines with their numbers, from 1; None for one that is too long. Never more than one of them in memory."""
    number = 0
    while line := stream.readline(most + 1):
        number += 1
        if len(line) <= most or line.endswith(b"\n"):
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(most + 1)
        yield number, None

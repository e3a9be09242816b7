"""What the clients send and how they read what comes back, without a connection: both clients share it."""

import random
import re
import tempfile
import uuid
from base64 import b64encode
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

import orjson

from jobs import errors, tracing
from jobs.corpus import ItemSource, Named, Source
from jobs.corpus.memory import Given
from jobs.errors import (
    ApiError,
    ApiUnavailable,
    InvalidItems,
    Problem,
    TextmillError,
    UsageError,
    WrongOffset,
)
from jobs.schemas import Estimate, Found, Job, Result

if TYPE_CHECKING:
    from httpx2 import Response

T = TypeVar("T")

PREFIX = "/api/v1"
INLINE_BYTES = 8 * 2**20
"""Items of more bytes are sent as an upload, a piece at a time."""
PIECE_BYTES = 32 * 2**20
"""Of one request of an upload."""
READ_BYTES = 2**20
FILE_KEPT_S = 86_400
"""An uploaded file is deleted once it is a job; if nobody is left to do so, after this time."""
LOADED_BYTES_S = 4 * 2**20
"""As slowly, in the worst case, a server makes items of a file."""
TRIES, FIRST_WAIT_S, LONGEST_WAIT_S = 6, 0.5, 20.0
AGAIN = frozenset({408, 429, 502, 503, 504})
WAIT_S = 30.0
"""Length of one long poll."""
PAGE = 1000
TIMEOUT_S = 90.0

Status = Literal["ok", "error"]


@dataclass(slots=True)
class Call:
    """One request. `body` is JSON; of `file`, `length` bytes from `start` on are sent as they are."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    file: IO[bytes] | None = None
    start: int = 0
    length: int = 0
    tries: int = TRIES
    wait_s: float = 0.0
    """Before it is sent."""
    longer_s: float = 0.0
    """How much longer its answer may take than others."""

    @property
    def pieces(self) -> Iterator[bytes]:
        """What is sent of the file."""
        assert self.file is not None
        self.file.seek(self.start)
        left = self.length
        while left and (piece := self.file.read(min(READ_BYTES, left))):
            left -= len(piece)
            yield piece


Steps = Generator[Call, "Response", T]
"""Calls to be made one after the other: it is sent each one's answer, or thrown its error, and returns what came of it.
So both clients share what is more than one call."""


def submit(
    task: str,
    items: Iterable[Given] | Source | Named,
    *,
    main_field: str,
    idempotency_key: str | None,
    deadline_at: datetime | None,
    canary: int | None,
    max_error_share: float | None,
    **wanted: Any,
) -> Steps[Job]:
    """A submit, safe to repeat: it has a key of its own unless the caller gives one. Raises InvalidInput."""
    given = _named(task, wanted)
    if deadline_at is not None:
        given["deadline_at"] = deadline_at.isoformat()
    exactly = {"canary": canary, "max_error_share": max_error_share}  # where 0 says something
    given |= {name: value for name, value in exactly.items() if value is not None}
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex, "Content-Type": "application/json"}
    call = Call("POST", f"{PREFIX}/jobs", headers=headers)
    return read_job((yield from _with_items(call, given, items, main_field)))


def estimate(task: str, items: Iterable[Given] | Source | Named, *, main_field: str, **wanted: Any) -> Steps[Estimate]:
    """What the items would be as a job. Raises InvalidInput."""
    call = Call("POST", f"{PREFIX}/jobs/estimate", headers={"Content-Type": "application/json"})
    content = yield from _with_items(call, _named(task, wanted), items, main_field)
    return Estimate.model_validate_json(content)


def traced(call: Call) -> dict[str, str]:
    """The call's headers, with the trace that it belongs to."""
    traceparent = tracing.current()
    return call.headers if traceparent is None else {**call.headers, "traceparent": traceparent}


def task_of(name: str) -> Call:
    return Call("GET", f"{PREFIX}/tasks/{name}")


def job(job_id: str, *, wait_s: float = 0, known: str | None = None) -> Call:
    headers = {"If-None-Match": known} if known else {}
    return Call("GET", f"{PREFIX}/jobs/{job_id}", {"wait": round(wait_s, 3)}, headers)


def jobs(
    *,
    states: Sequence[str] | None,
    task: str | None,
    model: str | None,
    labels: Mapping[str, str],
    limit: int,
    before: str | None,
) -> Call:
    asked = {"state": states, "task": task, "model": model, "limit": limit, "before": before}
    asked["label"] = [f"{name}:{value}" for name, value in labels.items()]
    return Call("GET", f"{PREFIX}/jobs", {name: value for name, value in asked.items() if value})


def steer(job_id: str, move: str) -> Call:
    return Call("POST", f"{PREFIX}/jobs/{job_id}/{move}")


def delete(job_id: str) -> Call:
    return Call("DELETE", f"{PREFIX}/jobs/{job_id}")


def results(job_id: str, *, after: int, status: Status | None) -> Call:
    params = {"after": after, "limit": PAGE, **({"status": status} if status else {})}
    return Call("GET", f"{PREFIX}/jobs/{job_id}/results", params)


def evaluate(job_id: str, **wanted: Any) -> Call:
    return _posted(job_id, "evaluate", wanted)


def search(job_id: str, **wanted: Any) -> Call:
    return _posted(job_id, "search", wanted)


def read_job(content: bytes) -> Job:
    """The job of an answer, which may say more beside it."""
    given = orjson.loads(content)
    return Job.model_validate({name: given[name] for name in Job.model_fields if name in given})


def read_results(content: bytes) -> tuple[list[Result], int, bool]:
    """The results of a page, the cursor behind them, and whether there will be no more."""
    page = orjson.loads(content)
    return [Result.model_validate(each) for each in page["data"]], page["next"], page["complete"]


def read_found(content: bytes) -> list[Found]:
    """What a search found, the nearest first."""
    return [Found.model_validate(each) for each in orjson.loads(content)["data"]]


def record(result: Result) -> dict[str, Any]:
    """A result as one flat row."""
    error = None if result.error is None else f"{result.error.code}: {result.error.message}"
    return {"custom_id": result.custom_id, "status": result.status, **(result.output or {}), "error": error}


def pause_s(attempt: int, retry_after: str | None) -> float:
    """How long to wait before the next try: doubling, up to a bound, unless the server says."""
    told = float(retry_after) if retry_after and re.fullmatch(r"\d{1,5}", retry_after) else 0.0
    return max(told, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt) * random.uniform(0.5, 1.0))


def failure(status: int, content: bytes) -> TextmillError:
    """The error that an answer is: the very class that the direct client raises, where it is one of ours."""
    try:
        problem: dict[str, Any] = orjson.loads(content)
    except orjson.JSONDecodeError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    code, detail = str(problem.get("code", "")), str(problem.get("detail") or f"the server answered {status}")
    if code == "invalid_items":
        listed = [
            Problem(int(str(each["where"]).removeprefix("line ")), each["code"], each["message"])
            for each in problem.get("errors", ())
        ]
        return InvalidItems(listed, int(problem.get("total") or len(listed)))
    kind = getattr(errors, "".join(word.capitalize() for word in code.split("_")), None)
    if isinstance(kind, type) and issubclass(kind, TextmillError) and kind is not errors.ItemError:
        return kind(detail)
    if status in AGAIN:
        return ApiUnavailable(f"{detail} ({status}, after {TRIES} tries)")
    return ApiError(f"{detail} ({status})")


def unreachable(url: str, error: Exception) -> ApiUnavailable:
    """No answer at all."""
    return ApiUnavailable(f"{url} does not answer: {error or type(error).__name__} (after {TRIES} tries)")


def _posted(job_id: str, verb: str, wanted: Mapping[str, Any]) -> Call:
    """A question about a job: what is None is left to the server."""
    given = {name: value for name, value in wanted.items() if value is not None}
    body = orjson.dumps(given, option=orjson.OPT_NON_STR_KEYS)
    headers = {"Content-Type": "application/json"}
    return Call("POST", f"{PREFIX}/jobs/{job_id}/{verb}", headers=headers, body=body)


def _named(task: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for; what is empty is left to the server."""
    return {"task": task, **{name: value for name, value in wanted.items() if value}}


def _with_items(
    call: Call, given: Mapping[str, Any], items: Iterable[Given] | Source | Named, main_field: str
) -> Steps[bytes]:
    """Send the items along: as they are, many of them as a file, or the name of a source."""
    if isinstance(items, Named):
        named = {"source": items.name, "text_field": items.text_field, "id_field": items.id_field, **asdict(items.rows)}
        call.body = orjson.dumps({**given, **{name: value for name, value in named.items() if value}})
        return (yield call).content
    with _spooled(items if isinstance(items, Source) else ItemSource(items, main_field)) as spooled:
        if spooled.tell() > INLINE_BYTES:
            return (yield from _as_file(call, given, spooled))
        spooled.seek(0)
        lines = b",".join(line.rstrip(b"\n") for line in spooled)
    call.body = orjson.dumps(given)[:-1] + b',"items":[' + lines + b"]}"
    return (yield call).content


def _as_file(call: Call, given: Mapping[str, Any], spooled: IO[bytes]) -> Steps[bytes]:
    """Upload the items, name the file in the call, and throw it away."""
    size = spooled.tell()
    path, file_id = yield from _uploaded(spooled, size)
    call.body, call.longer_s = orjson.dumps({**given, "file": file_id}), size / LOADED_BYTES_S
    try:
        answer = yield call
    except UsageError:
        yield from _thrown_away(path)
        raise
    yield from _thrown_away(path)
    return answer.content


def _uploaded(file: IO[bytes], size: int) -> Steps[tuple[str, str]]:
    """The path of an upload of the file, and the file's id. Goes on from what the server has, whatever breaks."""
    told = {"filename": b"items.jsonl", "expires_after": str(FILE_KEPT_S).encode()}
    metadata = ",".join(f"{key} {b64encode(value).decode()}" for key, value in told.items())
    headers = {"Upload-Length": str(size), "Upload-Metadata": metadata}
    answer = yield Call("POST", f"{PREFIX}/uploads", headers=headers)
    path = f"{PREFIX}/uploads/{answer.headers['location'].rpartition('/')[2]}"
    in_vain = 0
    while "textmill-file" not in answer.headers:
        at = int(answer.headers["upload-offset"])
        try:
            answer = yield _piece(path, file, at, size)
        except (ApiUnavailable, WrongOffset):
            if in_vain == TRIES - 1:
                raise
            answer = yield Call("HEAD", path, wait_s=pause_s(in_vain, None))
            in_vain += 1
        if int(answer.headers["upload-offset"]) > at:
            in_vain = 0
    return path, answer.headers["textmill-file"]


def _piece(path: str, file: IO[bytes], at: int, size: int) -> Call:
    """Sent once: after an error nobody knows how much of it has arrived."""
    length = min(PIECE_BYTES, size - at)
    headers = {
        "Upload-Offset": str(at),
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(length),
    }
    return Call("PATCH", path, headers=headers, file=file, start=at, length=length, tries=1)


def _thrown_away(path: str) -> Steps[None]:
    with suppress(TextmillError):  # then the server does so when its time is over
        yield Call("DELETE", path, tries=1)


def _spooled(source: Source) -> IO[bytes]:
    """The items as lines, to be read as often as the network wants; on disk when they are many. Raises InvalidItems."""
    file: IO[bytes] = tempfile.SpooledTemporaryFile(INLINE_BYTES)  # noqa: SIM115 - closed with the call
    wrong: list[Problem] = []
    for number, line in source:
        if isinstance(line, bytes):
            file.write(line.strip() + b"\n")
        else:
            wrong.append(Problem(number, line.code, line.message))
    if wrong:
        file.close()
        raise InvalidItems(wrong[:1000], len(wrong))
    return file

"""Uploads in parts: by the OpenAI SDK, and resumed by tus after a connection broke."""

import asyncio
import hashlib
import io
import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai import OpenAI

from jobs import AsyncClient, Client
from jobs.api.native import receiving
from jobs.api.openai.storage import Storage
from jobs.api.server import ApiServer
from jobs.errors import ApiUnavailable, InvalidItems
from jobs.remote import calls
from jobs.settings import Settings
from jobs.store import Store, uploads
from tests.api.conftest import Api, Connect, Serve
from tests.proxy import Proxy

Work = Callable[[], None]
CHAT = "/v1/chat/completions"
OCTETS = "application/offset+octet-stream"


@pytest.fixture
def server(serve: Serve) -> ApiServer:
    return serve()


@pytest.fixture
def api(server: ApiServer, connect: Connect) -> Api:
    return connect(server)


@pytest.fixture
def ai(server: ApiServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Where the server keeps files and parts."""
    return tmp_path / "home" / "files"


def names(files: Path) -> set[str]:
    return {each.name for each in files.iterdir()} if files.exists() else set()


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def expire(store: Store, upload_id: str, ago_s: int = 1) -> None:
    sql = {
        "sqlite": f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '{-ago_s} seconds')",
        "postgresql": f"clock_timestamp() + interval '{-ago_s} s'",
    }[store.dialect]
    store._db.write(
        lambda connection: connection.exec_driver_sql(f"UPDATE uploads SET expires_at = {sql} WHERE id = '{upload_id}'")
    )


def line(number: int) -> bytes:
    body = {"model": "fake", "messages": [{"role": "user", "content": f"text {number}"}]}
    return json.dumps({"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": body}).encode() + b"\n"


def test_the_sdk_uploads_a_file_in_parts_that_runs_as_a_batch(ai: OpenAI, work: Work, files: Path) -> None:
    whole = b"".join(map(line, range(50)))

    upload = ai.uploads.upload_file_chunked(
        file=whole,
        filename="in.jsonl",
        bytes=len(whole),
        mime_type="application/jsonl",
        purpose="batch",
        part_size=1000,  # lines go over from one part to the next
        md5=hashlib.md5(whole).hexdigest(),
    )

    assert (upload.status, upload.bytes, upload.object) == ("completed", len(whole), "upload")
    assert upload.file is not None
    file = ai.files.retrieve(upload.file.id)
    assert file == upload.file
    assert (file.bytes, file.filename, file.purpose, file.expires_at) == (len(whole), "in.jsonl", "batch", None)
    assert ai.files.content(file.id).content == whole
    batch = ai.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    until(lambda: ai.batches.retrieve(batch.id).status == "in_progress")
    work()
    assert ai.batches.retrieve(batch.id).request_counts.completed == 50  # type: ignore[union-attr]
    ai.files.delete(file.id)
    assert names(files) == set()


def test_the_sdk_uploads_a_file_by_its_path(ai: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(line(1))

    upload = ai.uploads.upload_file_chunked(file=path, mime_type="application/jsonl", purpose="batch")

    assert upload.file is not None
    assert (upload.file.filename, ai.files.content(upload.file.id).content) == ("in.jsonl", line(1))


def create(ai: OpenAI, size: int, **more: Any) -> str:
    return ai.uploads.create(bytes=size, filename="a", mime_type="text/plain", purpose="batch", **more).id


def test_parts_are_put_in_the_order_that_is_told_and_others_are_thrown_away(ai: OpenAI, files: Path) -> None:
    upload_id = create(ai, 6, expires_after={"anchor": "created_at", "seconds": 3600})
    second, twice, first = (ai.uploads.parts.create(upload_id, data=data) for data in (b"def", b"def", b"abc"))

    done = ai.uploads.complete(upload_id, part_ids=[first.id, second.id])

    assert (first.object, first.upload_id) == ("upload.part", upload_id)
    assert done.file is not None
    assert ai.files.content(done.file.id).content == b"abcdef"
    assert done.file.expires_at == pytest.approx(done.file.created_at + 3600, abs=5)
    until(lambda: names(files) == {first.id, second.id})
    assert twice.id not in names(files)


def test_parts_may_come_at_once(ai: OpenAI) -> None:
    pieces = [bytes([65 + n]) * 1000 for n in range(20)]
    upload_id = create(ai, 20_000)

    with ThreadPoolExecutor(8) as threads:
        part_ids = [*threads.map(lambda piece: ai.uploads.parts.create(upload_id, data=piece).id, pieces)]
    done = ai.uploads.complete(upload_id, part_ids=part_ids)

    assert done.file is not None
    assert ai.files.content(done.file.id).content == b"".join(pieces)


def test_an_empty_file_has_no_parts(ai: OpenAI) -> None:
    done = ai.uploads.complete(create(ai, 0), part_ids=[])

    assert done.file is not None
    assert ai.files.content(done.file.id).content == b""


def test_a_completion_that_cannot_be_is_refused_and_can_be_mended(ai: OpenAI) -> None:
    upload_id = create(ai, 6)
    abc, other = (ai.uploads.parts.create(upload_id, data=data).id for data in (b"abc", b"def"))

    for part_ids, md5, said in (
        ([abc], openai.omit, "3 bytes together; 6 were announced"),
        ([abc, abc], openai.omit, "named twice"),
        ([abc, "part_0"], openai.omit, "no part 'part_0'"),
        ([abc, other], "0" * 32, "have the MD5 e80b5017098950fc58aad83c8c14978e"),
    ):
        with pytest.raises(openai.BadRequestError, match=said) as caught:
            ai.uploads.complete(upload_id, part_ids=part_ids, md5=md5)
        assert set(caught.value.body) == {"message", "type", "param", "code"}  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError, match="the part is empty"):
        ai.uploads.parts.create(upload_id, data=b"")
    assert ai.uploads.complete(upload_id, part_ids=[abc, other]).status == "completed"


def test_an_upload_ends_once(ai: OpenAI, store: Store) -> None:
    done, cancelled, expired = (create(ai, 1) for _ in range(3))
    part_ids = [ai.uploads.parts.create(done, data=b"a").id]
    ai.uploads.complete(done, part_ids=part_ids)
    assert ai.uploads.cancel(cancelled).status == ai.uploads.cancel(cancelled).status == "cancelled"
    expire(store, expired)

    for upload_id, state in ((done, "completed"), (cancelled, "cancelled"), (expired, "expired")):
        with pytest.raises(openai.ConflictError, match=f"is {state}"):
            ai.uploads.parts.create(upload_id, data=b"a")
        with pytest.raises(openai.ConflictError, match=f"is {state}"):
            ai.uploads.complete(upload_id, part_ids=part_ids)
    for upload_id in (done, expired):
        with pytest.raises(openai.ConflictError):
            ai.uploads.cancel(upload_id)


def test_a_completion_that_the_sdk_sends_again_gives_the_same_file(ai: OpenAI) -> None:
    upload_id = create(ai, 1)
    part_ids = [ai.uploads.parts.create(upload_id, data=b"a").id]
    again = {"x-stainless-retry-count": "1"}

    first = ai.uploads.complete(upload_id, part_ids=part_ids)

    assert ai.uploads.complete(upload_id, part_ids=part_ids, extra_headers=again) == first
    with pytest.raises(openai.ConflictError):
        ai.uploads.complete(upload_id, part_ids=[], extra_headers=again)


def test_limits_of_an_upload_are_told_by_their_names(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_PARTS", 3)
    with OpenAI(base_url=f"{serve(max_job_bytes=2000).url}/v1", api_key="none", max_retries=0) as ai:
        with pytest.raises(openai.BadRequestError, match=r"more than 2,000 bytes \(setting max_job_bytes\)") as caught:
            create(ai, 2001)
        assert caught.value.param == "bytes"
        upload_id = create(ai, 2000)
        with pytest.raises(openai.APIStatusError, match="setting max_job_bytes"):
            ai.uploads.parts.create(upload_id, data=b"a" * 2001)
        for _ in range(3):
            ai.uploads.parts.create(upload_id, data=b"a" * 500)
        with pytest.raises(openai.BadRequestError, match="more than 2,000 bytes together"):
            ai.uploads.parts.create(upload_id, data=b"a" * 501)
        with pytest.raises(openai.BadRequestError, match="has 3 parts already"):
            ai.uploads.parts.create(upload_id, data=b"a")


def test_what_is_given_up_or_forgotten_leaves_the_disk(ai: OpenAI, store: Store, files: Path) -> None:
    cancelled, expired, live = (create(ai, 9) for _ in range(3))
    kept = [ai.uploads.parts.create(upload_id, data=b"abc").id for upload_id in (cancelled, expired, live)]
    assert names(files) == {*kept}

    ai.uploads.cancel(cancelled)
    expire(store, expired, ago_s=90_000)

    until(lambda: names(files) == {kept[2]})
    until(lambda: store._db.read(_count) == 2)
    with pytest.raises(openai.NotFoundError):
        ai.uploads.cancel(expired)


def _count(connection: Any) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM uploads").scalar_one())


def test_uploads_of_another_tenant_are_not_there(server: ApiServer, connect: Connect, store: Store) -> None:
    (_, ours), (_, theirs) = (store.keys.create(tenant, "test", ["submit"]) for tenant in ("ours", "theirs"))
    with ExitStack() as stack:
        mine, other = (
            stack.enter_context(OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0))
            for key in (ours, theirs)
        )
        upload_id = create(mine, 1)
        part_id = mine.uploads.parts.create(upload_id, data=b"a").id
        for ask in (
            lambda: other.uploads.parts.create(upload_id, data=b"a"),
            lambda: other.uploads.complete(upload_id, part_ids=[part_id]),
            lambda: other.uploads.cancel(upload_id),
        ):
            with pytest.raises(openai.NotFoundError, match="no upload"):
                ask()
        file = mine.uploads.complete(upload_id, part_ids=[part_id]).file
        assert file is not None
        native, path = connect(server, theirs), f"/uploads/{upload_id}"
        answers = [native.head(path), native.delete(path), patch(native, path, 1, b"a")]
        assert [answer.status_code for answer in answers] == [404, 404, 404]
        wanted = {"task": "classify", "model": "fake", "file": file.id}
        assert native.post("/jobs", json=wanted).json()["code"] == "unknown_file"


def begin(api: Api, size: int, **metadata: str) -> str:
    """The path of a new upload."""
    told = ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in metadata.items())
    answer = api.post(
        "/uploads", headers={"Upload-Length": str(size), "Upload-Metadata": told, "Tus-Resumable": "1.0.0"}
    )
    assert (answer.status_code, answer.headers["tus-resumable"]) == (201, "1.0.0"), answer.text
    return urlsplit(answer.headers["location"]).path.removeprefix("/api/v1")


def patch(api: Api, path: str, offset: int, content: Any) -> Any:
    return api.patch(path, content=content, headers={"Upload-Offset": str(offset), "Content-Type": OCTETS})


def offset(api: Api, path: str) -> int:
    return int(api.head(path).headers["upload-offset"])


def break_off(api: Api, path: str, sent: bytes, announced: int, taken: Callable[[], bool]) -> None:
    """Send the beginning of a body, and close the connection once the server has taken it."""
    url = urlsplit(str(api.base_url))
    head = (
        f"PATCH /api/v1{path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: {OCTETS}\r\n"
        f"Upload-Offset: 0\r\nContent-Length: {announced}\r\n\r\n"
    )
    with socket.create_connection((url.hostname, url.port or 80)) as connection:
        connection.sendall(head.encode() + sent)
        until(taken)


def test_an_upload_goes_on_where_its_connection_broke(api: Api, ai: OpenAI, files: Path) -> None:
    whole = b"".join(b'{"text": "%d"}\n' % n for n in range(100))
    path = begin(api, len(whole), filename="naïve.jsonl")

    break_off(api, path, whole[:777], len(whole), lambda: any(name.endswith(".part") for name in names(files)))
    until(lambda: offset(api, path) == 777)
    wrong = patch(api, path, 0, whole)
    done = patch(api, path, 777, iter([whole[777:800], whole[800:]]))

    assert (wrong.status_code, wrong.json()["code"]) == (409, "wrong_offset")
    assert "goes on at byte 777, not at 0" in wrong.json()["detail"]
    assert (done.status_code, done.headers["upload-offset"]) == (204, str(len(whole)))
    file = ai.files.retrieve(done.headers["textmill-file"])
    assert (file.filename, file.purpose, file.bytes) == ("naïve.jsonl", "batch", len(whole))
    assert ai.files.content(file.id).content == whole


def test_a_long_body_counts_a_part_at_a_time(
    api: Api, ai: OpenAI, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "PART_BYTES", 100)
    path = begin(api, 350)

    def body() -> Iterator[bytes]:
        yield b"a" * 200
        until(lambda: offset(api, path) == 200)
        yield b"b" * 150

    done = patch(api, path, 0, body())

    assert len(names(files)) == 2
    assert ai.files.content(done.headers["textmill-file"]).content == b"a" * 200 + b"b" * 150


def test_what_there_is_of_an_upload_is_told(api: Api) -> None:
    path = begin(api, 5, filename="a", expires_after="3600", other="x")
    patch(api, path, 0, b"abc")

    told = api.head(path, headers={"Tus-Resumable": "1.0.0"})

    assert (told.status_code, told.content) == (200, b"")
    assert (told.headers["upload-offset"], told.headers["upload-length"]) == ("3", "5")
    assert told.headers["upload-metadata"] == "filename YQ==,expires_after MzYwMA==,other eA=="
    assert (told.headers["cache-control"], told.headers["tus-resumable"]) == ("no-store", "1.0.0")
    assert told.headers["upload-expires"].endswith("GMT")
    options = api.options("/uploads", headers={"Tus-Resumable": "0.1"})
    assert (options.status_code, options.headers["tus-version"]) == (204, "1.0.0")
    assert options.headers["tus-extension"] == "creation,expiration,termination"


def test_an_empty_upload_is_a_file_at_once(api: Api, ai: OpenAI) -> None:
    answer = api.post("/uploads", headers={"Upload-Length": "0"})

    assert ai.files.retrieve(answer.headers["textmill-file"]).bytes == 0


def test_a_file_is_kept_as_long_as_was_said(api: Api, ai: OpenAI) -> None:
    done = patch(api, begin(api, 1, expires_after="3600"), 0, b"a")

    file = ai.files.retrieve(done.headers["textmill-file"])
    assert file.expires_at == pytest.approx(file.created_at + 3600, abs=5)


def test_what_is_not_tus_is_refused(api: Api, serve: Serve, connect: Connect) -> None:
    path = begin(api, 5)
    small = connect(serve(max_job_bytes=2000))

    refused = [
        (api.post("/uploads", headers={"Upload-Length": "5", "Tus-Resumable": "0.2"}), 412, "unsupported_version"),
        (api.post("/uploads"), 422, "upload-length"),
        (api.post("/uploads", headers={"Upload-Length": "5", "Upload-Metadata": "a ?"}), 400, "no Base64"),
        (small.post("/uploads", headers={"Upload-Length": "2001"}), 413, "setting max_job_bytes"),
        (small.patch(path, content=b"a" * 2001), 413, "setting max_job_bytes"),
        (patch(api, path, 0, b"abcdef"), 413, "5 bytes were announced"),
        (patch(api, path, 0, iter([b"abcdef"])), 413, "5 bytes were announced"),
        (api.patch(path, content=b"a", headers={"Upload-Offset": "0"}), 415, OCTETS),
        (patch(api, "/uploads/upload_0", 0, b"a"), 404, "no upload"),
    ]
    for days in ("0", "x", "99999999"):
        told = f"expires_after {b64encode(days.encode()).decode()}"
        answer = api.post("/uploads", headers={"Upload-Length": "5", "Upload-Metadata": told})
        refused.append((answer, 400, "expires_after"))

    for answer, status, said in refused:
        assert (answer.status_code, said in answer.text) == (status, True), answer.text
        assert answer.headers.get("tus-resumable", "1.0.0") == "1.0.0"
    assert offset(api, path) == 0


def test_of_two_who_send_the_same_bytes_one_is_told_to_look_again(api: Api, files: Path) -> None:
    path = begin(api, 6)

    def slow() -> Iterator[bytes]:
        yield b"abc"
        assert patch(api, path, 0, b"ABC").status_code == 204
        yield b"def"

    assert patch(api, path, 0, slow()).status_code == 409
    assert offset(api, path) == 3
    assert len(names(files)) == 1


def test_an_upload_is_given_up_even_when_it_is_a_file(api: Api, ai: OpenAI, files: Path) -> None:
    half, whole = begin(api, 2), begin(api, 1)
    patch(api, half, 0, b"a")
    file_id = patch(api, whole, 0, b"a").headers["textmill-file"]

    for path in (half, whole):
        assert api.post(path, headers={"X-HTTP-Method-Override": "DELETE"}).status_code == 204
        assert api.head(path).status_code == 410
        assert patch(api, path, 1, b"a").json()["code"] == "upload_cancelled"
        assert api.delete(path).status_code == 410

    with pytest.raises(openai.NotFoundError):
        ai.files.retrieve(file_id)
    until(lambda: names(files) == set())


def test_an_upload_to_which_nothing_is_added_expires(api: Api, store: Store) -> None:
    still, path = begin(api, 5), begin(api, 5)
    expire(store, still.rpartition("/")[2])
    expire(store, path.rpartition("/")[2], ago_s=-60)

    added = patch(api, path, 0, b"a")

    assert api.head(still).status_code == 410
    assert patch(api, still, 0, b"a").json()["code"] == "upload_expired"
    left = parsedate_to_datetime(added.headers["upload-expires"]) - datetime.now(UTC)
    assert left.total_seconds() == pytest.approx(86_400, abs=20)


def uploaded(api: Api, content: bytes) -> str:
    file_id: str = patch(api, begin(api, len(content)), 0, content).headers["textmill-file"]
    return file_id


@pytest.mark.parametrize(
    ("content", "wanted", "ids"),
    [
        (b'{"text": "a"}\n\n"b"\n', {}, ["0", "1"]),
        (b"body,key\na,x\nb,y\n", {"format": "csv", "text_field": "body", "id_field": "key"}, ["x", "y"]),
        (b"a\nb\n", {"format": "text"}, ["0", "1"]),
        (
            b"key,title,stars\na,x,3\nb,y,5\nc,z,4\nd,w,5\n",
            {"format": "csv", "map": {"custom_id": "key"}, "template": "{title}!", "where": "stars >= '4'", "limit": 2},
            ["b", "c"],
        ),
        (b'{"a": {"b": "x"}, "n": 7}\n', {"map": {"text": "a.b", "custom_id": "n"}, "sample": 1, "seed": 2}, ["7"]),
    ],
)
def test_a_file_is_the_items_of_a_job(api: Api, work: Work, content: bytes, wanted: Any, ids: list[str]) -> None:
    wanted = {"task": "classify", "model": "fake", "params": {"top_k": 1}, "file": uploaded(api, content), **wanted}

    answer = api.post("/jobs", json=wanted, headers={"Idempotency-Key": "k"})
    work()

    assert answer.status_code == 201, answer.text
    results = api.get(f"/jobs/{answer.json()['id']}/results").json()["data"]
    assert [(each["custom_id"], each["status"]) for each in results] == [(each, "ok") for each in ids]
    # The same bytes under another name are the same request, so that a program that starts anew gets its job.
    again = api.post("/jobs", json={**wanted, "file": uploaded(api, content)}, headers={"Idempotency-Key": "k"})
    assert again.json()["id"] == answer.json()["id"]


@pytest.mark.parametrize(
    ("content", "wanted", "said"),
    [
        (b"", {}, "the input is empty"),
        (b'{"text": "a"}\n{"text', {}, "line 2"),
        (b"a\n", {"format": "text", "text_field": "body"}, "the file: "),
        (b"a\n", {"format": "xml"}, "format"),
        (b"a\n", {"items": ["a"]}, "one of items, a file and a source"),
        (b"a\n", {"file": None}, "one of items, a file and a source"),
        (b"a\n", {"file": None, "items": ["a"], "format": "csv"}, "format says something of a file"),
        (b"a\n", {"file": "file-0"}, "unknown_file"),
        (b"a\n", {"file": None, "items": ["a"], "where": "text = 'a'"}, "where says something of a file"),
        (b'{"text": "a"}\n', {"where": "text ="}, "the filter cannot be read"),
        (b'{"text": "a"}\n', {"template": "{title}"}, "no field 'title'"),
        (b'{"text": "a"}\n', {"map": {"text": "b"}, "text_field": "c"}, "field 'text' is made twice"),
        (b'{"text": "a"}\n', {"limit": 0}, "limit is 0"),
        (b'{"text": "a"}\n', {"limit": 2**63}, "limit is 9223372036854775808"),
        (b"a\n", {"format": "text", "priority": 101}, "priority"),
    ],
)
def test_a_file_that_cannot_be_the_items_is_refused(
    api: Api, store: Store, content: bytes, wanted: Any, said: str
) -> None:
    right = {"task": "classify", "model": "fake", "file": uploaded(api, content)}

    answer = api.post("/jobs", json={**right, **wanted})

    assert (answer.status_code, said in answer.text) == (422, True), answer.text
    assert store.jobs.list() == []


Submit = Callable[[str, list[str]], Any]


def submitted(url: str, items: list[str]) -> Any:
    with Client(url) as client:
        return client.submit("classify", items, model="fake", idempotency_key="k").job


def submitted_async(url: str, items: list[str]) -> Any:
    async def story() -> Any:
        async with AsyncClient(url) as client:
            return (await client.submit("classify", items, model="fake", idempotency_key="k")).job

    return asyncio.run(story())


@pytest.fixture(params=[submitted, submitted_async])
def submit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Submits with a client whose waits between tries are short, and for whom everything is large."""
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(calls, "INLINE_BYTES", 1000)
    wanted: Submit = request.param
    return wanted


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each piece that a client sends begins."""
    noticed, make = list[int](), calls._piece

    def piece(path: str, file: Any, at: int, size: int) -> calls.Call:
        noticed.append(at)
        return make(path, file, at, size)

    monkeypatch.setattr(calls, "_piece", piece)
    return noticed


@pytest.fixture
def proxy(server: ApiServer) -> Iterator[Proxy]:
    with Proxy(urlsplit(server.url).port or 0) as made:
        yield made


def test_a_client_goes_on_where_its_connection_broke(
    proxy: Proxy, submit: Submit, starts: list[int], files: Path
) -> None:
    items = [f"{n} {'x' * 1000}" for n in range(4000)]
    proxy.cut_at(b'\n{"text":"2000 ', delivered=False)

    job = submit(f"http://127.0.0.1:{proxy.port}", items)

    assert job.counts.total == 4000
    # The server may be asked for its offset before it has noticed the break, and then refuses a piece from there.
    assert starts in ([0, starts[-1]], [0, 0, starts[-1]])
    assert 1_000_000 < starts[-1] < 2_100_000
    until(lambda: names(files) == set())


def test_a_client_whose_answer_was_lost_does_not_send_the_piece_again(
    proxy: Proxy, submit: Submit, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PIECE_BYTES", 600)
    for marker in (b"number 60", b"number 99"):  # in the middle, and in the last piece
        starts.clear()
        proxy.cut_at(marker, delivered=True)

        job = submit(f"http://127.0.0.1:{proxy.port}", [f"number {n}" for n in range(100)])

        assert job.counts.total == 100
        assert starts == [0, 600, 1200, 1800]


def test_a_client_gives_up_when_nothing_arrives_any_more(
    proxy: Proxy, submit: Submit, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TRIES", 2)
    noticed = calls._piece

    def cut(*given: Any) -> calls.Call:
        proxy.cut_at(b"PATCH /", delivered=False)
        return noticed(*given)

    monkeypatch.setattr(calls, "_piece", cut)

    with pytest.raises(ApiUnavailable, match="does not answer"):
        submit(f"http://127.0.0.1:{proxy.port}", [f"number {n}" for n in range(100)])
    assert starts == [0, 0]


def test_items_that_are_refused_leave_no_file(
    server: ApiServer, submit: Submit, starts: list[int], ai: OpenAI, files: Path
) -> None:
    items: list[Any] = [*(f"number {n}" for n in range(100)), {"other": "x"}]

    with pytest.raises(InvalidItems, match="line 101: missing_field"):
        submit(server.url, items)

    assert starts == [0]
    assert list(ai.files.list()) == []
    until(lambda: names(files) == set())


@pytest.mark.parametrize("root", ["file", "memory"])
def test_what_a_killed_server_had_not_finished_leaves_the_disk(
    root: str, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    url = (tmp_path / "files").as_uri() if root == "file" else f"memory://{tmp_path.name}"
    storage = Storage(settings(files_url=url))
    assert storage.sweep(0) == 0  # there is no folder yet
    storage.write("file-1", io.BytesIO(b"whole"))
    storage.begin("file-2").write(b"half")
    time.sleep(0.01)
    assert storage.sweep(60) == 0
    assert storage.sweep(0) == 1
    assert storage.sweep(0) == 0
    with storage.open(["file-1"]) as stream:
        assert stream.read() == b"whole"

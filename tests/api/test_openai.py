"""The unmodified OpenAI SDK against a real server: files, batches, answers at once."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from sqlalchemy import update

from jobs.errors import UnknownJob
from jobs.store import Store, ids
from jobs.store.clock import later
from jobs.store.tables import jobs
from jobs.store.values import Save
from tests.api.conftest import Connect, Serve
from tests.corpora import model
from tests.rows import ok
from tests.worker.conftest import MakeShift

Work = Callable[[], None]
Sdk = Callable[..., OpenAI]
CHAT, NLP = "/v1/chat/completions", "/v1/nlp/classify"


@pytest.fixture
def sdk(serve: Serve) -> Iterator[Sdk]:
    """Makes SDK clients of one server."""
    url = f"{serve().url}/v1"
    with ExitStack() as stack:
        yield lambda key="none", **more: stack.enter_context(OpenAI(base_url=url, api_key=key, **more))


@pytest.fixture
def ai(sdk: Sdk) -> OpenAI:
    return sdk(max_retries=0)


@contextmanager
def working(make_shift: MakeShift, store: Store) -> Iterator[None]:
    """A worker beside the test."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(0.02):
            make_shift(idle_claim_s=0.05).run()
            for job_id in store.jobs.finishable():
                store.jobs.finish(job_id)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def line(name: str, body: Any, url: str = CHAT, **more: Any) -> bytes:
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body, **more}).encode() + b"\n"


def chat(text: str, **more: Any) -> Any:
    return {"model": "fake", "messages": [{"role": "user", "content": text}], **more}


def upload(ai: OpenAI, content: bytes) -> str:
    return ai.files.create(file=("in.jsonl", content), purpose="batch").id


def begun(ai: OpenAI, content: bytes, endpoint: Any = CHAT, **more: Any) -> Any:
    """A batch that is not being validated any more."""
    made = ai.batches.create(input_file_id=upload(ai, content), endpoint=endpoint, completion_window="24h", **more)
    assert made.status == "validating"
    return until(ai, made.id, lambda batch: batch.status != "validating")


def until(ai: OpenAI, batch_id: str, reached: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 20
    while not reached(batch := ai.batches.retrieve(batch_id)):
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
    return batch


def content(ai: OpenAI, file_id: str | None) -> dict[str, Any]:
    """The lines of a file by `custom_id`."""
    assert file_id is not None
    lines = [json.loads(each) for each in ai.files.content(file_id).text.splitlines()]
    assert len({each["custom_id"] for each in lines}) == len(lines)
    return {each["custom_id"]: each for each in lines}


def test_a_batch_from_file_to_output(ai: OpenAI, work: Work, store: Store) -> None:
    lines = line("r-1", chat("one", max_tokens=3, temperature=0)) + b"\n" + line("ü 2", chat("two", n=2))
    batch = begun(ai, lines, metadata={"team": "search"})
    assert (batch.status, batch.request_counts.total, batch.metadata) == ("in_progress", 2, {"team": "search"})
    assert batch.output_file_id is None

    work()
    batch = ai.batches.retrieve(batch.id)

    assert (batch.status, batch.endpoint, batch.model, batch.errors) == ("completed", CHAT, "fake", None)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 0)
    assert batch.created_at <= batch.in_progress_at <= batch.completed_at <= batch.expires_at
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens > 0
    found = content(ai, batch.output_file_id)
    first, second = found["r-1"]["response"], found["ü 2"]["response"]
    assert (first["status_code"], found["r-1"]["error"]) == (200, None)
    assert first["body"]["object"] == "chat.completion"
    assert first["body"]["choices"][0]["message"]["role"] == "assistant"
    assert first["body"]["usage"]["completion_tokens"] == 3
    assert [choice["index"] for choice in second["body"]["choices"]] == [0, 1]
    assert batch.error_file_id is None
    output = ai.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.bytes) == ("batch_output", len(ai.files.content(output.id).content))


def test_failed_requests_are_in_the_error_file_and_a_batch_of_them_alone_is_completed(ai: OpenAI, work: Work) -> None:
    mixed = begun(ai, line("good", chat("one")) + line("blank", chat(" ")))
    failed = begun(ai, line("blank", chat(" ")))
    work()

    mixed, failed = ai.batches.retrieve(mixed.id), ai.batches.retrieve(failed.id)

    assert (mixed.status, mixed.request_counts.failed) == ("completed", 1)
    assert content(ai, mixed.output_file_id).keys() == {"good"}
    wrong = content(ai, mixed.error_file_id)["blank"]
    assert (wrong["error"], wrong["response"]["status_code"]) == (None, 400)
    assert wrong["response"]["body"]["error"]["code"] == "empty_text"
    assert (failed.status, failed.output_file_id) == ("completed", None)


def test_everything_that_is_wrong_with_the_lines_is_listed(ai: OpenAI, store: Store) -> None:
    lines = [
        line("ok", chat("fine")),
        b'{"custom_id": "x"\n',
        line("url", chat("a"), url="/v1/completions"),
        line("ok", chat("again")),
        line("other", chat("a") | {"model": "someone"}),
        line("stream", chat("a", stream=True)),
        line("far", chat("a", temperature=99)),
        line("tool", chat("a", tools=[{"type": "function"}])),
        line("strange", chat("a", temprature=1)),
        line("picture", chat("a") | {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        json.dumps({"method": "POST", "url": CHAT, "body": chat("a")}).encode() + b"\n",
        b"[1]\n",
    ]

    batch = begun(ai, b"".join(lines))

    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert [(each.line, each.code) for each in batch.errors.data] == [
        (2, "invalid_json_line"),
        (3, "url_mismatch"),
        (4, "duplicate_custom_id"),
        (5, "model_mismatch"),
        (6, "invalid_request"),
        (7, "invalid_request"),
        (8, "invalid_request"),
        (9, "invalid_request"),
        (10, "invalid_request"),
        (11, "invalid_request"),
        (12, "invalid_json_line"),
    ]
    said = {each.line: each.message for each in batch.errors.data}
    assert "'stream' is not supported" in said[6]
    assert "temperature" in said[7]
    assert "unrecognized parameter 'temprature'" in said[9]
    assert store.jobs.list() == []


def test_a_batch_for_a_model_that_is_not_there_or_without_requests_fails(ai: OpenAI) -> None:
    nobody = begun(ai, line("a", chat("a") | {"model": "nobody"}))
    empty = begun(ai, b"\n\n")

    assert (nobody.status, nobody.errors.data[0].code) == ("failed", "model_not_found")
    assert (empty.status, "empty" in empty.errors.data[0].message) == ("failed", True)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"input_file_id": "file-nothing"}, "no file"),
        ({"endpoint": "/v1/images"}, "is no endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"extra_body": {"prio": 1}}, "prio"),
    ],
)
def test_a_wrong_create_is_a_bad_request(ai: OpenAI, wanted: Any, said: str) -> None:
    right: Any = {"input_file_id": upload(ai, line("a", chat("a"))), "endpoint": CHAT, "completion_window": "24h"}

    with pytest.raises(openai.BadRequestError, match=said) as caught:
        ai.batches.create(**{**right, **wanted})
    assert set(caught.value.body) == {"message", "type", "param", "code"}  # type: ignore[arg-type]


def test_a_cancelled_batch_keeps_its_results_and_says_what_was_not_run(
    ai: OpenAI, store: Store, make_shift: MakeShift
) -> None:
    batch = begun(ai, b"".join(line(f"r{n}", chat(f"text {n}")) for n in range(300)))
    (claim,) = store.chunks.claim(worker_id="w", queue="default", cost=1, items=1, loaded=())
    store.chunks.release({claim.chunk_id: claim.token})

    cancelled = ai.batches.cancel(batch.id)

    assert cancelled.status == "cancelled"
    assert cancelled.cancelled_at is not None
    assert cancelled.output_file_id is None
    not_run = content(ai, cancelled.error_file_id)
    assert len(not_run) == 300
    assert not_run["r7"]["response"] is None
    assert not_run["r7"]["error"]["code"] == "batch_cancelled"
    with pytest.raises(openai.NotFoundError):
        ai.files.content(f"file-{batch.id.removeprefix('batch_')}-output")


def test_an_expired_batch_says_what_was_not_run(ai: OpenAI, store: Store) -> None:
    batch = begun(ai, line("a", chat("a")))
    store._db.write(lambda connection: connection.exec_driver_sql("UPDATE jobs SET deadline_at = created_at"))
    store.jobs.expire_due()

    expired = ai.batches.retrieve(batch.id)

    assert (expired.status, expired.expired_at is not None) == ("expired", True)
    assert content(ai, expired.error_file_id)["a"]["error"]["code"] == "batch_expired"


def test_batches_and_files_are_paged_through(ai: OpenAI) -> None:
    files = [upload(ai, line("a", chat(f"{n}"))) for n in range(3)]
    made = [ai.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h").id for file in files]

    assert [batch.id for batch in ai.batches.list(limit=2)] == made[::-1]
    assert [file.id for file in ai.files.list(limit=2)] == files[::-1]
    assert [file.id for file in ai.files.list(order="asc", purpose="batch")] == files
    assert list(ai.files.list(purpose="fine-tune")) == []


def test_files_are_read_back_and_deleted(ai: OpenAI) -> None:
    body = line("a", chat("a"))
    file = ai.files.create(
        file=("naïve.jsonl", body), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert (file.bytes, file.filename, file.status) == (len(body), "naïve.jsonl", "processed")
    assert file.expires_at == pytest.approx(file.created_at + 3600, abs=5)
    assert ai.files.retrieve(file.id) == file
    assert ai.files.content(file.id).content == body
    assert ai.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        ai.files.retrieve(file.id)
    with pytest.raises(openai.NotFoundError):
        ai.files.content(file.id)


def test_embeddings_of_several_texts_a_line_stay_together(ai: OpenAI, work: Work) -> None:
    body = {"model": "fake", "input": ["one", "two", "three"], "dimensions": 4}
    lines = line("many", body, "/v1/embeddings") + line("one", body | {"input": "one"}, "/v1/embeddings")
    batch = begun(ai, lines, "/v1/embeddings")
    work()

    found = content(ai, ai.batches.retrieve(batch.id).output_file_id)

    many, one = found["many"]["response"]["body"], found["one"]["response"]["body"]
    assert [each["index"] for each in many["data"]] == [0, 1, 2]
    assert many["data"][0]["embedding"] == one["data"][0]["embedding"]
    assert len(one["data"][0]["embedding"]) == 4


def test_a_line_of_which_some_inputs_were_not_run_is_not_run(ai: OpenAI, store: Store) -> None:
    body = {"model": "fake", "input": [f"text {n}" for n in range(300)]}
    whole = line("whole", body | {"input": ["one", "two"]}, "/v1/embeddings")
    batch = begun(ai, whole + line("half", body, "/v1/embeddings"), "/v1/embeddings")
    (claim,) = store.chunks.claim(worker_id="w", queue="default", cost=1, items=1, loaded=())
    name = {0: "whole\x1f0/2", 1: "whole\x1f1/2"}
    rows = [
        ok(seq, custom_id=name.get(seq, f"half\x1f{seq - 2}/300"), output=None, vector=b"\0" * 8)
        for seq in range(claim.seq_lo, claim.seq_hi)
    ]
    store.chunks.save([Save(claim.chunk_id, claim.token, rows, True)])

    cancelled = ai.batches.cancel(batch.id)

    done, failed = content(ai, cancelled.output_file_id), content(ai, cancelled.error_file_id)
    assert done.keys() == {"whole"}
    assert len(done["whole"]["response"]["body"]["data"]) == 2
    assert failed.keys() == {"half"}
    assert failed["half"]["error"]["code"] == "batch_cancelled"


def test_a_file_is_gone_from_the_disk_when_its_time_is_over(ai: OpenAI, store: Store, tmp_path: Path) -> None:
    file = ai.files.create(file=("a", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600})
    kept = upload(ai, b"y")
    store._db.write(
        lambda connection: connection.exec_driver_sql(
            f"UPDATE files SET expires_at = created_at WHERE id = '{file.id}'"
        )
    )

    deadline = time.monotonic() + 20
    while [each.name for each in (tmp_path / "home" / "files").iterdir()] != [kept]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(openai.NotFoundError):
        ai.files.retrieve(file.id)
    assert store.files.expired(10) == []


def test_any_task_runs_as_a_batch(ai: OpenAI, work: Work) -> None:
    body = {"model": "fake", "input": {"text": "good"}, "parameters": {"top_k": 1}}
    batch = begun(ai, line("a", body, NLP) + line("b", {"model": "fake", "input": "bad"}, NLP), NLP)
    work()

    found = content(ai, ai.batches.retrieve(batch.id).output_file_id)

    assert len(found["a"]["response"]["body"]["data"][0]["output"]["labels"]) == 1
    assert found["b"]["response"]["body"]["task"] == "classify"


def test_answers_come_at_once(ai: OpenAI, store: Store, make_shift: MakeShift) -> None:
    with working(make_shift, store):
        said = ai.chat.completions.create(
            model="fake", messages=[{"role": "developer", "content": "x"}, {"role": "user", "content": "hi"}], n=2
        )
        ended = ai.completions.create(model="fake", prompt=["one", "two"], max_tokens=4)
        vectors = ai.embeddings.create(model="fake", input=["one", "two"])
        plain = ai.embeddings.create(model="fake", input="one", encoding_format="float")
        labels = ai.post("/nlp/classify", body={"model": "fake", "input": "good"}, cast_to=dict[str, Any])

    assert [choice.index for choice in said.choices] == [0, 1]
    assert said.usage is not None
    assert said.choices[0].message.content
    assert [choice.text == "" for choice in ended.choices] == [False, False]
    assert vectors.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert labels["data"][0]["output"]["labels"]
    assert store.jobs.list() == []


def test_a_request_that_fails_is_an_error_of_the_sdk(ai: OpenAI, store: Store, make_shift: MakeShift) -> None:
    with working(make_shift, store):
        with pytest.raises(openai.BadRequestError, match="blank"):
            ai.chat.completions.create(model="fake", messages=[{"role": "user", "content": " "}])
        with pytest.raises(openai.NotFoundError, match="unknown model"):
            ai.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "a"}])
        with pytest.raises(openai.BadRequestError, match="'stream' is not supported"):
            ai.chat.completions.create(model="fake", messages=[{"role": "user", "content": "a"}], stream=True)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            ai.chat.completions.create(model="fake", messages=[{"role": "user", "content": "a"}], temperature=99)


def test_a_model_that_does_not_load_is_a_server_error(ai: OpenAI, store: Store, make_shift: MakeShift) -> None:
    broken = model(store, "broken", load_error="its weights are gone")
    with working(make_shift, store), pytest.raises(openai.InternalServerError, match="its weights are gone"):
        ai.chat.completions.create(model=broken, messages=[{"role": "user", "content": "a"}])


def test_keys_and_tenants_hold_here_too(sdk: Sdk, store: Store) -> None:
    (_, ours), (_, theirs) = (store.keys.create(tenant, "test", ["submit"]) for tenant in ("ours", "theirs"))
    mine, other = sdk(ours, max_retries=0), sdk(theirs, max_retries=0)
    file_id = upload(mine, line("a", chat("a")))
    batch = mine.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")

    with pytest.raises(openai.AuthenticationError):
        sdk("wrong", max_retries=0).batches.list()
    for ask in (
        lambda: other.files.retrieve(file_id),
        lambda: other.files.content(file_id),
        lambda: other.files.delete(file_id),
        lambda: other.batches.retrieve(batch.id),
        lambda: other.batches.cancel(batch.id),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    with pytest.raises(openai.BadRequestError, match="no file"):
        other.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    assert list(other.batches.list()) == []
    assert [each.id for each in mine.batches.list()] == [batch.id]


def test_a_create_that_is_tried_again_makes_one_batch(serve: Serve, connect: Connect, ai: OpenAI) -> None:
    api = connect(serve())
    body = {"input_file_id": upload(ai, line("a", chat("a"))), "endpoint": CHAT, "completion_window": "24h"}
    root = str(api.base_url).removesuffix("/api/v1/")

    made, again, wanted = (
        api.post(f"{root}/v1/batches", json=body, headers={"x-stainless-retry-count": count}).json()["id"]
        for count in ("0", "1", "0")
    )

    assert made == again != wanted


def test_a_batch_goes_on_after_its_server_died(serve: Serve, ai: OpenAI, store: Store, work: Work) -> None:
    file_id = upload(ai, line("a", chat("a")))
    made = store.batches.create(
        "default",
        request_hash=b"x",
        endpoint=CHAT,
        input_file_id=file_id,
        completion_window="24h",
        window_s=86_400,
        metadata=None,
    )

    until(ai, made.id, lambda batch: batch.status == "in_progress")
    work()

    assert ai.batches.retrieve(made.id).status == "completed"


def test_models_are_listed_and_found(ai: OpenAI) -> None:
    assert "fake" in [each.id for each in ai.models.list()]
    assert ai.models.retrieve("fake").id == "fake"
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("nobody")


def test_the_asynchronous_sdk_does_the_same(serve: Serve, work: Work) -> None:
    url = f"{serve().url}/v1"

    async def story() -> Any:
        async with AsyncOpenAI(base_url=url, api_key="none") as ai:
            file = await ai.files.create(file=("in.jsonl", line("a", chat("a"))), purpose="batch")
            batch = await ai.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="1h")
            while batch.status == "validating":
                await asyncio.sleep(0.05)
                batch = await ai.batches.retrieve(batch.id)
            await asyncio.to_thread(work)
            batch = await ai.batches.retrieve(batch.id)
            assert batch.output_file_id is not None
            return (await ai.files.content(batch.output_file_id)).text

    assert json.loads(asyncio.run(story()))["custom_id"] == "a"


def test_base64_is_that_of_float32() -> None:
    from jobs.api.openai.endpoints import _packed

    assert base64.b64decode(_packed([1.0, -2.0])) == b"\0\0\x80?\0\0\0\xc0"


def test_an_output_is_kept_for_its_time_and_its_counts_for_ever(ai: OpenAI, work: Work, store: Store) -> None:
    batch = begun(ai, line("1", chat("one")), output_expires_after={"anchor": "created_at", "seconds": 3600})
    work()
    ended = ai.batches.retrieve(batch.id)
    assert ended.output_file_id is not None
    file = ai.files.retrieve(ended.output_file_id)
    assert file.expires_at == ended.completed_at + 3600
    assert store.batches.over(10) == []

    job_id = ended.model_dump()["job_id"]
    aged = update(jobs).where(jobs.c.id == ids.parse(job_id)).values(finished_at=later(-3601))
    store._db.write(lambda connection: connection.execute(aged))
    with pytest.raises(openai.NotFoundError):
        ai.files.content(ended.output_file_id)
    deadline = time.monotonic() + 20
    while store.batches.over(10) and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(UnknownJob):
        store.jobs.get(job_id)
    over = ai.batches.retrieve(batch.id)
    assert (over.status, over.output_file_id, over.request_counts.completed) == ("completed", None, 1)
    assert over.usage.total_tokens == ended.usage.total_tokens > 0


@pytest.mark.parametrize("wrong", [{"anchor": "now", "seconds": 3600}, {"anchor": "created_at", "seconds": 60}])
def test_a_wrong_expiry_is_refused(ai: OpenAI, wrong: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="output_expires_after"):
        ai.batches.create(input_file_id="file-1", endpoint=CHAT, completion_window="24h", output_expires_after=wrong)

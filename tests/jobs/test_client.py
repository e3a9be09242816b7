"""The client: what a submit promises, and what a job's handle gives, on a real database."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from jobs import client as client_module
from jobs import intake
from jobs.client import Client
from jobs.errors import (
    EmptyInput,
    IdempotencyConflict,
    InvalidInput,
    InvalidItems,
    InvalidParams,
    InvalidState,
    ModelMismatch,
    StoreUnavailable,
    UnknownJob,
    UnknownModel,
    UnknownTask,
    UsageError,
)
from jobs.models import ModelSpec
from jobs.queue import Queue
from jobs.schemas import Item
from jobs.settings import Settings
from jobs.states import JobState
from jobs.store import Store
from jobs.store.encoding import parse_block
from jobs.store.values import Claim, ResultRow, Save

MakeSettings = Callable[..., Settings]
TEXTS = [f"text {n}" for n in range(600)]


@pytest.fixture
def client(settings: MakeSettings, sqlite_url: str) -> Iterator[Client]:
    """A client on a fresh SQLite file, with no Redis anywhere."""
    with Client(settings(database_url=sqlite_url)) as opened:
        yield opened


@pytest.fixture
def any_client(settings: MakeSettings, store_url: str) -> Iterator[Client]:
    """The same on each kind of database."""
    with Client(settings(database_url=store_url)) as opened:
        yield opened


def claimed(client: Client) -> list[Claim]:
    """One chunk, held."""
    return client._store.chunks.claim(worker_id="w", queue="default", cost=1, items=1, loaded=())


def answered(client: Client, chunks: list[Claim], *, failing: str = "never") -> None:
    """Give each item of the chunks its text back as its output; those that say `failing` fail."""
    for claim in chunks:
        encoding, data = client._store.chunks.blocks([claim.block_id])[claim.block_id]
        items = [orjson.loads(line) for line in parse_block(encoding, data)]
        rows = [row(seq, items[seq - claim.block_lo], failing=failing) for seq in range(claim.seq_lo, claim.seq_hi)]
        client._store.chunks.save([Save(claim.chunk_id, claim.token, rows, True)])
        for job_id in client._store.jobs.finishable():
            client._store.jobs.finish(job_id)


def row(seq: int, item: dict[str, Any], *, failing: str) -> ResultRow:
    name = item.get("custom_id") or str(seq)
    if failing in item["text"]:
        return ResultRow(seq, name, "error", None, None, "model_error", "failed", 1, 0, 0, 1, None)
    output = orjson.dumps({"labels": [{"label": item["text"], "score": 1.0}]}).decode()
    return ResultRow(seq, name, "ok", output, None, None, None, 1, 0, 0, 1, None)


def finish(client: Client, *, failing: str = "never") -> None:
    """Answer all there is to do."""
    while chunks := claimed(client):
        answered(client, chunks, failing=failing)


def label(result: Any) -> str:
    return str(result.output["labels"][0]["label"])


def test_a_submitted_job_is_ready_for_workers(any_client: Client) -> None:
    items: list[Any] = ["bare", {"text": "dict", "custom_id": "d"}, *TEXTS]

    handle = any_client.submit("classify", items, model="fake", labels={"team": "search"}, priority=3)
    job = handle.refresh()

    assert (job.state, job.counts.total, job.model, job.task) == (JobState.QUEUED, 602, "fake", "classify")
    assert (job.labels, job.priority) == ({"team": "search"}, 3)
    assert handle.loaded is not None
    assert handle.loaded.n_items == 602
    assert [orjson.loads(line)["text"] for _, line in any_client._store.jobs.lines(job.id)][:3] == [
        "bare",
        "dict",
        "text 0",
    ]


def test_results_come_in_the_order_of_the_items(any_client: Client) -> None:
    handle = any_client.submit("classify", TEXTS, model="fake")
    chunks = [*claimed(any_client), *claimed(any_client), *claimed(any_client)]

    answered(any_client, chunks[::-1], failing="text 7")

    assert handle.wait(timeout=5).state is JobState.COMPLETED
    assert [result.seq for result in handle.results()] == list(range(600))
    assert [label(result) for result in handle.results("ok")][:8] == [f"text {n}" for n in (0, 1, 2, 3, 4, 5, 6, 8)]
    assert [result.custom_id for result in handle.results("error")][:2] == ["7", "70"]


def test_a_stream_gives_each_result_once_as_chunks_finish(client: Client) -> None:
    handle = client.submit("classify", TEXTS, model="fake")
    chunks = [*claimed(client), *claimed(client), *claimed(client)]
    worker = threading.Thread(target=lambda: answered(client, chunks[1:]))
    first: list[int] = []

    stream = handle.stream()
    worker.start()
    first = [next(stream).seq for _ in range(600 - chunks[0].seq_hi)]
    worker.join()
    answered(client, chunks[:1])
    rest = [result.seq for result in stream]

    assert sorted(first) == list(range(chunks[1].seq_lo, 600))
    assert rest == list(range(chunks[0].seq_hi))


def test_waiting_ends_at_its_timeout_and_says_how_the_job_stands(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = client.submit("classify", ["a"], model="fake")

    with pytest.raises(TimeoutError, match=f"{handle.id} is still queued after 0.05 s"):
        handle.wait(timeout=0.05)
    finish(client)
    handle.wait(progress=True)

    assert f"{handle.id} completed: 1/1 items, 0 failed" in capsys.readouterr().err


def test_jobs_are_found_steered_and_listed(client: Client) -> None:
    first = client.submit("classify", ["a"], model="fake")
    second = client.submit("classify", ["a"], model="fake")

    client.pause(first.id)
    held_back = [claim.job_id for claim in claimed(client)]
    client.resume(first.id)
    cancelled = client.cancel(second.id)

    assert held_back == [second.id]
    assert cancelled.state is JobState.CANCELLED
    assert [job.id for job in client.list()] == [second.id, first.id]
    assert [job.id for job in client.list(states=[JobState.QUEUED])] == [first.id]
    assert client.get(first.id[:-4]).id == first.id
    with pytest.raises(UnknownJob):
        client.get("job_" + "0" * 32)
    with pytest.raises(InvalidState):
        client.pause(second.id)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"task": "clasify"}, UnknownTask, "did you mean 'classify'"),
        ({"model": "nope"}, UnknownModel, "registered models: embedder, fake"),
        ({"model": "../../etc/passwd"}, UnknownModel, "unknown model"),
        ({"model": "nul\0"}, UnknownModel, "unknown model"),
        ({"task": "generate", "model": "embedder"}, ModelMismatch, "does not serve generate"),
        ({"model": None}, UnknownModel, "no registered model serves classify"),
        ({"params": {"topk": 1}}, InvalidParams, "unknown parameter 'topk'"),
        ({"params": {"top_k": 0}}, InvalidParams, "top_k"),
        ({"params": {"top_k": "many"}}, InvalidParams, "top_k"),
        ({"params": {"top_k": 10**5000}}, InvalidParams, "cannot be stored"),
        ({"params": {"top_k": 2**64}}, InvalidParams, "cannot be stored"),
        ({"params": {"threshold": float("nan")}}, InvalidParams, "threshold"),
        ({"priority": 101}, InvalidParams, "priority"),
        ({"weight": 0}, InvalidParams, "weight"),
        ({"queue": "no spaces"}, InvalidParams, "queue"),
        ({"labels": {"a": 1}}, InvalidParams, "labels"),
        ({"labels": {"a": "nul\0"}}, InvalidParams, "NUL"),
        ({"idempotency_key": ""}, InvalidParams, "idempotency_key"),
        ({"idempotency_key": "\ud800"}, InvalidParams, "idempotency_key|cannot be stored"),
        ({"keep": ("nul\0",)}, InvalidParams, "NUL"),
        ({"items": []}, EmptyInput, "empty"),
        ({"items": "one text"}, InvalidInput, "give a list"),
        ({"items": ["a", {"body": "b"}]}, InvalidItems, "line 2: missing_field"),
        ({"items": [{"text": "a", "custom_id": "x"}] * 2}, InvalidItems, "duplicate_id"),
        ({"items": ["\ud800"]}, InvalidItems, "surrogates"),
        ({"items": [{"text": "a", "params": {"top_k": -1}}]}, InvalidItems, "invalid_params"),
    ],
)
def test_a_wrong_submit_says_why_and_leaves_no_job(
    client: Client, changes: dict[str, Any], error: type[UsageError], said: str
) -> None:
    spec = ModelSpec(name="embedder", path="/m", kind="encoder", head="embed", tasks=("embed",))
    client._store.models.put(spec)
    given = {"task": "classify", "items": ["a"], "model": "fake", **changes}

    with pytest.raises(error, match=said) as caught:
        client.submit(**given)

    assert type(caught.value) is error
    assert client.list() == []


@pytest.fixture
def small_appends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand items are several transactions."""
    monkeypatch.setattr(intake, "APPEND_BLOCKS", 2)


@pytest.mark.usefixtures("small_appends")
def test_a_refusal_far_into_the_input_fails_the_job_and_runs_nothing(client: Client) -> None:
    items = [*(f"text {n}" for n in range(5_000)), 7]

    with pytest.raises(InvalidItems):
        client.submit("classify", items, model="fake")  # type: ignore[arg-type]

    (job,) = client.list()
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "line 5001: invalid_type" in job.error
    assert claimed(client) == []


def test_a_refusal_far_into_the_input_leaves_its_key_free(client: Client) -> None:
    items = [*(f"text {n}" for n in range(5_000)), 7]

    for _ in range(2):
        with pytest.raises(InvalidItems, match="line 5001"):
            client.submit("classify", items, model="fake", idempotency_key="k")  # type: ignore[arg-type]

    assert client.list() == []
    assert client.submit("classify", items[:-1], model="fake", idempotency_key="k").job.counts.total == 5_000


def test_invalid_items_may_be_skipped_and_are_reported(client: Client) -> None:
    handle = client.submit("classify", ["a", 7, Item(), "b"], model="fake", on_invalid="skip")  # type: ignore[list-item]

    assert handle.refresh().counts.total == 2
    assert handle.loaded is not None
    assert [problem.line for problem in handle.loaded.problems] == [2, 3]
    assert handle.loaded.report is not None


def test_the_only_model_of_a_task_is_taken_and_its_revision_kept(client: Client) -> None:
    spec = ModelSpec(name="embedder", path="/m", kind="encoder", head="embed", tasks=("embed",), revision="abc")
    client._store.models.put(spec)

    job = client.submit("embed", ["a"]).refresh()

    assert (job.model, job.model_revision) == ("embedder", "abc")


def test_an_alias_brings_its_params(client: Client) -> None:
    job = client.submit("translation_en_to_fr", ["a"], model="fake").refresh()

    assert (job.task, job.params) == ("translate", {"source": "en", "target": "fr"})


def test_params_are_kept_as_a_worker_will_read_them(client: Client) -> None:
    job = client.submit("classify", ["a"], model="fake", params={"labels": ("good", "bad")}).refresh()

    assert job.params == {"labels": ["good", "bad"]}


def test_one_key_is_one_job_and_another_request_is_a_conflict(any_client: Client) -> None:
    first = any_client.submit("classify", ["a"], model="fake", idempotency_key="k")
    again = any_client.submit("classify", ["a"], model="fake", idempotency_key="k")

    assert again.id == first.id
    assert (again.loaded, again.refresh().counts.total) == (None, 1)
    given: dict[str, Any] = {"task": "classify", "items": ["a"], "model": "fake", "idempotency_key": "k"}
    for other in ({"items": ["b"]}, {"params": {"top_k": 1}}, {"keep": ("x",)}, {"on_invalid": "skip"}):
        with pytest.raises(IdempotencyConflict):
            any_client.submit(**{**given, **other})


def test_one_key_fifty_times_at_once_is_one_job(any_client: Client) -> None:
    def submit(_: int) -> str:
        return any_client.submit("classify", TEXTS, model="fake", idempotency_key="k").id

    with ThreadPoolExecutor(10) as pool:
        ids = set(pool.map(submit, range(50)))

    (job,) = any_client.list()
    assert ids == {job.id}
    assert (job.state, job.counts.total) == (JobState.QUEUED, 600)


class Breaking:
    """Items from a program that dies on the way."""

    def __init__(self, n_items: int, error: BaseException) -> None:
        self._n_items, self._error = n_items, error

    def __iter__(self) -> Iterator[str]:
        for n in range(self._n_items):
            yield f"text {n}"
        raise self._error


@pytest.mark.usefixtures("small_appends")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreUnavailable("gone"), MemoryError()])
def test_a_client_that_dies_in_mid_upload_goes_on_by_its_key(client: Client, error: BaseException) -> None:
    with pytest.raises(type(error)):
        client.submit("classify", Breaking(4_000, error), model="fake", idempotency_key="k")
    (half,) = client.list()
    before = len(client._store.jobs.loaded(half.id))

    handle = client.submit("classify", (f"text {n}" for n in range(5_000)), model="fake", idempotency_key="k")

    assert half.state is JobState.LOADING
    assert before > 0
    assert handle.id == half.id
    assert handle.refresh().counts.total == 5_000
    assert [seq for seq, _ in client._store.jobs.lines(half.id)] == list(range(5_000))


def test_without_a_key_a_half_loaded_job_fails(client: Client) -> None:
    with pytest.raises(MemoryError):
        client.submit("classify", Breaking(2000, MemoryError()), model="fake")

    (job,) = client.list()
    assert (job.state, job.error) == (JobState.FAILED, "its items were not all submitted: MemoryError")


def test_a_retry_takes_what_is_not_ok_under_the_ids_it_had(any_client: Client) -> None:
    items: list[Any] = [
        "good",
        "bad one",
        {"text": "bad two", "custom_id": "x", "lang": "en"},
        {"text": "bad", "custom_id": None},
    ]
    first = any_client.submit("classify", items, model="fake", params={"top_k": 2}, keep=("lang",), priority=5)
    finish(any_client, failing="bad")

    second = any_client.retry(first.id)
    finish(any_client)
    job = second.refresh()

    assert [result.custom_id for result in second.results()] == ["1", "x", "3"]
    assert (job.retry_of, job.params, job.keep, job.priority) == (first.id, {"top_k": 2}, ("lang",), 5)
    assert [(result.seq, label(result)) for result in first.latest()] == [
        (0, "good"),
        (1, "bad one"),
        (2, "bad two"),
        (3, "bad"),
    ]


def test_a_retry_leaves_out_what_an_earlier_retry_has_done(any_client: Client) -> None:
    items = [f"bad {n}" if n % 4 == 0 else f"good {n}" for n in range(12)]
    first = any_client.submit("classify", items, model="fake")
    finish(any_client, failing="bad")
    second = any_client.retry(first.id)
    finish(any_client, failing="bad 8")

    third = any_client.retry(first.id)
    finish(any_client)

    assert [result.custom_id for result in second.results()] == ["0", "4", "8"]
    assert [result.custom_id for result in third.results()] == ["8"]
    for job in (first, second, third):
        with pytest.raises(InvalidState, match="nothing to retry"):
            any_client.retry(job.id)
    assert len(any_client.list()) == 3
    assert [label(result) for result in first.latest()] == items


def test_a_job_is_not_retried_while_a_retry_of_it_runs(client: Client) -> None:
    first = client.submit("classify", ["bad"], model="fake")
    finish(client, failing="bad")
    second = client.retry(first.id)

    with pytest.raises(InvalidState, match=f"{second.id}, of the same items, is queued"):
        client.retry(first.id)
    client.cancel(second.id)

    assert client.retry(first.id).refresh().counts.total == 1


def test_what_a_cancelled_job_has_not_done_can_be_retried(client: Client) -> None:
    handle = client.submit("classify", TEXTS, model="fake")
    chunks = claimed(client)
    answered(client, chunks)
    handle.cancel()

    retry = client.retry(handle.id)

    assert retry.refresh().counts.total == 600 - (chunks[0].seq_hi - chunks[0].seq_lo)


def test_there_is_nothing_to_retry_of_a_running_or_perfect_job(client: Client) -> None:
    handle = client.submit("classify", ["a"], model="fake")
    with pytest.raises(InvalidState, match="only a job that has ended"):
        client.retry(handle.id)
    finish(client)

    with pytest.raises(InvalidState, match="nothing to retry"):
        client.retry(handle.id)


def test_a_submit_leaves_one_hint(settings: MakeSettings, sqlite_url: str, valkey_url: str) -> None:
    chosen = settings(database_url=sqlite_url, redis_url=valkey_url)
    with Client(chosen) as client:
        client.submit("classify", TEXTS, model="fake", queue="gpu")

    queue = Queue(chosen)
    assert (queue.depth("gpu"), queue.depth("default")) == (1, 0)
    queue.close()


def test_without_redis_a_submit_is_warned_of_once_and_quick(
    client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "HINT_REST_S", 60.0)
    started = time.monotonic()

    for _ in range(5):
        client.submit("classify", ["a"], model="fake")

    assert time.monotonic() - started < 5
    assert len([record for record in caplog.records if "no hint was sent" in record.message]) == 1


def test_a_small_job_takes_one_commit(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[object] = []
    write = client._store._db.write

    def counted(work: Any) -> Any:
        commits.append(work)
        return write(work)

    monkeypatch.setattr(client._store._db, "write", counted)

    handle = client.submit("classify", ["a", "b"], model="fake", idempotency_key="k")
    again = client.submit("classify", ["a", "b"], model="fake", idempotency_key="k")

    assert handle.refresh().state is JobState.QUEUED
    assert handle.loaded == intake.Loaded(2)
    assert (again.id, again.loaded) == (handle.id, None)
    assert len(commits) == 2


def test_a_client_opens_the_home_of_its_settings(settings: MakeSettings) -> None:
    chosen = settings()

    with Client(chosen) as client:
        handle = client.submit("classify", ["a"], model="fake")
    with Client(chosen) as again:
        assert again.get(handle.id).refresh().counts.total == 1

    assert (chosen.home / "textmill.db").is_file()


def test_a_client_leaves_open_what_it_was_given(settings: MakeSettings, sqlite_url: str) -> None:
    store = Store.open(sqlite_url)

    with Client(settings(), store=store) as client:
        client.submit("classify", ["a"], model="fake")

    assert len(store.jobs.list()) == 1
    store.close()


def test_an_unknown_way_with_invalid_items_is_refused(client: Client) -> None:
    with pytest.raises(InvalidParams, match="on_invalid is 'bogus'; it may be: reject, skip"):
        client.submit("classify", ["a"], model="fake", on_invalid="bogus")  # type: ignore[arg-type]


def test_an_unknown_status_is_refused_before_results_are_read(client: Client) -> None:
    handle = client.submit("classify", ["a"], model="fake")

    with pytest.raises(UsageError, match="unknown status 'bogus'; known: ok, error"):
        handle.results("bogus")  # type: ignore[arg-type]


def test_a_field_to_keep_that_is_named_twice_is_kept_once_and_one_nobody_has_is_told(client: Client) -> None:
    handle = client.submit("classify", [{"text": "a", "lang": "de"}], model="fake", keep=["lang", "lang", "lnag"])

    assert handle.refresh().keep == ("lang", "lnag")
    assert handle.loaded is not None
    assert handle.loaded.never_seen == ("lnag",)


def test_the_same_key_with_another_priority_is_the_same_job(client: Client) -> None:
    first = client.submit("classify", ["a"], model="fake", idempotency_key="k", priority=1)

    again = client.submit("classify", ["a"], model="fake", idempotency_key="k", priority=2)

    assert again.id == first.id
    assert again.refresh().priority == 1


def test_a_report_bears_its_jobs_name_one_nobody_was_told_of_goes_and_old_ones_too(
    client: Client, settings: MakeSettings
) -> None:
    reports = settings().home / "reports"
    reports.mkdir(parents=True)
    old = reports / "refused-old.jsonl"
    old.touch()
    os.utime(old, (0, 0))
    wish: dict[str, Any] = {"model": "fake", "on_invalid": "skip", "idempotency_key": "k"}

    first = client.submit("classify", ["a", {}], **wish)
    client.submit("classify", ["a", {}], **wish)

    assert [path.name for path in reports.iterdir()] == [f"refused-{first.id}.jsonl"]
    assert first.loaded is not None
    assert first.loaded.report == str(reports / f"refused-{first.id}.jsonl")

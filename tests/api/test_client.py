"""The Python clients over HTTP: the verbs of the direct client, repeated until they are answered."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobs import AsyncClient, Client
from jobs.errors import (
    ApiError,
    ApiUnavailable,
    IdempotencyConflict,
    InvalidItems,
    InvalidParams,
    InvalidState,
    UnknownJob,
    UnknownModel,
    UnknownTask,
)
from jobs.remote import calls
from jobs.remote.client import HttpClient
from jobs.states import JobState
from jobs.store import Store
from tests.api.conftest import Serve

Work = Callable[[], None]


@pytest.fixture
def client(serve: Serve) -> Iterator[HttpClient]:
    with Client(serve().url) as made:
        assert isinstance(made, HttpClient)
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries are short."""
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)


def test_a_job_is_submitted_waited_for_and_read(client: HttpClient, work: Work) -> None:
    job = client.submit("sentiment", ["a", {"text": "b", "custom_id": "x"}], model="fake", labels={"team": "a:b"})
    later = threading.Timer(0.3, work)
    later.start()

    ended = job.wait(20)
    later.join()

    assert (ended.state, ended.task, ended.labels) == (JobState.COMPLETED, "classify", {"team": "a:b"})
    assert [result.custom_id for result in job.results()] == ["0", "x"]
    assert [row["status"] for row in job.records()] == ["ok", "ok"]
    assert set(job.records()[0]) == {"custom_id", "status", "labels", "error"}
    assert [each.id for each in client.list(labels={"team": "a:b"}, states=["completed"])] == [job.id]
    assert client.list(task="embed") == []
    assert client.get(job.id).job.counts.ok == 2


def test_any_iterable_is_read_once_and_a_large_one_is_sent_in_pieces(
    client: HttpClient, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "INLINE_BYTES", 1000)
    monkeypatch.setattr(calls, "PIECE_BYTES", 300)

    job = client.submit(
        "classify",
        (f"text {n}" for n in range(500)),
        model="fake",
        params={"top_k": 1},
        labels={"a": "b"},
        keep=["x", "y"],
        priority=-3,
    )
    work()

    assert (job.job.counts.total, job.job.params, job.job.labels) == (500, {"top_k": 1}, {"a": "b"})
    assert (job.job.keep, job.job.priority) == (("x", "y"), -3)
    assert [result.seq for result in job.results()] == list(range(500))
    assert len(list(job.results("ok", after=400))) == 99


def test_results_come_as_they_finish_each_once(client: HttpClient, work: Work) -> None:
    job = client.submit("classify", [f"{n}" for n in range(1500)], model="fake")
    later = threading.Timer(0.5, work)
    later.start()

    seen = [result.seq for result in job.stream()]
    later.join()

    assert seen == list(range(1500))


def test_run_submits_waits_and_reads(client: HttpClient, store: Store, work: Work) -> None:
    def work_once_there_is_some() -> None:
        until = time.monotonic() + 20
        while not store.jobs.list(states=[JobState.QUEUED]) and time.monotonic() < until:
            time.sleep(0.02)
        work()

    later = threading.Thread(target=work_once_there_is_some)
    later.start()

    results = client.run("classify", ["a", " "], model="fake", timeout=20)
    later.join()

    assert [result.status for result in results] == ["ok", "error"]


def test_jobs_are_steered(client: HttpClient, work: Work) -> None:
    job = client.submit("classify", ["a", " "], model="fake")

    assert job.pause().control == "pause"
    assert job.resume().control == "run"
    with pytest.raises(TimeoutError, match=r"is still queued after 0\.5 s"):
        job.wait(0.5)
    work()
    with pytest.raises(InvalidState):
        job.cancel()
    again = client.retry(job.id)
    assert again.job.retry_of == job.id
    assert again.cancel().state is JobState.CANCELLED
    client.delete(job.id)
    with pytest.raises(UnknownJob):
        job.refresh()


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ({"task": "clasify"}, UnknownTask, "did you mean 'classify'"),
        ({"model": "nobody"}, UnknownModel, "registered models"),
        ({"params": {"top_k": 0}}, InvalidParams, "greater than or equal to 1"),
        ({"items": ["a", {"t": 1}, 5]}, InvalidItems, "line 3"),
        ({"queue": "no queue"}, ApiError, "queue"),
    ],
)
def test_errors_are_those_of_the_direct_client(
    client: HttpClient, store: Store, wanted: Any, error: type[Exception], said: str
) -> None:
    right: Any = {"task": "classify", "items": ["a"], "model": "fake"}

    with pytest.raises(error, match=said):
        client.submit(**{**right, **wanted})
    assert store.jobs.list() == []


def test_wrong_items_are_listed_with_their_lines(client: HttpClient) -> None:
    with pytest.raises(InvalidItems) as caught:
        client.submit("classify", ["a", {"t": 1}, {"text": "b", "custom_id": ""}], model="fake")

    assert [(problem.line, problem.code) for problem in caught.value.problems] == [
        (2, "missing_field"),
        (3, "invalid_id"),
    ]


def test_one_key_is_one_job(client: HttpClient) -> None:
    first, again = (client.submit("classify", ["a"], model="fake", idempotency_key="k") for _ in range(2))

    assert first.id == again.id
    with pytest.raises(IdempotencyConflict):
        client.submit("classify", ["b"], model="fake", idempotency_key="k")


def test_a_key_is_needed_where_there_are_keys(serve: Serve, store: Store) -> None:
    _, secret = store.keys.create("default", "test", ["read"])
    url = serve().url

    with Client(url) as nobody, pytest.raises(ApiError, match=r"a key is needed.*401"):
        nobody.list()
    with Client(url, api_key=secret) as reader:
        assert reader.list() == []
        with pytest.raises(ApiError, match=r"scope 'submit'.*403"):
            reader.submit("classify", ["a"], model="fake")


class Flaky(ThreadingHTTPServer):
    """Passes requests on, but loses every first and second answer of each path."""

    def __init__(self, target: str) -> None:
        self.target, self.asked = target, dict[str, int]()
        super().__init__(("127.0.0.1", 0), _Flaky)


class _Flaky(BaseHTTPRequestHandler):
    server: Flaky

    def _pass_on(self) -> None:
        import httpx2

        path = self.path.partition("?")[0]
        count = self.server.asked[path] = self.server.asked.get(path, 0) + 1
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")
        }
        response = httpx2.request(self.command, self.server.target + self.path, content=body, headers=headers)
        if count == 1:
            self.connection.close()
            return
        status = 503 if count == 2 else response.status_code
        self.send_response(status)
        self.send_header("content-length", str(len(response.content)))
        self.end_headers()
        self.wfile.write(response.content)

    do_GET = do_POST = _pass_on  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.usefixtures("impatient")
@pytest.mark.filterwarnings("ignore")
def test_lost_answers_cost_time_and_make_no_second_job(serve: Serve, store: Store) -> None:
    flaky = Flaky(serve().url)
    thread = threading.Thread(target=flaky.serve_forever)
    thread.start()
    try:
        with Client(f"http://127.0.0.1:{flaky.server_address[1]}") as client:
            job = client.submit("classify", ["a"], model="fake")
            listed = [each.id for each in store.jobs.list()]
    finally:
        flaky.shutdown()
        thread.join()
        flaky.server_close()

    assert flaky.asked["/api/v1/jobs"] == 3
    assert listed == [job.id]


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_not_there_is_said_by_its_url() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ApiUnavailable, match=r"http://127\.0\.0\.1:1 does not"):
        client.list()


def test_the_asynchronous_client_does_the_same(serve: Serve, work: Work) -> None:
    async def story() -> Any:
        async with AsyncClient(serve().url) as client:
            job = await client.submit("classify", (f"{n}" for n in range(300)), model="fake")
            waiting = asyncio.create_task(client.run("classify", ["a"], model="fake", timeout=20))
            reading = asyncio.create_task(_all(job.stream()))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(work)
            ended = await job.wait(20)
            with pytest.raises(UnknownJob):
                await client.get(f"job_{'0' * 32}")
            return ended, await waiting, await reading, await client.list(limit=1)

    ended, ran, streamed, listed = asyncio.run(story())

    assert ended.state is JobState.COMPLETED
    assert [result.status for result in ran] == ["ok"]
    assert [result.seq for result in streamed] == list(range(300))
    assert len(listed) == 1


async def _all(results: Any) -> list[Any]:
    return [result async for result in results]


def test_a_large_upload_goes_the_asynchronous_way_too(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "INLINE_BYTES", 1000)

    async def story() -> Any:
        async with AsyncClient(serve().url) as client:
            return await client.submit("classify", [f"text {n}" for n in range(500)], model="fake")

    start = time.monotonic()
    assert asyncio.run(story()).job.counts.total == 500
    assert time.monotonic() - start < 20

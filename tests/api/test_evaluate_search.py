"""Evaluate and search over HTTP: what the command line answers, from a server."""

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from jobs import AsyncClient, Client
from jobs.api import indexes
from jobs.api.native import search as searching
from jobs.api.native.evaluate import Evaluation
from jobs.errors import InvalidInput, InvalidState, MissingGold
from jobs.search import Index, open_index
from jobs.store import Store
from tests.api.conftest import Api, Connect, Serve
from tests.integration.commands import TEXTMILL
from tests.worker.conftest import MakeShift

Work = Callable[[], None]
GOLDS = ("POSITIVE", "NEGATIVE")


@pytest.fixture
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
    yield
    stop.set()
    thread.join()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs whose vectors were read from the database, one after another."""
    seen: list[str] = []

    def counted(store: Store, job_id: str, *rest: Any) -> Index:
        seen.append(job_id)
        return open_index(store, job_id, *rest)

    monkeypatch.setattr(indexes, "open_index", counted)
    return seen


def judged(api: Api, work: Work, count: int = 20, **wanted: Any) -> str:
    """A job of classify that has ended, with gold values for all but its last item."""
    items = [{"custom_id": f"n{at}", "text": f"text {at}", "right": GOLDS[at % 2]} for at in range(count)]
    del items[-1]["right"]
    job_id: str = api.job(items, keep=["right"], **wanted)["id"]
    work()
    return job_id


def embedded(api: Api, work: Work, texts: list[str], **wanted: Any) -> str:
    """A job of embed that has ended."""
    job_id: str = api.job(texts, task="embed", **wanted)["id"]
    work()
    return job_id


def vectors(api: Api, job_id: str) -> list[list[float]]:
    return [each["output"]["embedding"] for each in api.get(f"/jobs/{job_id}/results").json()["data"]]


@pytest.fixture
def command(store_url: str, tmp_path: Path) -> Callable[..., Any]:
    """What the command line prints about the same deployment, as JSON."""
    settings = {"DATABASE_URL": store_url, "REDIS_URL": "redis://127.0.0.1:1/0", "HOME": str(tmp_path)}
    env = {**os.environ, **{f"TEXTMILL_{name}": value for name, value in settings.items()}}

    def run(*arguments: str) -> Any:
        line = [TEXTMILL, *arguments, "--json"]
        done = subprocess.run(line, env=env, capture_output=True, check=True, text=True, timeout=60)
        return [json.loads(each) for each in done.stdout.splitlines()]

    return run


def test_results_are_judged_by_kept_golds_as_the_command_line_does(
    api: Api, work: Work, command: Callable[..., Any]
) -> None:
    job_id = judged(api, work)

    answer = api.post(f"/jobs/{job_id}/evaluate", json={"gold": "right", "seed": 3})

    [printed] = command("evaluate", job_id, "--gold", "right", "--seed", "3")
    assert (answer.status_code, answer.json()) == (200, printed)
    assert answer.json()["items"] == 19
    assert answer.json()["notes"] == [f"1 of 20 results of {job_id} have no gold value and do not count"]
    assert "against" not in answer.json()
    Evaluation.model_validate(answer.json())


def test_golds_may_come_with_the_question(api: Api, work: Work) -> None:
    job_id = judged(api, work)
    found = api.get(f"/jobs/{job_id}/results").json()["data"]
    right = {each["custom_id"]: {"x": each["output"]["labels"][0]["label"]} for each in found[:15]}

    report = api.post(f"/jobs/{job_id}/evaluate", json={"gold": "x", "gold_rows": right}).json()

    assert report["items"] == 15
    assert report["figures"]["accuracy"] == {"value": 1.0, "interval_95": [1.0, 1.0]}


def test_two_jobs_are_compared_item_by_item(api: Api, work: Work) -> None:
    first, second = judged(api, work), judged(api, work, params={"top_k": 1})

    report = api.post(f"/jobs/{first}/evaluate", json={"gold": "right", "against": second}).json()

    assert (report["against"]["items"], report["against"]["agreement"]) == (19, 1.0)
    assert report["against"]["figures"]["accuracy"]["difference"] == 0
    Evaluation.model_validate(report)


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({}, 422, "missing_gold", 'kept: right (submit with \\"keep\\": [\\"gold\\"], or send gold_rows)'),
        ({"gold": "x", "gold_rows": {"n1": {"y": 1}}}, 422, "invalid_input", "no field 'x'; there are y"),
        ({"gold_rows": {"z": {"gold": "A"}}}, 422, "invalid_input", "those are of z; the job has n19"),
        ({"gold": "right", "resamples": 5}, 422, "invalid_request", "resamples"),
        ({"gold": "right", "golds": {}}, 422, "invalid_request", "golds"),
        ({"gold": "right", "against": f"job_{'0' * 32}"}, 404, "unknown_job", "no job"),
    ],
)
def test_what_cannot_be_judged_is_said_with_what_can(
    api: Api, work: Work, body: Any, status: int, code: str, said: str
) -> None:
    job_id = judged(api, work)

    answer = api.post(f"/jobs/{job_id}/evaluate", json=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert said in answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_jobs_of_two_tasks_and_of_a_task_without_golds_are_refused(api: Api, work: Work) -> None:
    first, other = judged(api, work), embedded(api, work, ["a"])
    zero = api.job([{"text": "a", "custom_id": "n0"}], task="zero_shot", params={"labels": ["A", "B"]})["id"]
    work()

    two = api.post(f"/jobs/{first}/evaluate", json={"gold": "right", "against": zero})
    none = api.post(f"/jobs/{other}/evaluate", json={"gold_rows": {"0": {"gold": 1}}})

    assert (two.status_code, two.json()["detail"]) == (422, "the jobs are of two tasks: classify and zero_shot")
    assert "results of embed cannot be evaluated; those of these can: classify" in none.json()["detail"]


@pytest.mark.parametrize("value", [math.inf, math.nan, {"0": math.nan}, {"x": 1}, "a", [], {}, [[]], "\ud800", True])
@pytest.mark.parametrize("task", ["classify", "rerank", "ner", "qa"])
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_no_gold_value_is_an_error_of_the_server(api: Api, work: Work, task: str, value: Any) -> None:
    fields = {"rerank": {"query": "a", "documents": ["b"]}, "qa": {"question": "a", "context": "b"}}
    job_id = api.job([fields.get(task, {"text": "a"})], task=task)["id"]
    work()

    body = json.dumps({"gold_rows": {"0": {"gold": value}}}).encode()
    answer = api.post(f"/jobs/{job_id}/evaluate", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code in (200, 422), answer.text
    json.loads(answer.text, parse_constant=pytest.fail)


def test_a_job_that_runs_is_judged_and_searched_only_where_that_is_asked_for(api: Api, store: Store) -> None:
    job_id = api.job(["a"], task="embed")["id"]

    for verb, body in (("evaluate", {}), ("search", {"vector": [1]})):
        refused = api.post(f"/jobs/{job_id}/{verb}", json=body)
        tried = api.post(f"/jobs/{job_id}/{verb}", json={**body, "partial": True})

        assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
        assert "is queued, 0 of 1 items have a result" in refused.json()["detail"]
        assert (tried.status_code, tried.json()["code"]) == (422, "invalid_input")
        assert "yet" in tried.json()["detail"]


def test_a_tenant_judges_and_searches_nothing_of_another(
    serve: Serve, store: Store, connect: Connect, work: Work
) -> None:
    server = serve()
    ours, theirs = (connect(server, store.keys.create(each, "k", ["submit"])[1]) for each in ("ours", "theirs"))
    mine, other, vectored = judged(ours, work), judged(theirs, work), embedded(theirs, work, ["a"])

    answers = [
        ours.post(f"/jobs/{other}/evaluate", json={"gold": "right"}),
        ours.post(f"/jobs/{mine}/evaluate", json={"gold": "right", "against": other}),
        ours.post(f"/jobs/{vectored}/search", json={"like": "0"}),
    ]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "unknown_job")}


@pytest.mark.usefixtures("working")
def test_a_reader_finds_by_text_by_vector_and_by_item(serve: Serve, store: Store, connect: Connect) -> None:
    server = serve()
    writer, reader = (connect(server, store.keys.create("t", "k", [scope])[1]) for scope in ("submit", "read"))
    texts = [f"text number {at}" for at in range(30)]
    job_id = writer.job(texts, task="embed")["id"]
    writer.get(f"/jobs/{job_id}", params={"wait": 30})
    matrix = numpy.array(vectors(writer, job_id))

    by_text = reader.post(f"/jobs/{job_id}/search", json={"text": "text number 17", "top_k": 3})
    by_vector = reader.post(f"/jobs/{job_id}/search", json={"vector": (matrix[17] * 1e200).tolist(), "top_k": 3})
    by_item = reader.post(f"/jobs/{job_id}/search", json={"like": "17", "top_k": 2}).json()

    hits = by_text.json()["data"]
    nearest = numpy.argsort(-(matrix @ matrix[17]), kind="stable")[:3]
    assert [hit["seq"] for hit in hits] == nearest.tolist()
    assert (hits[0]["rank"], hits[0]["custom_id"], hits[0]["item"]) == (1, "17", {"text": "text number 17"})
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    assert by_text.json()["vectors"] == 30
    assert [hit["seq"] for hit in by_vector.json()["data"]] == nearest.tolist()
    assert [hit["seq"] for hit in by_item["data"]] == nearest[1:].tolist()
    assert [job.id for job in store.jobs.list()] == [job_id]  # the query's own is gone


@pytest.mark.usefixtures("working")
def test_a_search_finds_what_the_command_line_finds(api: Api, command: Callable[..., Any]) -> None:
    job_id = api.job([f"text number {at}" for at in range(30)], task="embed", params={"dimensions": 4})["id"]
    api.get(f"/jobs/{job_id}", params={"wait": 30})

    found = api.post(f"/jobs/{job_id}/search", json={"text": "text number 3"}).json()["data"]

    printed = command("search", job_id, "text number 3")
    assert [{"query": "text number 3", **hit} for hit in found] == printed


@pytest.mark.usefixtures("working")
def test_a_query_that_cannot_be_embedded_is_said(api: Api) -> None:
    job_id = api.job(["a"], task="embed")["id"]
    api.get(f"/jobs/{job_id}", params={"wait": 30})

    answer = api.post(f"/jobs/{job_id}/search", json={"text": " "})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert "the query ' ' could not be embedded: empty_text" in answer.json()["detail"]


def test_without_a_worker_a_text_is_not_waited_for_for_ever(
    api: Api, work: Work, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "LONGEST_S", 0.3)
    job_id = embedded(api, work, ["a"])

    answer = api.post(f"/jobs/{job_id}/search", json={"text": "a"})

    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
    assert "a worker that serves queue 'default' is needed" in answer.json()["detail"]
    assert [job.id for job in store.jobs.list()] == [job_id]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"vector": [1, 2]}, "invalid_input", "the query has 2 numbers, the job's vectors 8"),
        ({"like": "nobody"}, "invalid_input", "no result of the job is named 'nobody'"),
        ({}, "invalid_request", "one of text, vector and like is wanted; given: none"),
        ({"text": "a", "like": "b"}, "invalid_request", "given: text, like"),
        ({"vector": [math.inf]}, "invalid_request", "finite"),
        ({"vector": [1], "top_k": 0}, "invalid_request", "top_k"),
    ],
)
def test_a_query_that_does_not_fit_is_refused(api: Api, work: Work, body: Any, code: str, said: str) -> None:
    job_id = embedded(api, work, ["a", "b"], params={"dimensions": 8})

    headers = {"Content-Type": "application/json"}
    answer = api.post(f"/jobs/{job_id}/search", content=json.dumps(body).encode(), headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert said in answer.json()["detail"]


def test_an_answer_of_too_long_items_is_refused(api: Api, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MOST_BYTES", 3000)
    job = embedded(api, work, [f"{number} " + "x" * 1000 for number in range(5)])

    few = api.post(f"/jobs/{job}/search", json={"like": "0", "top_k": 2})
    many = api.post(f"/jobs/{job}/search", json={"like": "0", "top_k": 4})

    assert few.status_code == 200, few.text
    assert (many.status_code, many.json()["code"]) == (422, "invalid_input")
    assert "longer than 3,000 bytes together; ask for fewer" in many.json()["detail"]


def test_only_jobs_with_a_vector_for_each_text_are_searched(api: Api, work: Work) -> None:
    labels, tokens = judged(api, work), embedded(api, work, ["a"], params={"pooling": "none"})

    other, several = (api.post(f"/jobs/{each}/search", json={"vector": [1]}) for each in (labels, tokens))

    assert (other.status_code, several.status_code) == (422, 422)
    assert "is a job of classify; what is searched is the results of embed" in other.json()["detail"]
    assert "pooling none" in several.json()["detail"]


def test_a_server_without_numpy_says_what_it_lacks(api: Api, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled, vectored = judged(api, work), embedded(api, work, ["a"])
    for name in ("numpy", "jobs.evaluate"):  # what imports numpy first may have been imported by another test
        monkeypatch.setitem(sys.modules, name, None)

    answers = [
        api.post(f"/jobs/{labelled}/evaluate", json={"gold": "right"}),
        api.post(f"/jobs/{vectored}/search", json={"like": "0"}),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(501, "not_installed")] * 2
    assert all("pip install 'textmill[evaluate]'" in answer.json()["detail"] for answer in answers)


def test_vectors_are_read_once_and_again_when_a_retry_brought_new_ones(
    api: Api, work: Work, store: Store, reads: list[str]
) -> None:
    job_id = embedded(api, work, ["a", " ", "c", "d"])

    def found(searched: str, like: str) -> list[str]:
        answer = api.post(f"/jobs/{searched}/search", json={"like": like})
        return sorted(hit["custom_id"] for hit in answer.json()["data"])

    before = [found(job_id, "0"), found(job_id, "2")]
    retry = api.post(f"/jobs/{job_id}/retry").json()["id"]
    work()
    after = [found(retry, "0"), found(job_id, "2")]

    assert before == after == [["2", "3"], ["0", "3"]]
    assert reads == [job_id, retry]


def test_what_was_searched_last_stays_and_what_is_too_large_is_refused(
    serve: Serve, connect: Connect, work: Work, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    server = serve(max_index_bytes=2**20)
    monkeypatch.setattr("jobs.search.NAME_BYTES", 2**17)  # six items are more than half of what there is room for
    api = connect(server)
    first, second, large = (embedded(api, work, [f"{at}" for at in range(count)]) for count in (5, 6, 9))

    for job_id in (first, first, second, second, first):
        assert api.post(f"/jobs/{job_id}/search", json={"like": "0"}).status_code == 200
    refused = api.post(f"/jobs/{large}/search", json={"like": "0"})

    assert reads == [first, second, first, large]
    assert (refused.status_code, refused.json()["code"]) == (422, "index_too_large")
    assert "at most 1,048,576 (setting max_index_bytes) may" in refused.json()["detail"]


def test_many_who_search_at_once_wait_for_one_reading(api: Api, work: Work, reads: list[str]) -> None:
    job_id = embedded(api, work, [f"{at}" for at in range(50)])
    answers: list[int] = []

    def ask() -> None:
        answers.append(api.post(f"/jobs/{job_id}/search", json={"like": "1"}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [200] * 8
    assert reads == [job_id]


@pytest.mark.usefixtures("working")
def test_the_client_judges_and_searches(serve: Serve) -> None:
    with Client(serve().url) as client:
        labelled = client.submit("classify", [{"text": "a", "custom_id": "x"}], model="fake")
        vectored = client.submit("embed", ["a", "b"], model="fake")
        labelled.wait(30)
        vectored.wait(30)

        label = next(labelled.results()).output["labels"][0]["label"]
        report = labelled.evaluate(gold="y", gold_rows={"x": {"y": label}}, against=labelled, resamples=100)
        found = vectored.search("b", top_k=1)
        with pytest.raises(MissingGold, match="kept: nothing"):
            labelled.evaluate()
        with pytest.raises(InvalidInput, match="no result of the job is named"):
            vectored.search(like="z")
        with pytest.raises(InvalidState, match="is queued"):
            client.submit("embed", ["a"], model="fake", queue="nobody").search(vector=[1])

    assert (report["figures"]["accuracy"]["value"], report["against"]["agreement"]) == (1, 1)
    assert [(hit.custom_id, hit.item) for hit in found] == [("1", {"text": "b"})]


@pytest.mark.usefixtures("working")
def test_the_asynchronous_client_does_so_too(serve: Serve) -> None:
    async def story() -> Any:
        async with AsyncClient(serve().url) as client:
            labelled = await client.submit("classify", ["a"], model="fake")
            vectored = await client.submit("embed", ["a", "b"], model="fake")
            await labelled.wait(30)
            await vectored.wait(30)
            report = await labelled.evaluate(gold_rows={"0": {"gold": "NEUTRAL"}}, against=labelled.id, partial=True)
            vector = [result.output["embedding"] async for result in vectored.results() if result.output][1]
            return report, await vectored.search(vector=vector, top_k=1), await vectored.search(like="0")

    report, by_vector, by_item = asyncio.run(story())

    assert (report["task"], report["against"]["items"]) == ("classify", 1)
    assert [hit.custom_id for hit in (*by_vector, *by_item)] == ["1", "1"]

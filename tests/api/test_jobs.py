"""Jobs over HTTP: submitted, followed, read, steered, deleted."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobs.store import Store
from jobs.store.values import Save
from tests.api.conftest import Api, Serve
from tests.rows import ok, rows

Work = Callable[[], None]


def test_a_job_goes_in_and_its_results_come_out(api: Api, work: Work) -> None:
    job = api.job(["a", {"text": "b", "custom_id": "x", "lang": "en"}], labels={"team": "search"}, keep=["lang"])
    work()

    found = api.get(f"/jobs/{job['id']}").json()
    page = api.get(f"/jobs/{job['id']}/results").json()

    assert (job["counts"]["total"], job["labels"], job["skipped"]) == (2, {"team": "search"}, 0)
    assert (found["state"], found["counts"]["ok"]) == ("completed", 2)
    assert [each["custom_id"] for each in page["data"]] == ["0", "x"]
    assert page["data"][1]["kept"] == {"lang": "en"}
    assert (page["next"], page["complete"], page["state"]) == (1, True, "completed")


def test_where_a_new_job_is_stands_in_its_answer(api: Api) -> None:
    answer = api.post("/jobs", json={"task": "classify", "model": "fake", "items": ["a"]})

    assert api.get(answer.headers["location"].removeprefix("/api/v1")).json()["id"] == answer.json()["id"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_every_wrong_item_is_listed_and_nothing_is_run(api: Api, store: Store) -> None:
    items: list[Any] = ["a", 5, {"t": 1}, {"text": "b", "custom_id": "b"}, {"text": "c", "custom_id": "b"}]

    refused = api.post("/jobs", json={"task": "classify", "model": "fake", "items": items})
    skipped = api.post("/jobs", json={"task": "classify", "model": "fake", "items": items, "on_invalid": "skip"})

    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    assert [(each["where"], each["code"]) for each in refused.json()["errors"]] == [
        ("line 2", "invalid_type"),
        ("line 3", "missing_field"),
        ("line 5", "duplicate_id"),
    ]
    assert refused.json()["total"] == 3
    assert (skipped.json()["counts"]["total"], skipped.json()["skipped"]) == (2, 3)
    assert [each["line"] for each in skipped.json()["problems"]] == [2, 3, 5]
    assert len(store.jobs.list()) == 1


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"task": "clasify"}, "unknown_task", "did you mean 'classify'"),
        ({"model": "nobody"}, "unknown_model", "registered models: fake"),
        ({"params": {"topk": 1}}, "invalid_params", "unknown parameter 'topk'"),
        ({"params": {"top_k": 0}}, "invalid_params", "greater than or equal to 1"),
        ({"items": []}, "invalid_request", "items"),
        ({"itmes": ["a"]}, "invalid_request", "itmes"),
        ({"deadline_at": "2026-01-01T00:00:00"}, "invalid_request", "deadline_at"),
        ({"queue": "no queue"}, "invalid_request", "queue"),
    ],
)
def test_a_wrong_submit_says_what_is_wrong_and_what_is_allowed(api: Api, body: Any, code: str, said: str) -> None:
    answer = api.post("/jobs", json={"task": "classify", "model": "fake", "items": ["a"], **body})

    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["status"]) == (422, code, 422)
    assert said in answer.text
    assert problem["type"] == f"urn:textmill:problem:{code}"


def test_one_idempotency_key_is_one_job_however_often_it_is_sent(api: Api) -> None:
    def send(items: list[str]) -> Any:
        body = {"task": "classify", "model": "fake", "items": items}
        return api.post("/jobs", json=body, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, [["a", "b"]] * 8))
    other = send(["a", "c"])

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


def test_jobs_are_listed_by_keyset_and_filtered(api: Api) -> None:
    made = [api.job(["a"], labels={"n": str(n % 2)}, task="embed" if n == 4 else "classify")["id"] for n in range(5)]

    first = api.get("/jobs", params={"limit": 2}).json()
    second = api.get("/jobs", params={"limit": 2, "before": first["next"]}).json()
    last = api.get("/jobs", params={"limit": 2, "before": second["next"]}).json()
    even = api.get("/jobs", params={"label": "n:0", "task": "classify", "state": ["queued", "running"]}).json()

    ids = [job["id"] for page in (first, second, last) for job in page["data"]]
    assert ids == made[::-1]
    assert last["next"] is None
    assert [job["id"] for job in even["data"]] == [made[2], made[0]]
    assert api.get("/jobs", params={"state": "completed"}).json()["data"] == []
    assert api.get("/jobs", params={"model": "other"}).json()["data"] == []
    assert api.get("/jobs", params={"label": "n"}).status_code == 422


def test_an_unchanged_job_is_not_sent_again(api: Api, work: Work) -> None:
    job_id = api.job(["a"])["id"]
    first = api.get(f"/jobs/{job_id}")

    same = api.get(f"/jobs/{job_id}", headers={"If-None-Match": first.headers["etag"]})
    work()
    changed = api.get(f"/jobs/{job_id}", headers={"If-None-Match": first.headers["etag"]})

    assert (same.status_code, same.content) == (304, b"")
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


def test_a_long_poll_answers_as_soon_as_something_changes(api: Api, store: Store) -> None:
    job_id = api.job(["a"])["id"]
    known = {"If-None-Match": api.get(f"/jobs/{job_id}").headers["etag"]}

    def later() -> None:
        time.sleep(0.5)
        store.jobs.pause(job_id)
        time.sleep(0.5)
        store.jobs.cancel(job_id)

    thread = threading.Thread(target=later)
    thread.start()
    paused = api.get(f"/jobs/{job_id}", params={"wait": 20}, headers=known)
    ended = api.get(f"/jobs/{job_id}", params={"wait": 20})
    thread.join()

    assert paused.json()["control"] == "pause"
    assert ended.json()["state"] == "cancelled"


def test_a_long_poll_without_change_ends_in_time(api: Api) -> None:
    job_id = api.job(["a"])["id"]
    known = {"If-None-Match": api.get(f"/jobs/{job_id}").headers["etag"]}

    start = time.monotonic()
    waited = api.get(f"/jobs/{job_id}", params={"wait": 1}, headers=known)

    assert waited.status_code == 304
    assert time.monotonic() - start >= 1
    assert api.get(f"/jobs/{job_id}", params={"wait": 1}).json()["state"] == "queued"
    assert api.get(f"/jobs/{job_id}", params={"wait": 61}).status_code == 422


def test_events_tell_each_change_until_the_end(api: Api, store: Store, work: Work) -> None:
    job_id = api.job(["a", "b"])["id"]
    events: list[tuple[str, Any]] = []

    def steer() -> None:
        time.sleep(0.5)
        store.jobs.pause(job_id)
        time.sleep(0.7)
        store.jobs.resume(job_id)
        work()

    thread = threading.Thread(target=steer)
    thread.start()
    with api.stream("GET", f"/jobs/{job_id}/events") as stream:
        kind = stream.headers["content-type"]
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    thread.join()

    assert kind.startswith("text/event-stream")
    assert events[0][1]["state"] == "queued"
    assert "pause" in [data["control"] for name, data in events if name == "job"]
    assert events[-2][1]["state"] == "completed"
    assert events[-1] == ("end", {"state": "completed"})


def test_pages_of_a_running_job_end_before_the_first_gap(api: Api, store: Store, work: Work) -> None:
    job_id = api.job([f"text {n}" for n in range(600)])["id"]
    claims = store.chunks.claim(worker_id="w", queue="default", cost=10**6, items=10**6, loaded=())
    by_start = {claim.seq_lo: claim for claim in claims}

    def save(claim: Any) -> None:
        results = [ok(seq) for seq in range(claim.seq_lo, claim.seq_hi)]
        store.chunks.save([Save(claim.chunk_id, claim.token, results, done=True)])

    save(by_start[256])
    before = api.get(f"/jobs/{job_id}/results").json()
    save(by_start[0])
    between = api.get(f"/jobs/{job_id}/results", params={"limit": 300}).json()
    rest = api.get(f"/jobs/{job_id}/results", params={"after": between["next"]}).json()

    assert (before["data"], before["next"], before["complete"]) == ([], -1, False)
    assert [each["seq"] for each in between["data"]] == list(range(300))
    assert [each["seq"] for each in rest["data"]] == list(range(300, 512))
    assert (rest["next"], rest["complete"]) == (511, False)


def test_all_results_come_as_lines_and_by_status(api: Api, work: Work) -> None:
    job_id = api.job(["a", " ", "c"])["id"]
    work()

    lines = api.get(f"/jobs/{job_id}/results", headers={"Accept": "application/x-ndjson"})
    failed = api.get(f"/jobs/{job_id}/results", params={"status": "error"}).json()

    assert [json.loads(line)["status"] for line in lines.text.splitlines()] == ["ok", "error", "ok"]
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [(each["seq"], each["error"]["code"]) for each in failed["data"]] == [(1, "empty_text")]


def test_a_job_is_steered_retried_and_deleted(api: Api, work: Work, store: Store) -> None:
    job_id = api.job(["a", " "])["id"]

    assert api.post(f"/jobs/{job_id}/pause").json()["control"] == "pause"
    assert api.post(f"/jobs/{job_id}/resume").json()["control"] == "run"
    assert api.delete(f"/jobs/{job_id}").json()["code"] == "invalid_state"
    work()
    assert api.post(f"/jobs/{job_id}/cancel").status_code == 409
    retried = api.post(f"/jobs/{job_id}/retry")
    assert (retried.status_code, retried.json()["retry_of"], retried.json()["counts"]["total"]) == (201, job_id, 1)
    assert api.post(f"/jobs/{retried.json()['id']}/cancel").json()["state"] == "cancelled"

    assert api.delete(f"/jobs/{job_id}").status_code == 204
    for path in ("", "/results", "/events"):
        assert api.get(f"/jobs/{job_id}{path}").status_code == 404
    while store.retention.sweep():
        pass
    assert rows(store, f"SELECT count(*) FROM results WHERE job_id <> '{'0' * 32}'")[0][0] == 0


@pytest.mark.parametrize(
    ("kind", "body", "texts"),
    [
        ("application/x-ndjson", b'{"text": "a"}\n"b"\n', 2),
        ("text/csv; charset=utf-8", b"text,other\na,1\nb,2\nc,3\n", 3),
        ("text/plain", b"a\nb\n", 2),
    ],
)
def test_a_body_of_any_size_is_the_items(api: Api, work: Work, kind: str, body: bytes, texts: int) -> None:
    wanted = {"task": "classify", "model": "fake", "params": '{"top_k": 1}', "label": "a:b"}

    answer = api.post("/jobs/upload", params=wanted, content=body, headers={"Content-Type": kind})
    work()

    job = answer.json()
    assert (answer.status_code, job["counts"]["total"], job["labels"]) == (201, texts, {"a": "b"})
    first = api.get(f"/jobs/{job['id']}/results").json()["data"][0]
    assert len(first["output"]["labels"]) == 1


@pytest.mark.parametrize(
    ("params", "kind", "body", "status", "said"),
    [
        ({}, "text/plain", b"", 422, "the input is empty"),
        ({}, "application/x-ndjson", b'{"text": "a"}\n{"text', 422, "line 2"),
        ({}, "application/zip", b"PK", 415, "the Content-Type is one of"),
        ({"params": "{"}, "text/plain", b"a", 422, "params"),
        ({"params": "[]"}, "text/plain", b"a", 422, "a JSON object is wanted"),
        ({"label": "a"}, "text/plain", b"a", 422, "label"),
        ({"text_field": "body"}, "application/x-ndjson", b'{"text": "a"}', 422, "body"),
    ],
)
def test_a_body_that_cannot_be_the_items_is_refused(
    api: Api, store: Store, params: Any, kind: str, body: bytes, status: int, said: str
) -> None:
    wanted = {"task": "classify", "model": "fake", **params}

    answer = api.post("/jobs/upload", params=wanted, content=body, headers={"Content-Type": kind})

    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert store.jobs.list() == []


def test_limits_name_the_setting_and_are_those_of_bodies_whose_length_is_not_told_too(serve: Serve) -> None:
    with Api(serve(max_request_bytes=2000, max_job_bytes=3000)) as api:
        body = {"task": "classify", "model": "fake", "items": ["a" * 3000]}
        told = api.post("/jobs", json=body)
        streamed = api.post(
            "/jobs",
            content=iter([json.dumps(body).encode()[at : at + 500] for at in range(0, 3100, 500)]),
            headers={"Content-Type": "application/json"},
        )
        uploaded = api.post(
            "/jobs/upload",
            params={"task": "classify", "model": "fake"},
            content=b"a" * 4000,
            headers={"Content-Type": "text/plain"},
        )

        assert [each.status_code for each in (told, streamed, uploaded)] == [413, 413, 413]
        assert "setting max_request_bytes" in told.text
        assert "setting max_request_bytes" in streamed.text
        assert "setting max_job_bytes" in uploaded.text
        assert api.get("/tasks").status_code == 200


def test_a_worker_is_hushed_and_woken(api: Api, store: Store) -> None:
    store.workers.beat(
        "w1", host="h", pid=1, boot_id="b", device="cpu", models=[], queues=["default"], state="idle", models_bytes=7
    )

    assert api.post("/workers/w1/quiet").status_code == 204
    [worker] = api.get("/workers").json()
    assert (worker["quiet"], worker["models_bytes"], worker["memory_bytes"]) == (True, 7, None)
    assert api.post("/workers/w1/wake").status_code == 204
    assert api.get("/workers").json()[0]["quiet"] is False
    missing = api.post("/workers/w2/quiet")
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_worker")


def test_the_catalog_has_tasks_with_schemas_models_and_workers(api: Api) -> None:
    tasks = {each["name"]: each for each in api.get("/tasks").json()}

    assert tasks["translate"]["params_schema"]["properties"]["target"]
    assert api.get("/tasks/sentiment-analysis").json()["name"] == "classify"
    assert api.get("/tasks/nothing").status_code == 404
    assert "fake" in {each["name"] for each in api.get("/models").json()}
    assert "path" not in api.get("/models/fake").json()
    assert api.get("/models/nothing").json()["code"] == "unknown_model"
    assert api.get("/workers").json() == []


def test_what_is_not_there_is_a_problem_too(api: Api) -> None:
    missing, method, short = api.get("/nothing"), api.put("/jobs"), api.get("/jobs/job_0")

    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (method.status_code, method.json()["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"] == "GET, POST"
    assert (short.status_code, short.json()["code"]) == (404, "unknown_job")


def test_health_is_told_without_a_key(api: Api) -> None:
    root = str(api.base_url).removesuffix("/api/v1/")

    assert api.get(f"{root}/health/live").json() == {"status": "live"}
    assert api.get(f"{root}/health/ready").json() == {"status": "ready"}

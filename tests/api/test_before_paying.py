"""Canaries, error budgets and deadlines over HTTP, and with both clients."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from jobs import AsyncClient, Client
from jobs.errors import ApiError, InvalidState
from jobs.remote import calls
from jobs.schemas import Estimate, Job
from jobs.states import CanaryState, JobState
from jobs.store import Store
from tests.api.conftest import Api, Serve
from tests.rows import claim, part

Work = Callable[[], None]
TEXTS = ["word " * (1 + n % 50) for n in range(300)]


def settle(store: Store) -> None:
    for job_id in store.supervision.due():
        store.supervision.settle(job_id)


def test_a_canary_waits_for_approval(api: Api, work: Work, store: Store) -> None:
    job = api.job(TEXTS, canary=5)
    work()
    settle(store)
    waiting = api.get(f"/jobs/{job['id']}", params={"wait": 5}, headers={"If-None-Match": '"old"'}).json()
    refused = api.post(f"/jobs/{job['id']}/resume")
    approved = api.post(f"/jobs/{job['id']}/approve")
    work()
    done = api.get(f"/jobs/{job['id']}").json()
    again = api.post(f"/jobs/{job['id']}/approve")

    assert waiting["canary"] | {"rest": None} == {
        "state": "waiting",
        "items": 5,
        "go_on": False,
        "ok": 5,
        "error": 0,
        "error_share": 0.0,
        "usage": {"input_tokens": waiting["usage"]["input_tokens"], "output_tokens": 0},
        "rest": None,
    }
    assert waiting["canary"]["rest"]["known_from"] == "canary"
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
    assert approved.json()["control"] == "run"
    assert (done["state"], done["counts"]["ok"]) == ("completed", 300)
    assert again.status_code == 200


def test_only_a_job_with_a_canary_can_be_approved_of(api: Api) -> None:
    job = api.job(["a"])

    assert api.post(f"/jobs/{job['id']}/approve").status_code == 409
    assert api.post(f"/jobs/{job['id'][:-1]}0/approve").status_code in (404, 409)


def test_a_body_of_items_takes_a_canary_and_a_budget(api: Api) -> None:
    asked = {"task": "classify", "model": "fake", "canary": 3, "go_on": True, "max_error_share": 0, "on_errors": "fail"}

    made = api.post("/jobs/upload", params=asked, content="a\nb\nc\nd\n", headers={"Content-Type": "text/plain"})

    job = made.json()
    assert (job["canary"]["items"], job["canary"]["go_on"]) == (3, True)
    assert (job["max_error_share"], job["errors_after"], job["on_errors"]) == (0, 100, "fail")


@pytest.mark.parametrize("wrong", [{"canary": 0}, {"go_on": True}, {"max_error_share": 1}, {"on_errors": "stop"}])
def test_wrong_bounds_are_refused(api: Api, wrong: dict[str, object]) -> None:
    answer = api.post("/jobs", json={"task": "classify", "model": "fake", "items": ["a"], **wrong})

    assert answer.status_code == 422
    assert next(iter(wrong)) in answer.text


def test_a_job_that_will_be_late_says_so(api: Api, store: Store) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    job = api.job(["a"] * 200_000, deadline_at=soon.isoformat())
    (held,) = claim(store)
    store.chunks.save([part(held, range(held.seq_lo, held.seq_hi))._replace(done=True)])
    old = "UPDATE jobs SET started_at = created_at"
    store._db.write(lambda connection: connection.exec_driver_sql(old))

    told = api.get(f"/jobs/{job['id']}").json()

    assert told["late"] is True
    assert told["late_by_s"] > 0


def test_both_clients_submit_canaries_and_approve_of_them(serve: Serve, work: Work, store: Store) -> None:
    async def twice(url: str) -> Job:
        async with AsyncClient(url) as client:
            job = await client.submit("classify", TEXTS, model="fake", canary=4, max_error_share=0.0)
            await job.approve()
            return await client.approve(job.id)

    url = serve().url
    later = asyncio.run(twice(url))
    with Client(url) as client:
        job = client.submit("classify", TEXTS, model="fake", canary=4, go_on=True)
        work()
        settle(store)
        followed = job.refresh()
        work()
        with pytest.raises(InvalidState):
            client.submit("classify", ["a"], model="fake").approve()
        with pytest.raises(ApiError, match="canary"):
            client.submit("classify", ["a"], model="fake", canary=0)

        assert job.refresh().state is JobState.COMPLETED
    assert later.max_error_share == 0.0
    assert later.canary is not None
    assert followed.canary is not None
    assert later.canary.state is followed.canary.state is CanaryState.PASSED
    assert followed.canary.ok == 4


def test_an_estimate_counts_and_stores_nothing(api: Api, store: Store) -> None:
    items = ["one two", "one two", {"text": 3}]

    answer = api.post("/jobs/estimate", json={"task": "classify", "model": "fake", "items": items})
    wrong = api.post("/jobs/estimate", json={"task": "classify", "model": "none", "items": items})

    told = answer.json()
    assert answer.status_code == 200
    assert (told["items"], told["invalid"], told["duplicates"], told["tokens"]["total"]) == (2, 1, 1, 4)
    assert wrong.status_code in (404, 422)
    assert store.jobs.list() == []


def test_both_clients_estimate_also_what_is_sent_as_a_file(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "INLINE_BYTES", 1000)

    async def told(url: str) -> Estimate:
        async with AsyncClient(url) as client:
            return await client.estimate("classify", TEXTS, model="fake")

    url = serve(files_url=None).url
    first = asyncio.run(told(url))
    with Client(url) as client:
        again, few = (
            client.estimate("classify", iter(TEXTS), model="fake"),
            client.estimate("classify", ["a"], model="fake"),
        )

    assert first == again
    assert first.items == 300
    assert few.items == 1

"""Who may look, and who may change something."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from jobs.schemas import Scope
from jobs.states import JobState
from tests.web.conftest import World

Open = Callable[..., httpx2.Client]


@pytest.fixture
def signed_in(world: World) -> Iterator[Open]:
    """A browser without scripts, signed in with a new key."""
    opened: list[httpx2.Client] = []

    def enter(scope: Scope = "admin", tenant: str = "default") -> httpx2.Client:
        _, secret = world.store.keys.create(tenant, "a person", [scope])
        made = httpx2.Client(
            base_url=world.url, headers={"Origin": world.url}, timeout=30, trust_env=False, follow_redirects=True
        )
        opened.append(made)
        assert made.post("/login", data={"key": secret, "next": "/jobs"}).url.path == "/jobs"
        return made

    yield enter
    for each in opened:
        each.close()


def test_without_keys_whoever_reaches_loopback_may_look(pages: httpx2.Client) -> None:
    assert pages.get("/").status_code == 200


def test_with_keys_a_page_asks_for_one_and_comes_back_to_what_was_asked(world: World, pages: httpx2.Client) -> None:
    world.store.keys.create("default", "first", ["admin"])
    asked = pages.get("/jobs?q=task:ner")

    assert asked.url.path == "/login"
    assert 'value="/jobs?q=task:ner"' in asked.text
    assert pages.post(f"/jobs/{world.jobs['queued']}/pause").status_code == 401
    assert pages.get("/live/", headers={"Accept": "application/json"}).status_code == 401


def test_the_key_is_kept_out_of_reach_of_scripts(world: World, pages: httpx2.Client) -> None:
    _, secret = world.store.keys.create("default", "first", ["read"])

    answer = pages.post("/login", data={"key": secret}, follow_redirects=False)

    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.parametrize("typed", ["日本", "tm_" + "x" * 100_000, "a\r\nb", "\0"])
def test_what_is_no_key_is_not_kept_where_none_is_needed(pages: httpx2.Client, typed: str) -> None:
    answer = pages.post("/login", data={"key": typed}, follow_redirects=False)

    assert answer.status_code == 303
    assert "set-cookie" not in answer.headers


def test_a_wrong_key_is_refused_and_not_repeated(world: World, pages: httpx2.Client) -> None:
    world.store.keys.create("default", "first", ["read"])

    answer = pages.post("/login", data={"key": "tm_wrong"})

    assert answer.status_code == 401
    assert "unknown, revoked or expired" in answer.text
    assert "tm_wrong" not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "http://["]
)
def test_signing_in_never_leads_elsewhere(world: World, pages: httpx2.Client, target: str) -> None:
    _, secret = world.store.keys.create("default", "first", ["read"])

    answer = pages.post("/login", data={"key": secret, "next": target}, follow_redirects=False)

    assert answer.headers["location"] == "/"


def test_signing_out_forgets_the_key(signed_in: Open) -> None:
    person = signed_in()

    person.post("/logout")

    assert person.get("/jobs").url.path == "/login"


def test_a_revoked_key_ends_the_session(world: World, signed_in: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.api.access.TRUST_S", 0.0)
    person = signed_in()

    for key in world.store.keys.list():
        world.store.keys.revoke(key.id)

    assert person.get("/jobs").url.path == "/login"


def test_a_reader_sees_no_buttons_and_can_press_none(world: World, signed_in: Open) -> None:
    reader, queued = signed_in("read"), world.jobs["queued"]

    for path in ("/", "/jobs", f"/jobs/{queued}"):
        text = reader.get(path).text
        assert "read only" in text
        assert 'action="/jobs/job_' not in text
        assert 'value="cancel"' not in text
        assert 'href="/jobs/new' not in text
    for path in (f"/jobs/{queued}/pause", "/jobs/bulk", "/keys", "/health/check"):
        data = {"action": "cancel", "job": queued, "sure": "1", "name": "x", "scope": "admin"}
        assert reader.post(path, data=data).status_code == 403, path
    for path in ("/jobs/new", "/workers", "/keys", "/health"):
        assert reader.get(path).status_code == 403, path
    assert reader.get("/live/workers", headers={"Accept": "text/event-stream"}).status_code == 403
    assert world.store.jobs.get(queued).state is JobState.QUEUED


def test_another_tenant_sees_nothing_of_it(world: World, signed_in: Open, schedule: str) -> None:
    stranger, job = signed_in("admin", "others"), world.jobs["queued"]

    assert job not in stranger.get("/jobs").text
    assert job not in stranger.get("/").text
    for path in (f"/jobs/{job}", f"/jobs/{job}/results", f"/jobs/{job}/results.csv", f"/jobs/{job}/nearest"):
        assert stranger.get(path).status_code == 404, path
    assert stranger.get(f"/live/jobs/{job}", headers={"Accept": "application/json"}).status_code == 404
    assert stranger.get(f"/schedules/{schedule}").status_code == 404
    assert stranger.post(f"/schedules/{schedule}/delete").status_code == 404
    assert stranger.post(f"/jobs/{job}/pause").status_code == 404
    told = stranger.post("/jobs/bulk", data={"action": "cancel", "job": job, "sure": "1"})
    assert "0 jobs cancelled, 1 not" in told.text
    assert world.store.jobs.get(job).state is JobState.QUEUED


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {},
    ],
)
def test_forms_of_other_sites_are_refused(world: World, headers: dict[str, str]) -> None:
    with httpx2.Client(base_url=world.url, headers=headers, trust_env=False) as other:
        for path in (f"/jobs/{world.jobs['queued']}/pause", "/jobs/bulk", "/login", "/logout", "/keys"):
            assert (
                other.post(path, data={"action": "cancel", "key": "x", "name": "x", "scope": "admin"}).status_code
                == 403
            )


def test_a_key_is_made_shown_once_and_revoked(world: World, signed_in: Open) -> None:
    person = signed_in()

    made = person.post("/keys", data={"name": "news <b>team</b>", "scope": "read", "days": "7"})
    key = world.store.keys.list()[-1]

    assert "tm_" in made.text
    assert "<b>team" not in made.text
    assert (key.name, key.scopes) == ("news <b>team</b>", ("read",))
    assert "tm_" not in person.get("/keys").text
    person.post(f"/keys/{key.id}/revoke")
    assert world.store.keys.list()[-1].revoked_at is not None


@pytest.mark.parametrize("wrong", [{"name": ""}, {"name": "x", "days": "-1"}, {"name": "x", "scope": "god"}])
def test_a_key_that_cannot_be_is_not_made(world: World, pages: httpx2.Client, wrong: dict[str, Any]) -> None:
    answer = pages.post("/keys", data={"scope": "read", **wrong})

    assert answer.status_code == 422
    assert world.store.keys.list() == []

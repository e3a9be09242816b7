"""Who may do what: keys, tenants, hosts, origins."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.api import access
from jobs.errors import InvalidSettings
from jobs.store import Store
from tests.api.conftest import Api, Connect, Serve


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are looked up each time."""
    monkeypatch.setattr(access, "TRUST_S", 0.0)


@pytest.fixture
def keyed(serve: Serve, store: Store, connect: Connect) -> Callable[..., Api]:
    """Makes clients with a key."""
    server = serve()

    def make(tenant: str = "default", scope: Any = "submit", **more: Any) -> Api:
        return connect(server, store.keys.create(tenant, "test", [scope], **more)[1])

    return make


def test_loopback_is_open_until_there_is_a_key(serve: Serve, store: Store, connect: Connect) -> None:
    server = serve()
    before = connect(server).get("/jobs").status_code, connect(server, "sk-anything").get("/jobs").status_code
    _, secret = store.keys.create("default", "first", ["read"])

    after, wrong, right = (connect(server, each).get("/jobs") for each in (None, "sk-anything", secret))

    assert before == (200, 200)
    assert (after.status_code, wrong.status_code, right.status_code) == (401, 401, 200)
    assert after.headers["www-authenticate"] == "Bearer"
    assert secret not in wrong.text + after.text


def test_a_revoked_or_expired_key_is_of_no_use(keyed: Callable[..., Api], store: Store) -> None:
    revoked, expired = keyed(), keyed(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert revoked.get("/jobs").status_code == 200
    for key in store.keys.list():
        store.keys.revoke(key.id)

    assert revoked.get("/jobs").status_code == 401
    assert expired.get("/jobs").status_code == 401


def test_an_address_for_others_is_refused_as_long_as_there_is_no_key(
    serve: Serve, store: Store, connect: Connect
) -> None:
    with pytest.raises(InvalidSettings, match=r"no key was ever made.*textmill keys create"):
        serve(api_host="0.0.0.0")

    store.keys.create("default", "first", ["read"])
    assert connect(serve(api_host="0.0.0.0", api_hosts=("0.0.0.0",))).get("/jobs").status_code == 401


def test_a_tenant_sees_nothing_of_another(keyed: Callable[..., Api], store: Store) -> None:
    ours, theirs = keyed("ours", "admin"), keyed("theirs", "admin")
    job_id = theirs.job(["a"])["id"]

    for method, path in [
        ("GET", ""),
        ("GET", "/results"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/retry"),
        ("DELETE", ""),
    ]:
        answer = ours.request(method, f"/jobs/{job_id}{path}")
        unknown = ours.request(method, f"/jobs/job_{'0' * 32}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")
        assert answer.text.replace(job_id, "") == unknown.text.replace(f"job_{'0' * 32}", "")
    assert ours.get("/jobs").json()["data"] == []
    assert [job["id"] for job in theirs.get("/jobs").json()["data"]] == [job_id]
    assert store.jobs.get(job_id).tenant == "theirs"
    (key,) = store.keys.list("theirs")
    assert ours.delete(f"/keys/{key.id}").status_code == 404
    assert [each["tenant"] for each in ours.get("/keys").json()] == ["ours"]


def test_two_tenants_may_use_one_idempotency_key(keyed: Callable[..., Api]) -> None:
    body, headers = {"task": "classify", "model": "fake", "items": ["a"]}, {"Idempotency-Key": "k"}

    made = [keyed(tenant).post("/jobs", json=body, headers=headers).json()["id"] for tenant in ("ours", "theirs")]

    assert len(set(made)) == 2


def test_a_key_does_what_its_scope_says_and_no_more(keyed: Callable[..., Api]) -> None:
    read, submit, admin = (keyed(scope=scope) for scope in ("read", "submit", "admin"))
    job_id = submit.job(["a"])["id"]
    body = {"task": "classify", "model": "fake", "items": ["a"]}

    assert read.get(f"/jobs/{job_id}").status_code == 200
    for refused in (read.post("/jobs", json=body), read.post(f"/jobs/{job_id}/cancel"), submit.get("/keys")):
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert submit.get("/workers").status_code == 403
    assert admin.get("/workers").status_code == 200
    assert submit.post("/jobs", json={**body, "priority": 1}).status_code == 403
    assert submit.post("/jobs", json={**body, "priority": -1}).status_code == 201
    assert admin.post("/jobs", json={**body, "priority": 1}).status_code == 201


def test_keys_are_made_listed_and_revoked_over_http(keyed: Callable[..., Api], serve: Serve, connect: Connect) -> None:
    admin = keyed("ours", "admin")

    made = admin.post("/keys", json={"name": "poller", "scopes": ["read"]}).json()
    listed = admin.get("/keys")

    assert (made["tenant"], made["scopes"]) == ("ours", ["read"])
    assert connect(serve(), made["secret"]).get("/jobs").status_code == 200
    assert made["secret"] not in listed.text
    assert [each["name"] for each in listed.json()] == ["test", "poller"]
    assert admin.delete(f"/keys/{made['id']}").json()["revoked_at"]
    assert connect(serve(), made["secret"]).get("/jobs").status_code == 401
    assert admin.post("/keys", json={"name": "x", "scopes": ["root"]}).status_code == 422


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.", "[::1"])
def test_a_host_that_is_none_of_ours_is_refused(serve: Serve, host: str, connect: Connect) -> None:
    answer = connect(serve()).get("/tasks", headers={"Host": host})

    assert answer.status_code in (400, 421)
    if answer.status_code == 421:
        assert answer.json()["code"] == "wrong_host"


def test_names_that_are_set_are_ours(serve: Serve, connect: Connect) -> None:
    server = serve(api_hosts=("mill.example.com",))

    assert connect(server).get("/tasks", headers={"Host": "mill.example.com:443"}).status_code == 200
    assert connect(server).get("/tasks", headers={"Host": "localhost:1"}).status_code == 200


def test_a_page_of_another_site_changes_nothing(serve: Serve, store: Store, connect: Connect) -> None:
    api = connect(serve())
    body = {"task": "classify", "model": "fake", "items": ["a"]}

    refused = [
        api.post("/jobs", json=body, headers={"Origin": origin})
        for origin in ("https://evil.example", "null", f"http://evil.example:{api.base_url.port}")
    ]
    text = {"Content-Type": "text/plain"}
    as_text = api.post("/jobs", content=b'{"task":"classify","model":"fake","items":["a"]}', headers=text)
    own = api.post("/jobs", json=body, headers={"Origin": str(api.base_url).removesuffix("/api/v1/")})

    assert {each.status_code for each in refused} == {403}
    assert as_text.status_code == 422
    assert own.status_code == 201
    assert len(store.jobs.list()) == 1

"""Sources and sinks that the operator has named: all that callers over HTTP read or write beside their own items."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.client import Client
from jobs.corpus import Named, Rows
from jobs.errors import InvalidSettings
from jobs.exporting import Exporter
from jobs.queue import Queue
from jobs.schedules.firing import Scheduler
from jobs.settings import Settings
from jobs.states import ExportState
from jobs.store import Store
from tests.api.conftest import Api, Connect, Serve

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def named(tmp_path: Path) -> dict[str, Any]:
    """Settings with connections: tickets for everybody, secret ones for others, two sinks."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.jsonl").write_text('{"id": "a", "body": "one"}\n{"id": "b", "body": "two"}\n')
    (tmp_path / "in/2.jsonl").write_text('{"id": "c", "body": "three"}\n')
    file = tmp_path / "connections.toml"
    file.write_text(
        f"""
        [tickets]
        source = "{tmp_path}/in/*.jsonl"
        [secret]
        source = "{tmp_path}/in/1.jsonl"
        tenants = ["others"]
        [out]
        sink = "{tmp_path}/out-{{job}}.jsonl"
        [labels]
        sink = "sqlite:///{tmp_path}/labels.db#labels"
        """
    )
    return {"connections": file, "redis_url": NOWHERE}


@pytest.fixture
def api(serve: Serve, connect: Connect, named: dict[str, Any]) -> Api:
    return connect(serve(**named))


def test_a_job_reads_a_named_source_and_writes_to_a_named_sink(
    api: Api, store: Store, settings: Callable[..., Settings], named: dict[str, Any], work: Any, tmp_path: Path
) -> None:
    wanted = {"task": "classify", "model": "fake", "source": "tickets", "text_field": "body", "id_field": "id"}

    answer = api.post("/jobs", json={**wanted, "sink": "out"})
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert job["counts"]["total"] == 3
    work()
    exporter = Exporter(store, settings(**named))
    assert exporter.round() == 1
    deadline = time.monotonic() + 15
    while store.exports.get(job["id"]).state is not ExportState.DONE:  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    exporter.stop()

    lines = (tmp_path / f"out-{job['id']}.jsonl").read_text().splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == ["a", "b", "c"]


def test_clients_name_them_too(
    serve: Serve, store: Store, settings: Callable[..., Settings], named: dict[str, Any]
) -> None:
    tickets = Named("tickets", text_field="body", id_field="id")

    some = Named("tickets", rows=Rows(map={"text": "body"}, where="id != 'b'"))

    with Client(serve(**named).url) as remote:
        far = remote.submit("classify", tickets, model="fake", sink="labels")
        assert remote.submit("classify", some, model="fake").job.counts.total == 2
    with Client(settings(**named), store=store) as local:
        near = local.submit("classify", tickets, model="fake", sink="connection:labels")

    for job in (far, near):
        export = store.exports.get(job.id)
        assert export is not None
        assert export.target == "connection:labels"
        assert store.jobs.get(job.id).counts.total == 3


def test_what_is_named_is_listed_without_where_it_lies(api: Api, tmp_path: Path) -> None:
    answer = api.get("/connections")

    assert answer.json() == [
        {"name": "labels", "source": False, "sink": True},
        {"name": "out", "source": False, "sink": True},
        {"name": "tickets", "source": True, "sink": False},
    ]
    assert str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../in/1.jsonl", "file:///etc/passwd", "secret", "out", "connection:tickets"]
)
def test_nothing_else_is_read(api: Api, name: str) -> None:
    answer = api.post("/jobs", json={"task": "classify", "model": "fake", "source": name})

    assert answer.status_code == 422
    assert answer.json()["code"] == "unknown_connection"
    assert "there are: tickets" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["/tmp/x.jsonl", "tickets", "sqlite:///x.db#t"])
def test_nothing_else_is_written(api: Api, name: str) -> None:
    answer = api.post("/jobs", json={"task": "classify", "model": "fake", "items": ["a"], "sink": name})

    assert answer.status_code == 422
    assert answer.json()["code"] == "unknown_connection"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"items": ["a"], "source": "tickets"}, "one of items, a file and a source"),
        ({"source": "tickets", "format": "csv"}, "the one that the operator gave it"),
    ],
)
def test_a_source_stands_alone(api: Api, given: dict[str, Any], said: str) -> None:
    answer = api.post("/jobs", json={"task": "classify", "model": "fake", **given})

    assert answer.status_code == 422
    assert said in answer.text


def test_without_the_setting_there_are_none(serve: Serve, connect: Connect) -> None:
    plain = connect(serve())

    assert plain.get("/connections").json() == []
    assert plain.post("/jobs", json={"task": "classify", "model": "fake", "source": "tickets"}).status_code == 422


def test_a_schedule_over_a_named_source_fires(
    api: Api, store: Store, settings: Callable[..., Settings], named: dict[str, Any]
) -> None:
    wanted = {
        "name": "hourly",
        "task": "classify",
        "model": "fake",
        "text_field": "body",
        "where": "id != 'b'",
        "every_s": 3600,
        "sink": "labels",
    }

    made = api.post("/schedules", json={**wanted, "source": "tickets"})
    assert made.status_code == 201, made.text
    assert made.json()["spec"]["inputs"] == ["connection:tickets"]
    api.post(f"/schedules/{made.json()['id']}/run")
    chosen = settings(**named)
    scheduler = Scheduler(store, Client(chosen, store=store, queue=Queue(chosen)), chosen)
    scheduler.round()
    deadline = time.monotonic() + 15
    while api.get("/schedules/hourly/runs").json()["data"][0]["state"] == "firing":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    scheduler.stop()

    [run] = api.get("/schedules/hourly/runs").json()["data"]
    assert (run["state"], run["n_items"]) == ("submitted", 2)
    export = store.exports.get(run["job_id"])
    assert export is not None
    assert export.target == "connection:labels"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "nowhere"}, "no connection 'nowhere'"),
        ({"source": "secret"}, "no connection 'secret'"),
        ({"sink": "tickets"}, "no connection 'tickets' with a sink"),
        ({"cron": "often"}, "cron 'often'"),
        ({"every_s": 60}, "one of cron"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"task": "clasify"}, "clasify"),
        ({"inputs": ["/etc/passwd"]}, "inputs"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(api: Api, store: Store, given: dict[str, Any], said: str) -> None:
    wanted = {"name": "x", "task": "classify", "model": "fake", "source": "tickets", "cron": "0 7 * * *"}

    answer = api.post("/schedules", json={**wanted, **given})

    assert answer.status_code == 422, answer.text
    assert said in answer.text
    assert store.schedules.list() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[x\n", "connections"),
        ('["a b"]\nsource = "x.txt"\n', "a b"),
        ("[x]\nsource = 7\n", "x.source"),
        ('[x]\nurl = "x.txt"\n', "x.url"),
        ('[x]\nsource = "postgresql://h/d"\n', "a query is asked of one database"),
        ('[x]\nsource = "x.txt"\nquery = "t"\n', "a query is asked of one database"),
        ('[x]\nsink = "x.docx"\n', "unknown format"),
    ],
)
def test_a_file_that_names_nothing_is_told(
    settings: Callable[..., Settings], tmp_path: Path, content: str, said: str
) -> None:
    from jobs import connections
    from jobs.errors import InvalidInput

    file = tmp_path / "connections.toml"
    file.write_text(content)

    with pytest.raises((InvalidSettings, InvalidInput), match=said):
        connections.usable(settings(connections=file), "default")

"""Schedules over the native API: looked at, paused, run, deleted, by their tenant alone."""

from pathlib import Path
from typing import Any

import pytest

from jobs.client import Client
from jobs.queue import Queue
from jobs.schedules import making
from jobs.schemas import Schedule, ScheduleSpec
from jobs.settings import Settings
from jobs.store import Store
from tests.api.conftest import Connect, Serve


@pytest.fixture
def schedule(store: Store, settings: Any, tmp_path: Path) -> Schedule:
    path = tmp_path / "corpus.txt"
    path.write_text("one\n")
    made: Settings = settings(redis_url="redis://127.0.0.1:1/0")
    spec = ScheduleSpec(
        task="classify",
        model="fake",
        params={"labels": ["x", "y"]},
        inputs=(str(path),),
        cron="0 7 * * mon-fri",
        timezone="Europe/Berlin",
    )
    return making.add(store, Client(made, store=store, queue=Queue(made)), "nightly", spec, tenant="mine")


def test_a_schedule_is_looked_at_steered_and_deleted(
    serve: Serve, store: Store, connect: Connect, schedule: Schedule
) -> None:
    server = serve()
    mine, reader, theirs = (
        connect(server, store.keys.create(tenant, "test", [scope])[1])
        for tenant, scope in (("mine", "admin"), ("mine", "read"), ("theirs", "admin"))
    )
    (shown,) = reader.get("/schedules").json()
    assert (shown["name"], shown["explained"]) == ("nightly", "At 07:00 on Monday through Friday (Europe/Berlin)")
    assert reader.get("/schedules/nightly").json() == shown
    path = f"/schedules/{schedule.id}"
    assert mine.post(f"{path}/pause").json()["next_due_at"] is None
    assert mine.post(f"{path}/resume").json()["next_due_at"] == shown["next_due_at"]
    run = mine.post(f"{path}/run").json()
    assert (run["state"], run["schedule_id"]) == ("firing", schedule.id)
    assert reader.get(f"{path}/runs").json() == {"data": [run], "next": None}
    for method, end in (("GET", ""), ("GET", "/runs"), ("POST", "/pause"), ("POST", "/run"), ("DELETE", "")):
        assert theirs.request(method, path + end).json()["code"] == "unknown_schedule"
    for method, end in (("POST", "/pause"), ("POST", "/resume"), ("POST", "/run"), ("DELETE", "")):
        assert reader.request(method, path + end).status_code == 403
    assert mine.delete(path).status_code == 204
    assert mine.get("/schedules").json() == []

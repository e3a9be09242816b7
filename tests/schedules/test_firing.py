"""Due times become jobs, each once: whoever fires, however often it dies, whatever the inputs do meanwhile."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import update

from jobs.client import Client
from jobs.errors import InvalidInput, InvalidParams, ModelMismatch, UnknownJob, UnknownModel, UnknownSchedule
from jobs.queue import Queue
from jobs.schedules import making
from jobs.schedules.firing import Scheduler
from jobs.schemas import Schedule, ScheduleSpec
from jobs.settings import Settings
from jobs.states import JobState, RunState
from jobs.store import Store
from jobs.store.clock import later
from jobs.store.tables import jobs, schedule_runs, schedules
from tests.rows import claim, done
from tests.worker.conftest import make_shift, residency

__all__ = ["make_shift", "residency"]

Make = Callable[..., Schedule]
LABELS = {"labels": ["x", "y"]}


@pytest.fixture
def configured(settings: Callable[..., Settings]) -> Settings:
    return settings(redis_url="redis://127.0.0.1:1/0")


@pytest.fixture
def client(store: Store, configured: Settings) -> Client:
    return Client(configured, store=store, queue=Queue(configured))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("one\ntwo\nthree\n")
    return path


@pytest.fixture
def make(store: Store, client: Client, corpus: Path) -> Make:
    """Makes schedules, every hour unless told otherwise, and has them due."""

    def go(name: str = "hourly", *, due: bool = True, **given: Any) -> Schedule:
        wanted: dict[str, Any] = {"task": "classify", "model": "fake", "inputs": (str(corpus),), "params": LABELS}
        if not {"cron", "on_change_s"} & given.keys():
            wanted["every_s"] = 3600
        made = making.add(store, client, name, ScheduleSpec(**wanted | given))
        return come(store, made) if due else made

    return go


def come(store: Store, schedule: Schedule, ago_s: float = 1.0) -> Schedule:
    """The schedule, due so long ago."""
    moved = update(schedules).where(schedules.c.id == schedule.id).values(next_due_at=later(-ago_s))
    store._db.write(lambda connection: connection.execute(moved))
    return store.schedules.get(schedule.id)


def settle(store: Store, client: Client, configured: Settings, rounds: int = 1) -> None:
    """Rounds of a scheduler, each to its end."""
    scheduler = Scheduler(store, client, configured)
    for _ in range(rounds):
        while scheduler.round() or scheduler.busy:
            time.sleep(0.005)


def states(store: Store, schedule: Schedule) -> list[str]:
    """Of its runs, the oldest first."""
    return [str(run.state) for run in reversed(store.schedules.runs(schedule.id))]


@pytest.fixture
def fire(store: Store, client: Client, configured: Settings) -> Callable[..., None]:
    return lambda rounds=1: settle(store, client, configured, rounds)


def finish(store: Store, job_id: str) -> None:
    store.chunks.save([done(held) for held in claim(store, chunks=9)])
    assert store.jobs.finish(job_id)


def test_a_due_time_becomes_a_job(store: Store, make: Make, fire: Callable[..., None]) -> None:
    schedule = make(labels={"team": "search"}, deadline_s=600, priority=3)
    fire(3)
    (run,) = store.schedules.runs(schedule.id)
    assert (run.state, run.n_items, run.due_at) == (RunState.SUBMITTED, 3, schedule.next_due_at)
    assert run.job_id is not None
    job = store.jobs.get(run.job_id)
    assert (job.state, job.counts.total, job.priority, job.schedule) == (JobState.QUEUED, 3, 3, str(run.id))
    assert job.labels == {"team": "search", "schedule": "hourly"}
    assert job.deadline_at == run.due_at + timedelta(seconds=600)
    following = store.schedules.get(schedule.id).next_due_at
    assert following is not None
    assert following == run.due_at + timedelta(hours=1)


def test_a_schedule_takes_the_rows_that_were_asked_for(store: Store, make: Make, fire: Callable[..., None]) -> None:
    schedule = make(where="text ~ 't'", template="<{text}>", limit=1)
    fire(2)
    (run,) = store.schedules.runs(schedule.id)
    assert (run.state, run.n_items) == (RunState.SUBMITTED, 1)
    with pytest.raises(InvalidInput, match="the filter cannot be read"):
        make("other", where="text ~")
    nothing = make("nothing", where="text = 'four'")
    fire(2)
    (run,) = store.schedules.runs(nothing.id)
    assert run.state is RunState.EMPTY
    assert run.note == "the filter \"text = 'four'\" leaves out all 3 rows"


def test_many_schedulers_fire_each_time_once(store: Store, client: Client, configured: Settings, make: Make) -> None:
    made = [make(f"s{n}") for n in range(6)]
    schedulers = [Scheduler(store, client, configured) for _ in range(4)]

    def go_on(scheduler: Scheduler) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            scheduler.round()
            if not scheduler.busy and all(states(store, each) == ["submitted"] for each in made):
                return
            time.sleep(0.01)

    threads = [threading.Thread(target=go_on, args=(each,)) for each in schedulers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [states(store, each) for each in made] == [["submitted"]] * 6
    assert len(store.jobs.list()) == 6


def test_a_run_whose_process_died_is_gone_on_with(
    store: Store, client: Client, configured: Settings, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = make()
    scheduler = Scheduler(store, client, configured)
    monkeypatch.setattr(store.schedules, "submitted", lambda *_: (_ for _ in ()).throw(SystemExit))  # after the submit
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    scheduler.round()
    while scheduler.busy:
        time.sleep(0.01)
    monkeypatch.undo()
    (job,) = store.jobs.list()
    settle(store, client, configured)
    assert states(store, schedule) == ["firing"]  # somebody may be at it
    ended = update(schedule_runs).values(not_before=later(-1))
    store._db.write(lambda connection: connection.execute(ended))
    settle(store, client, configured)
    assert states(store, schedule) == ["submitted"]
    assert [each.id for each in store.jobs.list()] == [job.id]


def test_a_job_that_was_left_half_loaded_is_replaced_when_its_inputs_have_changed(
    store: Store, client: Client, make: Make, corpus: Path, fire: Callable[..., None]
) -> None:
    schedule = make()
    assert schedule.next_due_at is not None
    key = f"{schedule.id}:{schedule.next_due_at.isoformat()}"
    job = client.submit("classify", ["left"], model="fake", params=LABELS, idempotency_key=key)
    half = update(jobs).values(state="loading", sealed_at=None)
    store._db.write(lambda connection: connection.execute(half))
    fire()
    with pytest.raises(UnknownJob):
        store.jobs.get(job.id)
    (run,) = store.schedules.runs(schedule.id)
    assert run.job_id not in (None, job.id)
    assert store.jobs.get(run.job_id or "").counts.total == 3


def test_a_run_is_left_out_while_the_one_before_is_not_over(
    store: Store, make: Make, fire: Callable[..., None]
) -> None:
    schedule = make(overlap="skip")
    fire()
    come(store, schedule)
    fire()
    assert states(store, schedule) == ["submitted", "skipped"]
    assert store.schedules.runs(schedule.id)[0].note == "the run before is not over"
    finish(store, store.schedules.runs(schedule.id)[1].job_id or "")
    come(store, schedule)
    fire()
    assert states(store, schedule) == ["submitted", "skipped", "submitted"]


def test_a_run_waits_for_the_one_before(
    store: Store, make: Make, fire: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.schedules.firing.QUEUED_S", 0.05)
    schedule = make(overlap="queue")
    fire()
    come(store, schedule)
    fire()
    assert states(store, schedule) == ["submitted", "firing"]
    finish(store, store.schedules.runs(schedule.id)[1].job_id or "")
    time.sleep(0.1)
    fire()
    assert states(store, schedule) == ["submitted", "submitted"]


def test_a_run_that_was_told_to_wait_is_not_held(store: Store, make: Make) -> None:
    make()
    moment, due = store.schedules.due(1)
    store.schedules.fire(due[0], [(moment, moment)], [], None)
    firing = store.schedules.take(60)
    assert firing is not None
    store.schedules.hold([firing.run_id], 60)
    assert store.schedules.ready(1) == 0
    store.schedules.wait(firing.run_id, 0)
    store.schedules.hold([firing.run_id], 60)
    assert store.schedules.ready(1) == 1


def test_the_run_before_is_cancelled(store: Store, make: Make, fire: Callable[..., None]) -> None:
    schedule = make(overlap="cancel_previous")
    fire()
    come(store, schedule)
    fire()
    newer, older = store.schedules.runs(schedule.id)
    assert store.jobs.get(older.job_id or "").state is JobState.CANCELLED
    assert store.jobs.get(newer.job_id or "").state is JobState.QUEUED


def test_nothing_new_is_a_run_without_a_job(store: Store, make: Make, corpus: Path, fire: Callable[..., None]) -> None:
    schedule = make(only_new=True, overlap="queue")
    fire()
    finish(store, store.schedules.runs(schedule.id)[0].job_id or "")
    come(store, schedule)
    fire()
    corpus.write_text("one\ntwo\nthree\nfour\n")
    come(store, schedule)
    fire()
    assert states(store, schedule) == ["submitted", "empty", "submitted"]
    assert [run.n_items for run in store.schedules.runs(schedule.id)] == [4, None, 3]
    assert store.schedules.runs(schedule.id)[1].note == "the inputs are as they were"


def test_an_incremental_schedule_submits_what_is_new(
    store: Store, make: Make, corpus: Path, fire: Callable[..., None]
) -> None:
    schedule = make(incremental=True, overlap="queue")
    for content in ("one\ntwo\nthree\n", "one\ntwo\nthree\n", "one\ntwo\nthree\nfour\n"):
        corpus.write_text(content)
        fire()
        if (job_id := store.schedules.runs(schedule.id)[0].job_id) is not None:
            finish(store, job_id)
        come(store, schedule)
    assert states(store, schedule) == ["submitted", "empty", "submitted"]
    assert [run.n_items for run in store.schedules.runs(schedule.id)] == [1, None, 3]


def test_an_empty_input_is_no_error(store: Store, make: Make, corpus: Path, fire: Callable[..., None]) -> None:
    corpus.write_text("")
    schedule = make()
    fire()
    assert states(store, schedule) == ["empty"]


def test_a_look_that_finds_no_change_leaves_no_trace(
    store: Store, make: Make, corpus: Path, fire: Callable[..., None]
) -> None:
    schedule = make(on_change_s=60, overlap="queue")
    fire()
    finish(store, store.schedules.runs(schedule.id)[0].job_id or "")
    for _ in range(3):
        come(store, schedule)
        fire()
    assert states(store, schedule) == ["submitted"]
    corpus.write_text("new\n")
    come(store, schedule)
    fire()
    assert states(store, schedule) == ["submitted", "submitted"]


def test_a_run_that_fails_says_why_and_tells_webhooks(
    store: Store, make: Make, corpus: Path, fire: Callable[..., None]
) -> None:
    hook, _ = store.webhooks.create("default", "https://example.com/")
    schedule = make()
    corpus.unlink()
    fire()
    (run,) = store.schedules.runs(schedule.id)
    assert run.state is RunState.FAILED
    assert str(corpus) in (run.note or "")
    (sent,) = store.webhooks.deliveries(hook.id)
    assert sent.event == "schedule.run_failed"
    body = store._db.read(lambda connection: connection.exec_driver_sql("SELECT body FROM deliveries").scalar_one())
    told = orjson.loads(body)["data"]
    assert (told["id"], told["name"], told["error"]) == (schedule.id, "hourly", run.note)


@pytest.mark.parametrize("removed", [False, True])
def test_a_run_whose_job_fails_tells_webhooks_too(
    store: Store, make: Make, fire: Callable[..., None], removed: bool
) -> None:
    hook, _ = store.webhooks.create("default", "https://example.com/", ["schedule.run_failed"])
    schedule = make()
    come(store, schedule)
    fire()
    (run,) = store.schedules.runs(schedule.id)
    assert run.job_id is not None
    if removed:
        store.schedules.delete(schedule.id)

    store.jobs.fail(run.job_id, "its model broke")
    store.jobs.fail(run.job_id, "again")

    sent = store.webhooks.deliveries(hook.id)
    assert [each.event for each in sent] == ([] if removed else ["schedule.run_failed"])
    if not removed:
        body = store._db.read(lambda connection: connection.exec_driver_sql("SELECT body FROM deliveries").scalar_one())
        told = orjson.loads(body)["data"]
        assert (told["id"], told["due_at"], told["error"]) == (schedule.id, run.due_at.isoformat(), "its model broke")


def test_missed_times_are_noted(store: Store, make: Make, fire: Callable[..., None]) -> None:
    schedule = make()
    come(store, schedule, ago_s=3 * 3600 + 100)
    fire()
    assert states(store, schedule) == ["submitted", "skipped", "skipped", "skipped"] or (
        sorted(states(store, schedule)) == ["skipped", "skipped", "skipped", "submitted"]
    )
    due = [run.due_at for run in store.schedules.runs(schedule.id) if run.state is RunState.SUBMITTED]
    assert datetime.now(UTC) - due[0] < timedelta(hours=1)


def test_a_paused_schedule_is_not_due_and_goes_on_with_its_next_time(
    store: Store, make: Make, fire: Callable[..., None]
) -> None:
    schedule = make()
    assert store.schedules.pause(schedule.id).next_due_at is None
    fire()
    assert states(store, schedule) == []
    resumed = making.resume(store, schedule.id)
    assert resumed.next_due_at is not None
    assert resumed.next_due_at > datetime.now(UTC)


def test_it_runs_at_once_by_hand_paused_or_not(store: Store, make: Make, fire: Callable[..., None]) -> None:
    schedule = make(due=False)
    store.schedules.pause(schedule.id)
    store.schedules.run_now(schedule.id)
    fire()
    assert states(store, schedule) == ["submitted"]


def test_names_are_the_tenant_s_own(store: Store, client: Client, make: Make) -> None:
    mine = make("nightly")
    theirs = making.add(store, client, "nightly", mine.spec, tenant="other")
    with pytest.raises(InvalidParams, match="has a schedule 'nightly' already"):
        make("nightly")
    assert store.schedules.get("nightly", "other").id == theirs.id
    with pytest.raises(UnknownSchedule, match="several tenants"):
        store.schedules.get("nightly")
    with pytest.raises(UnknownSchedule):
        store.schedules.get(mine.id, "other")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"model": "no-such"}, UnknownModel),
        ({"model": "langid"}, ModelMismatch),
        ({"params": {"labels": []}}, InvalidParams),
        ({"ends_at": datetime(2020, 1, 1, tzinfo=UTC)}, InvalidParams),
        ({"cron": "x", "every_s": None}, InvalidParams),
    ],
)
def test_what_could_not_be_submitted_is_refused_at_once(make: Make, given: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make(**given)


def test_a_removed_schedule_leaves_its_jobs(store: Store, make: Make, fire: Callable[..., None]) -> None:
    schedule = make()
    fire()
    store.schedules.delete(schedule.id)
    assert len(store.jobs.list()) == 1
    with pytest.raises(UnknownSchedule):
        store.schedules.get(schedule.id)


def test_old_runs_are_forgotten(store: Store, make: Make, corpus: Path, fire: Callable[..., None]) -> None:
    corpus.write_text("")
    schedule = make()
    fire()
    assert store.schedules.prune(3600) == 0
    assert store.schedules.prune(-1) == 1
    assert states(store, schedule) == []

"""What the store tells of a whole deployment: how it stands, what was done, what failed, which jobs are meant."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from jobs.errors import InvalidParams
from jobs.schemas import Job
from jobs.states import JobState
from jobs.store import Store, failing, ids, throughput
from jobs.store.clock import later
from jobs.store.finding import SORTS, JobFilter
from jobs.store.overview import Bucket, Now, QueueRow
from jobs.store.tables import chunks, jobs
from jobs.store.values import Save
from tests.rows import claim, complete, crash, done, failed, loading_job, part, queued_job, rows, run_dry

EMPTY = Now(0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0)


def move(store: Store, job_id: str, *, finished: timedelta | datetime | None = None, **values: Any) -> None:
    """As if the job and its ended chunks had ended so long ago, or at this moment."""
    job = ids.parse(job_id)
    at = later(-finished.total_seconds()) if isinstance(finished, timedelta) else finished
    moved = {"finished_at": at, **values} if finished is not None else values
    ended = update(chunks).where(chunks.c.job_id == job, chunks.c.finished_at.is_not(None)).values(finished_at=at)

    def work(connection: Any) -> None:
        connection.execute(update(jobs).where(jobs.c.id == job).values(**moved))
        if finished is not None:
            connection.execute(ended)

    store._db.write(work)


def ended(store: Store, n_items: int = 10, **given: Any) -> Job:
    job = queued_job(store, n_items, **given)
    for held in claim(store, chunks=n_items, queue=given.get("queue", "default")):
        complete(store, held)
    assert store.jobs.finish(job.id)
    return store.jobs.get(job.id)


def fail(store: Store, code: str, *, n_items: int = 10, message: str = "it is empty", **given: Any) -> Job:
    """A completed job whose items all failed."""
    job = queued_job(store, n_items, **given)
    for held in claim(store, chunks=n_items):
        of_it = [failed(seq, code, message) for seq in range(held.seq_lo, held.seq_hi)]
        store.chunks.save([Save(held.chunk_id, held.token, of_it, done=True)])
    assert store.jobs.finish(job.id)
    return job


def test_of_nothing_everything_is_told(store: Store) -> None:
    overview = store.overview

    assert overview.now() == overview.now("nobody") == EMPTY
    assert [overview.throughput(None, hours) for hours in (1, 24, 168)] == [[], [], []]
    assert overview.failures() == overview.queues() == overview.matching() == []
    assert overview.search() == ([], None)
    assert overview.state_counts() == dict.fromkeys((*map(str, JobState), "paused"), 0)
    assert (overview.count(), overview.models_in_use(), overview.tasks_in_use(), overview.labels_in_use()) == (
        0,
        [],
        [],
        {},
    )


def test_jobs_in_every_state_are_counted_once_and_tenants_are_kept_apart(store: Store) -> None:
    ended(store)
    for end in (store.jobs.cancel, lambda job_id: store.jobs.fail(job_id, "its model broke")):
        end(queued_job(store).id)
    late = queued_job(store, deadline_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert store.jobs.expire_due() == 1
    queued_job(store, 20)
    complete(store, claim(store)[0])
    loading_job(store)
    store.jobs.pause(queued_job(store).id)
    queued_job(store, 7, tenant="other")

    own, all_of_them = store.overview.now("default"), store.overview.now()

    assert own == Now(1, 0, 1, 1, 1, 1, 1, 1, 0, 0.25, 1.0, own.oldest_wait_s, 15)
    assert all_of_them[:9] == (1, 1, 1, 1, 1, 1, 1, 1, 0)
    assert all_of_them.pending_items == 22
    assert store.overview.now("other")[:2] == (0, 1)
    counts = {"loading": 1, "queued": 1, "running": 1, "completed": 1, "failed": 1, "expired": 1, "cancelled": 1}
    assert store.overview.state_counts("default") == {**counts, "queued": 0, "paused": 1}
    assert store.overview.state_counts("default", JobFilter(states=["failed"], text=late.id)) == {
        **dict.fromkeys(counts, 0),
        "expired": 1,
        "paused": 0,
    }


def test_what_ended_more_than_a_day_ago_counts_no_more(store: Store) -> None:
    for hours in (23.9, 24.1):
        move(store, fail(store, "too_long").id, finished=timedelta(hours=hours))

    found = store.overview.now()

    assert (found.completed, found.failed_items, found.items_per_s) == (1, 10, 0.0)


def test_the_longest_wait_is_that_of_a_job_with_chunks_to_be_claimed(store: Store) -> None:
    for age_s, wants in ((500, 0), (300, 5), (100, 5)):
        job = queued_job(store, 5)
        if not wants:
            claim(store)
        move(store, job.id, sealed_at=later(-age_s))

    assert 300 <= store.overview.now().oldest_wait_s < 400
    assert 300 <= store.overview.queues()[0].oldest_s < 400


@pytest.mark.parametrize(("hours", "width"), [(1, 60), (24, 1800), (168, 10_800)])
def test_what_was_done_falls_into_its_bucket_up_to_the_edge(store: Store, hours: int, width: int) -> None:
    now = datetime.now(UTC)
    edge = datetime.fromtimestamp(int(now.timestamp()) // width * width - 3 * width, UTC)
    first = datetime.fromtimestamp((int(now.timestamp()) // width - hours * 3600 // width + 2) * width, UTC)
    for finished in (edge, edge + timedelta(microseconds=1), edge - timedelta(microseconds=1), first):
        move(store, ended(store).id, finished=finished)
    move(store, fail(store, "too_long", task="embed", tenant="other").id, finished=edge)
    move(store, ended(store).id, finished=timedelta(hours=hours, seconds=1))

    found = store.overview.throughput(None, hours)

    before = edge - timedelta(seconds=width)
    assert found == [
        Bucket(first, "classify", 10, 0, 40),
        Bucket(before, "classify", 10, 0, 40),
        Bucket(edge, "classify", 20, 0, 80),
        Bucket(edge, "embed", 10, 10, 0),
    ]
    assert store.overview.throughput("other", hours) == found[-1:]


def test_a_summary_changes_nothing_of_what_was_done(store: Store) -> None:
    now = datetime.now(UTC)
    for hours in (0, 0.1, 3, 50, 160, 190, 200):
        move(store, ended(store).id, finished=now - timedelta(hours=hours))
        move(store, fail(store, "too_long", task="embed", tenant="other").id, finished=now - timedelta(hours=hours))
    asked = [(tenant, hours) for tenant in (None, "default", "other", "none") for hours in (1, 24, 168)]
    before = [store.overview.throughput(*each) for each in asked]

    rounds = list(iter(store.overview.summarise, 0))

    assert sum(rounds) == 8 * 48
    assert [store.overview.throughput(*each) for each in asked] == before
    assert [sum(bucket.items for bucket in found) for found in before[2::3]] == [100, 50, 50, 0]
    assert max(rounds) == 48


def test_half_hours_are_summarised_as_they_settle_and_old_ones_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def since() -> list[int]:
        return [row[0] for row in rows(store, "SELECT DISTINCT half_hour FROM throughput ORDER BY half_hour")]

    move(store, ended(store).id, finished=timedelta(hours=190))
    move(store, ended(store).id, finished=timedelta(hours=1.1))
    monkeypatch.setattr(throughput, "SETTLED_S", 7200.0)
    while store.overview.summarise():
        pass
    early = since()
    assert store.overview.throughput(None, 24)[-1].items == 10

    monkeypatch.setattr(throughput, "SETTLED_S", 600.0)
    assert 2 <= store.overview.summarise() <= 4
    store.jobs.cancel(queued_job(store).id)
    monkeypatch.setattr(throughput, "KEPT", 96)
    monkeypatch.setattr(throughput, "SETTLED_S", -1800.0)
    assert 1 <= store.overview.summarise() <= 2

    assert len(early) > 5
    assert all(half_hour > early[-1] - 96 for half_hour in since())
    assert since()[-1] > early[-1]


def test_a_chunk_that_saves_as_it_goes_counts_when_it_ends(store: Store) -> None:
    queued_job(store, 5)
    held = claim(store)[0]
    store.chunks.save([part(held, [0, 1])])
    assert store.overview.throughput(None, 1) == []

    store.chunks.save([done(held, [2, 3, 4])])

    assert [(bucket.items, bucket.tokens) for bucket in store.overview.throughput(None, 1)] == [(5, 20)]


def test_other_hours_are_refused(store: Store) -> None:
    with pytest.raises(InvalidParams, match="no throughput of 2 hours; allowed: 1, 24, 168"):
        store.overview.throughput(None, 2)


def test_failures_are_told_by_code_the_most_frequent_first(store: Store) -> None:
    fail(store, "empty_text", n_items=5)
    last = fail(store, "too_long", n_items=15, message="9 tokens")
    more = fail(store, "too_long", n_items=5, message="8 tokens")
    store.jobs.fail(queued_job(store).id, "its model broke")
    move(store, fail(store, "no_answer").id, finished=timedelta(hours=25))
    fail(store, "empty_text", tenant="other")

    found = store.overview.failures("default")

    assert [tuple(group[:4]) for group in found] == [
        ("too_long", "8 tokens", 20, 2),
        ("empty_text", "it is empty", 5, 1),
        ("job_failed", "its model broke", 0, 1),
    ]
    assert found[0].last_job == more.id != last.id
    assert store.jobs.get(more.id).started_at <= found[0].last_at <= store.jobs.get(more.id).finished_at  # type: ignore[operator]
    assert not any(group.estimated for group in found)
    assert [group.code for group in store.overview.failures("default", limit=1)] == ["too_long"]
    assert [group.n_items for group in store.overview.failures("other")] == [10]
    assert store.overview.failures("default", hours=26)[1].code == "no_answer"


def test_failures_beyond_those_looked_at_are_scaled_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(store, "empty_text", n_items=30)
    fail(store, "too_long", n_items=10)
    monkeypatch.setattr(failing, "LOOKED_AT", 20)

    found = store.overview.failures()

    assert [(group.code, group.n_items, group.estimated) for group in found] == [
        ("empty_text", 20, True),
        ("too_long", 20, True),
    ]


def test_failures_of_split_chunks_count_once(store: Store) -> None:
    job = queued_job(store, 2, per_chunk=2)
    for _ in range(4):
        crash(store, chunks=2)
    run_dry(store)

    assert store.jobs.get(job.id).counts.error == 2
    assert [(group.code, group.n_items) for group in store.overview.failures()] == [("poison", 2)]
    assert store.overview.throughput(None, 1)[0][2:4] == (2, 2)


@pytest.fixture
def many(store: Store) -> list[Job]:
    """Jobs that differ in all they can be sorted by, often only in some of it."""
    made = []
    for number in range(12):
        given = {"task": ("classify", "embed")[number % 2], "model": f"m{number % 3}", "priority": number % 4}
        labels = {"team": "a"} if number % 2 else {"team": "b", "rare": "x"} if number == 6 else {}
        make = ended if number < 5 else queued_job
        made.append(make(store, 5 + 5 * (number % 3), **given, queue=f"q{number % 2}", labels=labels))
    return [store.jobs.get(job.id) for job in made]


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("sort", SORTS)
def test_pages_in_any_order_hold_each_job_once(store: Store, many: list[Job], sort: str, descending: bool) -> None:
    def key(job: Job) -> Any:
        never = datetime(9999, 1, 1, tzinfo=UTC)
        value = {"created_at": 0, "n_items": job.counts.total, "finished_at": job.finished_at or never}
        return value.get(sort, getattr(job, sort, None)), job.id

    found, after = list[Job](), None
    for _ in range(3):
        page, after = store.overview.search(sort=sort, descending=descending, after=after, limit=5)  # type: ignore[arg-type]
        found += page

    assert after is None
    assert found == sorted(found, key=key, reverse=descending)
    assert {job.id for job in found} == {job.id for job in many}
    assert [job.counts for job in found] == [store.jobs.get(job.id).counts for job in found]


def test_a_filter_finds_what_fulfils_all_of_it(store: Store, many: list[Job]) -> None:
    store.jobs.pause(many[7].id)
    middle = many[6].created_at
    for wanted, numbers in (
        (JobFilter(), range(12)),
        (JobFilter(states=["completed"]), range(5)),
        (JobFilter(states=["completed", "queued"], paused=True), [7]),
        (JobFilter(states=["queued"], paused=False), [5, 6, 8, 9, 10, 11]),
        (JobFilter(task="embed", model="m1"), [1, 7]),
        (JobFilter(queue="q1"), range(1, 12, 2)),
        (JobFilter(labels={"team": "a"}), range(1, 12, 2)),
        (JobFilter(labels={"team": None}), [1, 3, 5, 6, 7, 9, 11]),
        (JobFilter(labels={"team": None, "rare": "x"}), [6]),
        (JobFilter(labels={"no' \"such": None}), []),
        (JobFilter(created_before=middle), range(6)),
        (JobFilter(created_after=middle), range(6, 12)),
        (JobFilter(text=many[3].id), [3]),
        (JobFilter(text="job_0"), range(12)),
        (JobFilter(text="job_zz"), []),
        (JobFilter(text="job_"), []),
    ):
        expected = [many[number].id for number in reversed(numbers)]

        assert store.overview.matching(None, wanted) == expected, wanted
        assert [job.id for job in store.overview.search("default", wanted)[0]] == expected
        assert store.overview.count("default", wanted) == len(expected)
        assert store.overview.count("other", wanted) == 0
    assert store.overview.matching(None, JobFilter(), 2) == [many[11].id, many[10].id]


def test_what_is_no_cursor_sort_or_state_is_refused(store: Store, many: list[Job]) -> None:
    cursor = store.overview.search(sort="task", limit=2)[1]

    for bad in ("", "x", "eyJ9", "é", cursor):
        with pytest.raises(InvalidParams, match="is no cursor of jobs sorted by model"):
            store.overview.search(sort="model", after=bad)
    with pytest.raises(InvalidParams, match="is no cursor"):
        store.overview.search(sort="task", descending=False, after=cursor)
    for sort, value in (("n_items", 2**63), ("finished_at", "0001-01-01T00:00:00+14:00"), ("n_items", "1")):
        bad = base64.urlsafe_b64encode(json.dumps([sort, True, value, "0" * 32]).encode()).decode()
        with pytest.raises(InvalidParams, match="is no cursor"):
            store.overview.search(sort=sort, after=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidParams, match="cannot be sorted by 'id'; allowed: created_at, finished_at"):
        store.overview.search(sort="id")  # type: ignore[arg-type]
    with pytest.raises(InvalidParams, match="no state 'gone'; allowed: loading, queued"):
        store.overview.count(None, JobFilter(states=["gone"]))


def test_suggestions_are_what_jobs_use(store: Store, many: list[Job]) -> None:
    loading_job(store, tenant="other", task="ner", model="z")

    overview = store.overview

    assert overview.tasks_in_use("default") == ["classify", "embed"]
    assert overview.tasks_in_use() == ["classify", "embed", "ner"]
    assert overview.models_in_use("other") == ["z"]
    assert overview.models_in_use() == ["m0", "m1", "m2", "z"]
    assert overview.labels_in_use("default") == {"rare": ["x"], "team": ["a", "b"]}


def test_queues_tell_what_waits_what_runs_and_who_serves_them(store: Store) -> None:
    queued_job(store, 15, tenant="other")
    claim(store)
    held = claim(store)[0]
    store.chunks.release({held.chunk_id: held.token}, error="busy", delay_s=60)
    slow = queued_job(store, 5, queue="slow")
    move(store, slow.id, sealed_at=later(-9))
    for name, queues, state in (("w1", ["default", "idle"], "ready"), ("w2", ["default"], "stopped")):
        beat = {"host": "h", "pid": 1, "boot_id": "b", "device": "cpu", "models": [], "queues": queues, "state": state}
        store.workers.beat(name, **beat)

    found = [row._replace(oldest_s=round(row.oldest_s >= 9)) for row in store.overview.queues()]

    assert found == [
        QueueRow("default", 1, 1, 10, 100, 0, 1),
        QueueRow("idle", 0, 0, 0, 0, 0, 1),
        QueueRow("slow", 1, 0, 5, 50, 1, 0),
    ]
    assert [row.queue for row in store.overview.queues("default") if row.items] == ["slow"]


def test_a_deleted_job_is_in_no_list_and_no_count(store: Store) -> None:
    job = ended(store)
    move(store, job.id, expires_at=later(-1))

    assert store.overview.search() == ([], None)
    assert store.overview.now().completed == store.overview.state_counts()["completed"] == 0

"""What the store tells of one job: its chunks, times and failures, what happened to it, results beside their inputs."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from sqlalchemy import update

from jobs.errors import InvalidParams, UnknownJob
from jobs.schemas import Job
from jobs.states import DeliveryState
from jobs.store import Store, failing, ids, insight
from jobs.store.clock import later
from jobs.store.insight import Cell, Insight, Item, Page, Phase, Sample, Sent
from jobs.store.tables import chunks, jobs
from jobs.store.values import Claim, Save
from tests.rows import block, claim, complete, crash, failed, loading_job, ok, queued_job, run_dry, spec

READS: dict[str, Callable[..., Any]] = {
    "strip": Insight.strip,
    "phases": Insight.phases,
    "pace": Insight.pace,
    "failures": Insight.failures,
    "trouble": Insight.trouble,
    "children": Insight.children,
    "deliveries": Insight.deliveries,
    "events": Insight.events,
    "results_page": Insight.results_page,
}


def moved(store: Store, job: Job, **values: Any) -> None:
    """Change the job's row."""
    changed = update(jobs).where(jobs.c.id == ids.parse(job.id)).values(**values)
    store._db.write(lambda connection: connection.execute(changed))


def save(store: Store, held: Claim, code: str | None = None, **given: Any) -> None:
    """Every item of the chunk is ok, or fails so."""
    seqs = range(held.seq_lo, held.seq_hi)
    rows = [ok(seq, **given) if code is None else failed(seq, code, f"{code} {seq}") for seq in seqs]
    store.chunks.save([Save(held.chunk_id, held.token, rows, done=True)])


def mixed(store: Store) -> Job:
    """20 items in chunks of 5: ok, empty, too long, ok."""
    job = queued_job(store, 20)
    for held, code in zip(claim(store, chunks=4), (None, "empty_text", "too_long", None), strict=True):
        save(store, held, code)
    return job


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_job_that_is_not_there_gone_or_anothers_is_unknown(store: Store, read: Callable[..., Any]) -> None:
    job, gone = queued_job(store), queued_job(store)
    moved(store, gone, expires_at=later(-1))

    assert read(store.insight, job.id, tenant="default") is not None
    for job_id, tenant in (("job_x", None), ("job_" + "0" * 32, None), (gone.id, None), (job.id, "other")):
        with pytest.raises(UnknownJob):
            read(store.insight, job_id, tenant=tenant)


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_of_a_job_without_items_nothing_breaks(store: Store, read: Callable[..., Any]) -> None:
    job = loading_job(store)

    found = read(store.insight, job.id)

    names = {"phases": "loading", "events": "created"}
    of_its_own = [each.name for each in found if hasattr(each, "name")]
    assert of_its_own in ([], *([name] for name in names.values()))
    assert of_its_own or found in ([], Page([], None))


def test_a_strip_shows_each_chunk_while_there_are_few(store: Store) -> None:
    job = queued_job(store, 20)
    first, second = claim(store, chunks=2)
    complete(store, first)
    store.chunks.release({second.chunk_id: second.token})
    claim(store)
    store.jobs.pause(job.id)

    assert store.insight.strip(job.id, 4) == [
        Cell(0, 5, {"done": 1}, 5, 0, 1),
        Cell(5, 10, {"running": 1}, 0, 0, 2),
        Cell(10, 15, {"held": 1}, 0, 0, 0),
        Cell(15, 20, {"held": 1}, 0, 0, 0),
    ]


def test_a_strip_of_many_chunks_is_merged_evenly(store: Store) -> None:
    job = queued_job(store, 30)
    save(store, claim(store)[0], "empty_text")
    complete(store, claim(store)[0])
    claim(store)

    assert store.insight.strip(job.id, 2) == [
        Cell(0, 15, {"done": 2, "running": 1}, 5, 5, 1),
        Cell(15, 30, {"pending": 3}, 0, 0, 0),
    ]
    assert len(store.insight.strip(job.id, 1)) == 1
    assert [cell.seq_lo for cell in store.insight.strip(job.id, 4)] == [0, 10, 20, 25]
    with pytest.raises(InvalidParams, match="a strip of 0 cells"):
        store.insight.strip(job.id, 0)


def test_chunks_that_were_split_are_shown_as_their_parts(store: Store) -> None:
    job = queued_job(store, 4, per_chunk=4)
    for _ in range(2):
        crash(store)

    found = store.insight.strip(job.id)

    assert [(cell.seq_lo, cell.seq_hi, cell.states) for cell in found] == [
        (0, 2, {"pending": 1}),
        (2, 4, {"pending": 1}),
    ]
    assert [(each.seq_lo, each.seq_hi, each.state, each.crashes) for each in store.insight.trouble(job.id)] == [
        (0, 4, "split", 2),
        (0, 2, "pending", 1),
        (2, 4, "pending", 1),
    ]
    assert [each.worker for each in store.insight.trouble(job.id, 1)] == ["w1"]
    run_dry(store)
    assert sum(cell.n_ok for cell in store.insight.strip(job.id)) == 4


def test_errors_of_chunks_are_told(store: Store) -> None:
    job = queued_job(store, 10)
    held = claim(store)[0]
    store.chunks.release({held.chunk_id: held.token}, error="no memory")

    [found] = store.insight.trouble(job.id)

    assert (found.seq_lo, found.errors, found.crashes, found.last_error) == (0, 1, 0, "no memory")


def test_phases_follow_each_other_up_to_now(store: Store) -> None:
    job = loading_job(store)
    seen = [[phase.name for phase in store.insight.phases(job.id)]]
    store.jobs.append(job.id, [block(0, 5)])
    store.jobs.seal(job.id)
    seen.append([phase.name for phase in store.insight.phases(job.id)])
    run_dry(store)

    whole, now = store.insight.phases(job.id), store.jobs.get(job.id)

    assert seen == [["loading"], ["loading", "waiting"]]
    assert now.sealed_at is not None
    assert now.started_at is not None
    assert now.finished_at is not None
    assert whole == [
        Phase("loading", now.created_at, now.sealed_at),
        Phase("waiting", now.sealed_at, now.started_at),
        Phase("running", now.started_at, now.finished_at),
        Phase("finished", now.finished_at, now.finished_at),
    ]


def test_a_job_that_ended_unbegun_has_no_time_of_running(store: Store) -> None:
    job = loading_job(store)
    store.jobs.cancel(job.id)

    assert [phase.name for phase in store.insight.phases(job.id)] == ["loading", "finished"]


def test_the_pace_covers_a_jobs_life(store: Store) -> None:
    job = queued_job(store, 20)
    assert store.insight.pace(job.id) == []
    run_dry(store)
    start, end = later(-1000), later(-10)
    moved(store, job, started_at=start, finished_at=end)
    for number, ago_s in enumerate((1000, 700, 505, 10)):
        at = update(chunks).where(chunks.c.job_id == ids.parse(job.id), chunks.c.seq_lo == 5 * number)
        at = at.values(finished_at=later(-ago_s))
        store._db.write(lambda connection, at=at: connection.execute(at))

    found = store.insight.pace(job.id, 10)

    assert len(found) == 10
    assert [(pace.items, pace.tokens) for pace in found if pace.items] == [(5, 20)] * 4
    assert [pace.items for pace in found][::9] == [5, 5]
    assert sum(pace.items for pace in store.insight.pace(job.id, 1)) == 20
    with pytest.raises(InvalidParams, match="in 0 buckets"):
        store.insight.pace(job.id, 0)


def test_the_pace_of_a_live_job_is_that_of_its_last_hour(store: Store) -> None:
    job = queued_job(store, 20)
    for held in claim(store, chunks=2):
        complete(store, held)
    moved(store, job, started_at=later(-9000))
    old = update(chunks).where(chunks.c.seq_lo == 0).values(finished_at=later(-8000))
    store._db.write(lambda connection: connection.execute(old))

    found = store.insight.pace(job.id)

    assert len(found) in (59, 60)
    assert (sum(pace.items for pace in found), found[-1].items) == (5, 5)
    assert (found[-1].start_at - found[0].start_at).total_seconds() > 3500


def test_failures_are_counted_by_code_and_shown(store: Store) -> None:
    job = mixed(store)
    more = queued_job(store, 5)
    save(store, claim(store)[0], "empty_text")

    found = store.insight.failures(job.id, 2)

    assert [(each.code, each.n_items, each.estimated) for each in found] == [
        ("empty_text", 5, False),
        ("too_long", 5, False),
    ]
    assert found[0].samples == [Sample(5, "5", "empty_text 5"), Sample(6, "6", "empty_text 6")]
    assert len(store.insight.failures(more.id, 7)[0].samples) == 5


def test_of_very_many_failures_some_are_looked_at_all_over_the_job(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = queued_job(store, 100)
    for number, held in enumerate(claim(store, chunks=20)):
        save(store, held, "empty_text" if number < 10 else "too_long")
    monkeypatch.setattr(failing, "LOOKED_AT", 20)

    found = store.insight.failures(job.id)

    assert {(each.code, each.n_items, each.estimated) for each in found} == {
        ("empty_text", 50, True),
        ("too_long", 50, True),
    }
    monkeypatch.setattr(failing, "LOOKED_AT_OF_ONE", 2)
    assert sum(each.n_items for each in store.insight.failures(job.id)) == 100


def test_retries_and_news_of_a_job_are_told_in_order(store: Store) -> None:
    hook, _ = store.webhooks.create("default", "https://example.com/a")
    store.webhooks.create("other", "https://example.com/b")
    job = mixed(store)
    assert store.jobs.finish(job.id)
    retry = queued_job(store, 5, retry_of=job.id)
    queued_job(store, 5)

    [sent] = store.insight.deliveries(job.id)
    events = store.insight.events(job.id)

    assert isinstance(sent, Sent)
    assert (sent.url, sent.delivery.webhook_id) == ("https://example.com/a", hook.id)
    assert (sent.delivery.event, sent.delivery.state) == ("job.completed", DeliveryState.PENDING)
    assert [child.id for child in store.insight.children(job.id)] == [retry.id]
    assert [event.name for event in events][:3] == ["created", "sealed", "started"]
    assert {event.name for event in events[3:]} == {"completed", "delivery", "retried"}
    assert [event.at for event in events] == sorted(event.at for event in events)
    about = {event.name: event.about for event in events}
    assert about["delivery"] == "job.completed to https://example.com/a: pending"
    assert about["retried"] == retry.id
    assert store.insight.events(retry.id)[0].about == f"a retry of {job.id}"
    assert store.insight.children(retry.id) == store.insight.deliveries(retry.id) == []


def test_why_a_job_ended_and_its_canary_are_told(store: Store) -> None:
    job, _ = store.jobs.create(spec(canary=2), request_hash=b"h")
    store.jobs.append(job.id, [block(0, 10)])
    store.jobs.fail(job.id, "its model broke")

    events = store.insight.events(job.id)

    assert (events[-1].name, events[-1].about) == ("failed", "its model broke")


def test_results_are_shown_beside_their_inputs(store: Store) -> None:
    job = mixed(store)

    first = store.insight.results_page(job.id, limit=7)
    rest = store.insight.results_page(job.id, after_seq=6, limit=200)

    assert ([item.seq for item in first.items], first.next_seq) == (list(range(7)), 6)
    assert ([item.seq for item in rest.items], rest.next_seq) == (list(range(7, 20)), None)
    for item in (*first.items, *rest.items):
        assert item.line is not None
        assert item.result is not None
        assert orjson.loads(item.line) == {"text": str(item.seq)}
        assert (item.result.seq, item.result.status) == (item.seq, item.status)


@pytest.mark.parametrize(
    ("only", "seqs"),
    [
        ("ok", [*range(5), *range(15, 20)]),
        ("error", range(5, 15)),
        ("too_long", range(10, 15)),
        ("no such", []),
    ],
)
@pytest.mark.parametrize("limit", [2, 200])
@pytest.mark.parametrize("spans", [1, 100])
@pytest.mark.parametrize("scanned", [3, 20_000])
def test_only_results_of_one_kind_are_shown(
    store: Store, only: str, seqs: range, limit: int, spans: int, scanned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = mixed(store)
    monkeypatch.setattr(insight, "SPANS", spans)
    monkeypatch.setattr(insight, "SCANNED", scanned)

    found, after = list[Item](), -1
    for _ in range(40):
        page = store.insight.results_page(job.id, after_seq=after, limit=limit, only=only)
        assert len(page.items) <= limit
        found += page.items
        if page.next_seq is None:
            break
        assert page.next_seq > after
        after = page.next_seq

    assert page.next_seq is None
    assert [item.seq for item in found] == list(seqs)


def test_long_inputs_and_outputs_make_short_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [orjson.dumps({"text": str(seq) * (3000 if seq == 2 else 10)}) for seq in range(6)]
    job = loading_job(store)
    store.jobs.append(job.id, [block(0, 6, lines=lines)])
    store.jobs.seal(job.id)
    [one, other] = claim(store, chunks=2)
    save(store, one)
    save(store, other, output=orjson.dumps({"text": "x" * 3000}).decode())
    monkeypatch.setattr(insight, "LARGEST", 1000)

    found, after = list[Item](), -1
    while True:
        page = store.insight.results_page(job.id, after_seq=after)
        found += page.items
        if page.next_seq is None:
            break
        after = page.next_seq

    assert [item.seq for item in found] == list(range(6))
    assert [item.seq for item in found if item.line is None] == [2]
    assert [item.seq for item in found if item.result is None] == [5]

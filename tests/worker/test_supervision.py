"""Canaries, error budgets and deadlines: real shifts and real rounds of upkeep, on both databases."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy.dialects import sqlite

from jobs.client import Client
from jobs.errors import InvalidParams, InvalidState
from jobs.handle import JobHandle
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.states import CanaryState, ChunkState, Control, JobState
from jobs.store import Store
from jobs.store.supervision import DUE
from jobs.store.values import Save
from jobs.upkeep import Upkeep
from tests.checker import all_results, check
from tests.deployment import NOWHERE
from tests.rows import claim, crash, failed, ok, part, rows
from tests.worker.conftest import MakeShift

BAD = "nul \0 here"
TEXTS = ["word " * (1 + seq * 7919 % 300) for seq in range(2500)]
"""Of all lengths, in no order."""

Submit = Callable[..., JobHandle]
Round = Callable[[], dict[str, int]]


@pytest.fixture
def client(store: Store, settings: Callable[..., Settings]) -> Iterator[Client]:
    with Client(settings(redis_url=NOWHERE), store=store) as opened:
        yield opened


@pytest.fixture
def submit(client: Client) -> Submit:
    """A job of classify with the fake engine."""
    return lambda items, **wanted: client.submit("classify", items, model="fake", **wanted)


@pytest.fixture
def upkeep(store: Store, settings: Callable[..., Settings]) -> Iterator[Round]:
    """One round of upkeep: what it did."""
    chosen = settings(redis_url=NOWHERE)
    queue = Queue(chosen)
    yield Upkeep(store, queue, chosen, "one").round
    queue.close()


def spans(store: Store, state: ChunkState) -> list[tuple[int, int]]:
    """The chunks in a state, as [first, end)."""
    found = rows(store, "SELECT seq_lo, seq_hi FROM chunks WHERE state = :state ORDER BY seq_lo", state=str(state))
    return [(row.seq_lo, row.seq_hi) for row in found]


def lengths(seqs: Sequence[int]) -> list[int]:
    return sorted(len(TEXTS[seq].split()) for seq in seqs)


def test_a_canary_runs_first_and_the_rest_waits_for_approval(
    submit: Submit, client: Client, store: Store, make_shift: MakeShift, upkeep: Round
) -> None:
    job = submit(TEXTS, canary=20)
    begun = upkeep()
    make_shift().run()
    upkeep()
    waiting = job.refresh()
    ran = [result.seq for result in job.results()]
    again = make_shift().run().items
    client.approve(job.id)
    make_shift().run()

    assert "waiting" not in begun
    assert (len(ran), again) == (20, 0)
    assert lengths(ran)[0] == 1
    assert lengths(ran)[-1] == 300
    assert all(abs(found - 300 * at / 19) < 8 for at, found in enumerate(lengths(ran)))
    assert waiting.canary is not None
    assert (waiting.state, waiting.control) == (JobState.RUNNING, Control.PAUSE)
    assert (waiting.canary.state, waiting.canary.items, waiting.canary.ok) == (CanaryState.WAITING, 20, 20)
    assert waiting.canary.usage.input_tokens == sum(lengths(ran))
    assert waiting.canary.rest is not None
    assert waiting.canary.rest.early_s < waiting.canary.rest.seconds < waiting.canary.rest.late_s
    done = check(store, job.id)
    assert done.canary is not None
    assert (done.canary.state, done.canary.ok) == (CanaryState.PASSED, 20)
    assert done.counts.total == 2500


def test_with_go_on_the_rest_follows_by_itself(
    submit: Submit, store: Store, make_shift: MakeShift, upkeep: Round
) -> None:
    job = submit(TEXTS[:700], canary=10, go_on=True)
    make_shift().run()
    followed = upkeep()
    make_shift().run()

    assert followed["went_on"] == 1
    assert check(store, job.id).control is Control.RUN


@pytest.mark.parametrize(("share", "waits"), [(None, False), (0.05, True), (0.5, False)])
def test_the_rest_does_not_follow_a_canary_that_failed_too_often(
    submit: Submit, make_shift: MakeShift, upkeep: Round, share: float | None, waits: bool
) -> None:
    job = submit([BAD, *["some words"] * 9], canary=9, go_on=True, max_error_share=share)
    make_shift().run()
    upkeep()

    canary = job.refresh().canary
    assert canary is not None
    assert canary.error == 1
    assert canary.error_share == pytest.approx(1 / 9, abs=1e-6)
    assert canary.state is (CanaryState.WAITING if waits else CanaryState.PASSED)


def test_a_canary_that_failed_altogether_is_never_followed(
    submit: Submit, make_shift: MakeShift, upkeep: Round
) -> None:
    job = submit([BAD] * 30, canary=5, go_on=True)
    make_shift().run()

    assert upkeep()["waiting"] == 1
    assert job.refresh().counts.error == 5


def test_a_pause_in_the_midst_of_a_canary_releases_no_more_than_it(
    submit: Submit, client: Client, store: Store, make_shift: MakeShift, upkeep: Round
) -> None:
    job = submit(TEXTS[:600], canary=10)
    client.pause(job.id)
    paused = spans(store, ChunkState.PENDING)
    client.resume(job.id)
    resumed = spans(store, ChunkState.PENDING)
    make_shift().run()
    upkeep()

    assert paused == []
    assert (len(resumed), {hi - lo for lo, hi in resumed}) == (10, {1})
    assert job.refresh().counts.ok == 10
    with pytest.raises(InvalidState, match="waits for approval"):
        client.resume(job.id)


def test_a_job_can_be_approved_of_at_once_and_twice(
    submit: Submit, client: Client, store: Store, make_shift: MakeShift, upkeep: Round
) -> None:
    job = submit(TEXTS[:600], canary=10)
    client.approve(job.id)
    client.approve(job.id)
    make_shift().run()
    upkeep()

    assert check(store, job.id).canary is not None
    client.approve(job.id)


def test_an_early_approval_leaves_a_paused_job_paused(submit: Submit, client: Client, store: Store) -> None:
    job = submit(TEXTS[:600], canary=10)
    client.pause(job.id)

    approved = client.approve(job.id)
    held = spans(store, ChunkState.PENDING)
    client.resume(job.id)

    assert (approved.control, held) == (Control.PAUSE, [])
    assert spans(store, ChunkState.HELD) == []


def test_a_worker_that_dies_over_a_canary_costs_no_result(
    submit: Submit, client: Client, store: Store, make_shift: MakeShift, upkeep: Round
) -> None:
    job = submit(TEXTS[:600], canary=10)
    crash(store, chunks=3)
    make_shift().run()
    upkeep()
    client.approve(job.id)
    make_shift().run()

    check(store, job.id)


def test_a_canary_of_the_whole_job_is_the_job(submit: Submit, store: Store, make_shift: MakeShift) -> None:
    job = submit(["a", "b c"], canary=5)
    make_shift().run()

    canary = check(store, job.id).canary
    assert canary is not None
    assert (canary.state, canary.items) == (CanaryState.PASSED, 2)


def test_a_cancelled_canary_ends_its_job(submit: Submit, client: Client, store: Store, upkeep: Round) -> None:
    job = submit(TEXTS[:600], canary=10)
    client.cancel(job.id)
    upkeep()

    with pytest.raises(InvalidState, match="cannot go on"):
        client.approve(job.id)
    assert store.check() == []


def test_only_a_job_with_a_canary_can_be_approved_of(submit: Submit, client: Client) -> None:
    job = submit(["a"])

    with pytest.raises(InvalidState, match="no canary"):
        client.approve(job.id)


def test_the_same_request_with_another_canary_is_the_same_job(submit: Submit) -> None:
    first = submit(TEXTS[:50], canary=3, idempotency_key="k")
    second = submit(TEXTS[:50], canary=5, max_error_share=0.1, idempotency_key="k")

    assert first.id == second.id
    assert second.job.canary is not None
    assert second.job.canary.items == 3


def test_the_few_supervised_jobs_are_found_by_their_index(sqlite_url: str) -> None:
    store = Store.open(sqlite_url)
    query = DUE.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})

    plan = rows(store, f"EXPLAIN QUERY PLAN {query}")
    store.close()

    assert "ix_jobs_supervised" in plan[0].detail


def test_a_load_that_is_gone_on_with_keeps_its_canary(submit: Submit, store: Store, client: Client) -> None:
    def breaks() -> Iterator[str]:
        yield from TEXTS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit(breaks(), canary=7, idempotency_key="k")
    (begun,) = client.list()
    with pytest.raises(InvalidState, match="begun with a canary of 7 items"):
        store.jobs.seal(begun.id)
    job = submit(breaks_no_more(), canary=7, idempotency_key="k")

    assert job.id == begun.id
    assert len(spans(store, ChunkState.PENDING)) == 7


def breaks_no_more() -> Iterator[str]:
    yield from TEXTS


@pytest.mark.parametrize(
    "wrong",
    [
        {"go_on": True},
        {"canary": 0},
        {"canary": 1001},
        {"max_error_share": 1.0},
        {"on_errors": "stop"},
        {"errors_after": 0},
    ],
)
def test_wrong_bounds_are_refused(submit: Submit, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams, match=next(iter(wrong))):
        submit(["a"], **wrong)


def test_a_job_that_fails_too_often_is_paused_and_counted_anew_when_it_is_resumed(
    submit: Submit, client: Client, store: Store, upkeep: Round
) -> None:
    job = submit(["a"] * 1024, max_error_share=0.1, errors_after=50)
    held = claim(store, chunks=2)
    _save(store, held[0], n_ok=30, n_error=10)
    few = upkeep()
    _save(store, held[0], n_ok=10, n_error=0, at=40)
    enough = upkeep()
    paused = job.refresh()
    resumed = client.resume(job.id)
    after = upkeep()
    _save(store, held[0], n_ok=0, n_error=60, at=50)
    upkeep()

    assert "paused" not in few
    assert enough["paused"] == 1
    assert paused.error == "paused: 10 of 50 items failed (0.2), more than the 0.1 that may"
    assert (paused.state, paused.control) == (JobState.RUNNING, Control.PAUSE)
    assert (resumed.error, resumed.control) == (None, Control.RUN)
    assert "paused" not in after
    assert "60 of 60 items failed since it was resumed" in str(job.refresh().error)


def test_a_job_that_fails_too_often_fails_and_its_webhook_hears_of_it(
    submit: Submit, store: Store, make_shift: MakeShift
) -> None:
    hook, _ = store.webhooks.create("default", "https://example.com/hook", ["job.failed"])
    bad = submit([BAD] * 300 + ["a"] * 3000, max_error_share=0.05, on_errors="fail", canary=1)
    fine = submit(["a"] * 300, max_error_share=0.0, on_errors="fail")
    store.supervision.approve(bad.id)
    held = claim(store, chunks=1)
    _save(store, held[0], n_ok=0, n_error=200)
    outcomes = [store.supervision.settle(job_id) for job_id in store.supervision.due()]
    make_shift().run()

    assert outcomes == ["failed"]
    job = bad.refresh()
    assert job.state is JobState.FAILED
    assert "more than the 0.05 that may" in str(job.error)
    assert len(all_results(store, bad.id)) == 200
    (news,) = store.webhooks.deliveries(hook.id)
    assert (news.event, news.subject) == ("job.failed", bad.id)
    check(store, fine.id)
    assert store.check() == []


def test_what_ended_and_was_deleted_meanwhile_is_let_be(submit: Submit, client: Client, store: Store) -> None:
    job = submit(TEXTS[:50], canary=5)
    client.cancel(job.id)
    ended = store.supervision.settle(job.id)
    store.jobs.delete(job.id)

    assert (ended, store.supervision.settle(job.id)) == (None, None)


def test_jobs_without_a_budget_are_not_looked_at(submit: Submit, store: Store, upkeep: Round) -> None:
    submit([BAD] * 200)
    submit(["a"] * 10)

    assert store.supervision.due() == []
    assert rows(store, "SELECT count(*) FROM jobs WHERE canary IS NOT NULL OR errors_after IS NOT NULL")[0][0] == 0


def test_a_job_says_that_it_will_miss_its_deadline_as_soon_as_its_rate_shows_it(
    submit: Submit, client: Client, store: Store
) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=10)
    job = submit(["a"] * 25_600, deadline_at=soon)
    unknown = job.refresh()
    (held,) = claim(store)
    _began(store, 30)
    store.chunks.save([part(held, range(held.seq_lo, held.seq_hi))._replace(done=True)])
    late = job.refresh()
    client.pause(job.id)

    assert (unknown.late, unknown.late_by_s) == (False, None)
    assert late.late
    assert late.eta_at is not None
    assert late.late_by_s == pytest.approx((late.eta_at - soon).total_seconds(), abs=0.001)
    assert late.late_by_s == pytest.approx(99 * 30 - 570, rel=0.2)
    assert not job.refresh().late


def test_a_job_in_time_is_not_late(submit: Submit, store: Store) -> None:
    job = submit(["a"] * 512, deadline_at=datetime.now(UTC) + timedelta(hours=1))
    (held,) = claim(store)
    store.chunks.save([part(held, range(held.seq_lo, held.seq_hi))._replace(done=True)])

    assert job.refresh().eta_at is not None
    assert not job.refresh().late


def test_the_time_a_job_waited_is_no_part_of_its_rate(submit: Submit, client: Client, store: Store) -> None:
    job = submit(["a"] * 2560)
    claim(store)
    _began(store, 7200)
    client.pause(job.id)
    client.resume(job.id)
    (held,) = claim(store)
    store.chunks.save([part(held, range(held.seq_lo, held.seq_hi))._replace(done=True)])

    assert job.refresh().rate.items_per_s > 256 / 10


def test_a_canary_tells_nothing_of_the_rate_of_the_rest(
    submit: Submit, client: Client, store: Store, make_shift: MakeShift, upkeep: Round
) -> None:
    job = submit(TEXTS[:600], canary=10)
    make_shift().run()
    during = job.refresh()
    upkeep()
    approved = client.approve(job.id)
    (held,) = claim(store)
    store.chunks.save([part(held, range(held.seq_lo, held.seq_hi))._replace(done=True)])
    later = job.refresh()

    assert (during.eta_at, approved.eta_at, approved.rate.items_per_s) == (None, None, 0.0)
    assert later.eta_at is not None
    assert later.counts.ok == 10 + held.seq_hi - held.seq_lo


def test_what_past_jobs_took_tells_how_long_the_next_one_takes(
    submit: Submit, store: Store, make_shift: MakeShift
) -> None:
    unknown = store.supervision.expected("classify", "fake", 1000, 1)
    for _ in range(3):
        job = submit(["some words of a text"] * 1000)
        make_shift().run()
        check(store, job.id)
    rows_of = "SELECT started_at, finished_at FROM jobs"
    assert len(rows(store, rows_of)) == 3

    expected = store.supervision.expected("classify", "fake", 10**6, 100)

    assert unknown is None
    assert store.supervision.expected("embed", "fake", 1000, 1) is None
    assert expected is not None
    assert (expected.known_from, expected.jobs) == ("past jobs", 3)
    assert expected.early_s < expected.seconds < expected.late_s


def _save(store: Store, held: Any, *, n_ok: int, n_error: int, at: int = 0) -> None:
    lo = held.seq_lo + at
    results = [ok(lo + seq) for seq in range(n_ok)]
    results += [failed(lo + n_ok + seq) for seq in range(n_error)]
    assert store.chunks.save([Save(held.chunk_id, held.token, results, done=False)])


def _began(store: Store, ago_s: float) -> None:
    """As if all that runs had begun so long ago."""
    moment = datetime.now(UTC) - timedelta(seconds=ago_s)
    text = moment.strftime("%Y-%m-%d %H:%M:%S.%f") + ("+00" if store.dialect == "postgresql" else "")
    store._db.write(lambda connection: connection.exec_driver_sql(f"UPDATE jobs SET started_at = '{text}'"))


def test_the_body_of_a_job_names_its_canary_and_budget(submit: Submit) -> None:
    job = submit(TEXTS[:50], canary=3, go_on=True, max_error_share=0.25)

    told = orjson.loads(job.refresh().model_dump_json())

    assert told["canary"]["state"] == "running"
    assert told["canary"]["go_on"] is True
    assert (told["max_error_share"], told["errors_after"], told["on_errors"]) == (0.25, 100, "pause")

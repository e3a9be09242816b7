"""The life of a job, on both databases."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from sqlalchemy import event, update

from jobs.errors import IdempotencyConflict, InvalidParams, InvalidState, UnknownJob
from jobs.states import Control, JobState
from jobs.store import Store
from jobs.store.clock import later
from jobs.store.tables import blocks
from tests.rows import block, chunk_states, claim, done, loading_job, queued_job, rows, run_dry, spec


def test_a_job_goes_from_loading_to_completed(store: Store) -> None:
    job = loading_job(store, labels={"team": "search"}, keep=("lang",), params={"top_k": 2}, weight=2.5, priority=7)
    store.jobs.append(job.id, [block(0, 12), block(12, 3)])

    queued = store.jobs.seal(job.id)
    run_dry(store)
    final = store.jobs.get(job.id)

    assert (job.state, queued.state, final.state) == (JobState.LOADING, JobState.QUEUED, JobState.COMPLETED)
    assert (queued.counts.total, queued.counts.pending) == (15, 15)
    assert (final.counts.ok, final.counts.pending, final.progress) == (15, 0, 1.0)
    assert (final.labels, final.keep, final.params) == ({"team": "search"}, ("lang",), {"top_k": 2})
    assert (final.weight, final.priority, final.usage.input_tokens, final.usage.output_tokens) == (2.5, 7, 45, 15)
    assert final.created_at <= final.sealed_at <= final.started_at <= final.finished_at  # type: ignore[operator]
    assert final.rate.items_per_s > 0
    assert store.check() == []


def test_times_are_aware_utc_and_of_now(store: Store) -> None:
    job = loading_job(store)

    assert job.created_at.tzinfo is UTC
    assert abs(job.created_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_the_same_idempotency_key_and_request_is_the_same_job(store: Store) -> None:
    first, made = store.jobs.create(spec(idempotency_key="k"), request_hash=b"a")

    again, made_again = store.jobs.create(spec(idempotency_key="k"), request_hash=b"a")
    elsewhere, made_elsewhere = store.jobs.create(spec(idempotency_key="k", tenant="other"), request_hash=b"a")

    assert (made, made_again, made_elsewhere) == (True, False, True)
    assert first.id == again.id != elsewhere.id


def test_an_idempotency_key_of_another_request_is_refused(store: Store) -> None:
    store.jobs.create(spec(idempotency_key="k"), request_hash=b"a")

    with pytest.raises(IdempotencyConflict, match="'k'"):
        store.jobs.create(spec(idempotency_key="k"), request_hash=b"b")


def test_a_job_that_brings_all_its_items_is_queued_at_once(store: Store) -> None:
    whole = [block(0, 7), block(7, 3)]
    wanted = spec(idempotency_key="k")

    job, created = store.jobs.create(wanted, request_hash=b"h", whole=whole)
    same, again = store.jobs.create(wanted, request_hash=b"h", whole=whole)

    assert (created, again, same.id) == (True, False, job.id)
    assert (job.state, job.counts.total, len(chunk_states(store))) == (JobState.QUEUED, 10, 3)
    run_dry(store)
    assert store.jobs.get(job.id).counts.ok == 10
    assert store.check() == []


def test_a_job_that_brings_all_its_items_stands_where_one_that_was_sealed_stands(store: Store) -> None:
    """The turns of its chunks are worked out beforehand; `seal` has the database do it."""
    parts = [block(0, 7), block(7, 3)]
    store.jobs.create(spec(tenant="b"), request_hash=b"h", whole=[block(0, 5)])  # so that shares count

    store.jobs.create(spec(queue="q", weight=2.0), request_hash=b"h", whole=parts)
    sealed = loading_job(store, queue="r", weight=2.0)
    store.jobs.append(sealed.id, parts)
    store.jobs.seal(sealed.id)

    turns = {of: rows(store, "SELECT turn FROM chunks WHERE queue = :of ORDER BY seq_lo", of=of) for of in "qr"}
    places = {of: rows(store, "SELECT turn FROM jobs WHERE queue = :of", of=of)[0][0] for of in "qr"}
    assert turns["q"] == turns["r"]
    assert len(set(turns["q"])) == 3
    assert places["q"] == places["r"] > 0


def test_a_job_that_brings_all_its_items_is_few_statements(store: Store) -> None:
    said: list[str] = []
    event.listen(store._db.engine, "before_cursor_execute", lambda *given: said.append(given[2]))

    store.jobs.create(spec(), request_hash=b"h", whole=[block(0, 7)])

    assert [each.split()[0] for each in said if not each.startswith("BEGIN")] == [
        "SELECT",
        "INSERT",
        "SELECT",
        "INSERT",
        "INSERT",
    ], said


def test_a_job_with_a_canary_is_never_whole_at_once(store: Store) -> None:
    with pytest.raises(ValueError, match="canary"):
        store.jobs.create(spec(canary=2), request_hash=b"h", whole=[block(0, 7)])

    assert store.jobs.list() == []


def test_items_brought_along_must_follow_each_other(store: Store) -> None:
    with pytest.raises(ValueError, match="at item 8 does not follow item 7"):
        store.jobs.create(spec(), request_hash=b"h", whole=[block(0, 7), block(8, 3)])

    assert store.jobs.list() == []


def test_jobs_without_a_key_are_never_the_same(store: Store) -> None:
    first, second = loading_job(store), loading_job(store)

    assert first.id != second.id


def test_a_block_sent_twice_is_there_once(store: Store) -> None:
    job = loading_job(store)
    new = [block(0, 10), block(10, 5)]

    store.jobs.append(job.id, new)
    store.jobs.append(job.id, new)

    assert store.jobs.loaded(job.id) == [(0, 10, new[0].sha256), (10, 5, new[1].sha256)]
    assert chunk_states(store) == ["held"] * 3


def test_another_block_in_the_same_place_is_refused(store: Store) -> None:
    job = loading_job(store)
    store.jobs.append(job.id, [block(0, 10)])

    with pytest.raises(InvalidState, match="another block"):
        store.jobs.append(job.id, [block(0, 9)])


def test_chunks_that_leave_a_gap_in_their_block_are_refused(store: Store) -> None:
    job, whole = loading_job(store), block(0, 10)

    with pytest.raises(ValueError, match="do not meet"):
        store.jobs.append(job.id, [whole._replace(chunks=whole.chunks[1:])])


def test_a_sealed_job_takes_no_more_items_but_a_repeat_is_fine(store: Store) -> None:
    job = queued_job(store, 20)

    store.jobs.append(job.id, [block(0, 20)])

    with pytest.raises(InvalidState, match="no more items"):
        store.jobs.append(job.id, [block(20, 5)])


def test_a_job_with_a_block_missing_cannot_be_sealed(store: Store) -> None:
    job = loading_job(store)
    store.jobs.append(job.id, [block(0, 5), block(10, 5)])

    with pytest.raises(InvalidState, match="item 5"):
        store.jobs.seal(job.id)


def test_sealing_twice_changes_nothing(store: Store) -> None:
    job = queued_job(store)
    claim(store)

    again = store.jobs.seal(job.id)

    assert again.sealed_at == job.sealed_at
    assert chunk_states(store) == ["running", "pending", "pending", "pending"]


def test_a_job_without_items_completes(store: Store) -> None:
    job = loading_job(store)
    store.jobs.seal(job.id)

    assert store.jobs.finishable() == [job.id]
    assert store.jobs.finish(job.id)
    assert store.jobs.get(job.id).progress == 1.0


def test_the_first_claim_starts_a_job(store: Store) -> None:
    job = queued_job(store)

    claim(store)

    started = store.jobs.get(job.id)
    assert started.state == JobState.RUNNING
    assert started.started_at is not None


def test_a_job_with_live_chunks_is_not_finished(store: Store) -> None:
    job = queued_job(store, 10)
    first, _ = claim(store, chunks=2)
    store.chunks.save([done(first)])

    assert store.jobs.finishable() == []
    assert not store.jobs.finish(job.id)
    assert store.jobs.get(job.id).state == JobState.RUNNING


def test_a_job_is_finished_once(store: Store) -> None:
    job = queued_job(store, 5)
    store.chunks.save([done(held) for held in claim(store)])

    assert store.jobs.finishable() == [job.id]
    first, second = store.jobs.finish(job.id), store.jobs.finish(job.id)
    assert first is not None
    assert first.task == "classify"
    assert 0 <= (first.finished_at - first.created_at).total_seconds() < 60
    assert second is None
    assert store.jobs.finishable() == []


@pytest.mark.parametrize("move", ["pause", "resume", "cancel"])
def test_a_completed_job_cannot_be_moved(store: Store, move: str) -> None:
    job = queued_job(store)
    run_dry(store)

    with pytest.raises(InvalidState, match="is completed"):
        getattr(store.jobs, move)(job.id)


def test_pause_holds_what_is_pending_and_resume_lets_it_go(store: Store) -> None:
    job = queued_job(store)
    claim(store)

    paused = store.jobs.pause(job.id)
    states, ready = chunk_states(store), store.chunks.ready("default", 10)
    store.jobs.pause(job.id)
    resumed = store.jobs.resume(job.id)
    store.jobs.resume(job.id)

    assert (paused.control, resumed.control) == (Control.PAUSE, Control.RUN)
    assert (paused.state, ready, claim(store) != []) == (JobState.RUNNING, 0, True)
    assert states == ["running", "held", "held", "held"]


def test_a_job_paused_while_loading_stays_held_when_it_is_sealed(store: Store) -> None:
    job = loading_job(store)
    store.jobs.append(job.id, [block(0, 5)])
    store.jobs.pause(job.id)

    store.jobs.seal(job.id)
    assert claim(store) == []

    store.jobs.resume(job.id)
    assert [held.job_id for held in claim(store)] == [job.id]


def test_resume_of_a_loading_job_lets_nothing_go_before_the_seal(store: Store) -> None:
    job = loading_job(store)
    store.jobs.append(job.id, [block(0, 5)])
    store.jobs.pause(job.id)

    store.jobs.resume(job.id)

    assert chunk_states(store) == ["held"]


def test_a_paused_job_whose_work_is_done_completes(store: Store) -> None:
    job = queued_job(store, 5)
    held = claim(store)
    store.jobs.pause(job.id)
    store.chunks.save([done(held[0])])

    assert store.jobs.finish(job.id)


@pytest.mark.parametrize("phase", ["loading", "queued", "running", "paused"])
def test_cancel_ends_a_job_in_every_phase_and_keeps_its_results(store: Store, phase: str) -> None:
    job = loading_job(store) if phase == "loading" else queued_job(store)
    if phase in ("running", "paused"):
        first, _ = claim(store, chunks=2)
        store.chunks.save([done(first)])
    if phase == "paused":
        store.jobs.pause(job.id)

    cancelled = store.jobs.cancel(job.id)

    assert (cancelled.state, cancelled.control) == (JobState.CANCELLED, Control.CANCEL)
    assert cancelled.counts.ok == (5 if phase in ("running", "paused") else 0)
    assert set(chunk_states(store)) <= {"done", "cancelled"}
    assert store.jobs.cancel(job.id) == cancelled.model_copy(update={"rate": store.jobs.get(job.id).rate})
    assert store.check() == []


def test_a_failed_job_says_why_and_keeps_its_first_reason(store: Store) -> None:
    job = queued_job(store)

    store.jobs.fail(job.id, "the model does not load: \x00 \ud800")
    store.jobs.fail(job.id, "another reason")

    failed = store.jobs.get(job.id)
    assert (failed.state, failed.error) == (JobState.FAILED, "the model does not load: � ?")
    assert set(chunk_states(store)) == {"cancelled"}


def test_a_job_past_its_deadline_expires_and_others_do_not(store: Store) -> None:
    now = datetime.now(UTC)
    late = queued_job(store, deadline_at=now - timedelta(seconds=1))
    early = queued_job(store, deadline_at=now + timedelta(hours=1))
    endless = queued_job(store)

    assert store.jobs.expire_due() == 1

    states = [store.jobs.get(job.id).state for job in (late, early, endless)]
    assert states == [JobState.EXPIRED, JobState.QUEUED, JobState.QUEUED]


def test_only_a_loading_job_whose_items_stopped_coming_is_abandoned(store: Store) -> None:
    stale, fresh, sealed = loading_job(store), loading_job(store), queued_job(store)
    for job in (stale, fresh):
        store.jobs.append(job.id, [block(0, 5)])
    age = update(blocks).where(blocks.c.id == 2).values(created_at=later(-100))
    store._db.write(lambda connection: connection.execute(age))

    assert store.jobs.abandon_stale(60) == 1

    states = [store.jobs.get(job.id).state for job in (stale, fresh, sealed)]
    assert states == [JobState.FAILED, JobState.LOADING, JobState.QUEUED]
    assert "abandoned" in str(store.jobs.get(stale.id).error)


def test_whoever_records_first_what_is_in_force_wins(store: Store) -> None:
    job = queued_job(store)

    store.jobs.record(job.id, {"dtype": "float32"})
    store.jobs.record(job.id, {"dtype": "bfloat16"})

    assert store.jobs.get(job.id).in_force == {"dtype": "float32"}


def test_the_first_forecast_is_kept(store: Store) -> None:
    job = queued_job(store, 10)
    assert store.jobs.forecast() == 0
    store.chunks.save([done(held) for held in claim(store)])

    assert store.jobs.forecast() == 1
    assert store.jobs.forecast() == 0

    running = store.jobs.get(job.id)
    assert running.eta_at is not None
    assert running.first_eta_at is not None


def test_a_job_is_found_by_any_unique_prefix(store: Store) -> None:
    job = loading_job(store)

    for prefix in (job.id, job.id[:20], job.id.removeprefix("job_"), job.id.removeprefix("job_")[:18].upper()):
        assert store.jobs.resolve(prefix) == job.id
    assert store.jobs.get(job.id[:20]).id == job.id


@pytest.mark.parametrize("wrong", ["job_ffff", "job_", "", "' OR 1=1 --", "job_" + "0" * 33, "job_" + "0" * 32])
def test_an_id_that_no_job_has_is_unknown(store: Store, wrong: str) -> None:
    loading_job(store)

    with pytest.raises(UnknownJob):
        store.jobs.get(wrong)
    with pytest.raises(UnknownJob):
        store.jobs.pause(wrong)


def test_a_prefix_of_several_jobs_is_refused_naming_some(store: Store) -> None:
    first, _ = loading_job(store), loading_job(store)

    with pytest.raises(UnknownJob, match=f"several jobs.*{first.id}"):
        store.jobs.get("job_0")


def test_jobs_are_listed_newest_first_by_pages_and_filters(store: Store) -> None:
    made = [loading_job(store, tenant=tenant) for tenant in ("a", "b", "a", "a")]
    store.jobs.cancel(made[0].id)

    page = store.jobs.list(limit=3)
    rest = store.jobs.list(limit=3, before=page[-1].id)

    assert [job.id for job in page + rest] == [job.id for job in reversed(made)]
    assert [job.id for job in store.jobs.list(states=[JobState.CANCELLED])] == [made[0].id]
    assert [job.id for job in store.jobs.list(tenant="b", task="classify")] == [made[1].id]
    assert store.jobs.list(task="summarize") == []


def test_lines_come_back_in_order_as_they_went_in(store: Store) -> None:
    job = loading_job(store)
    store.jobs.append(job.id, [block(low, 3) for low in range(0, 60, 3)])

    lines = list(store.jobs.lines(job.id))

    assert lines == [(seq, orjson.dumps({"text": str(seq)})) for seq in range(60)]


def test_hostile_strings_are_stored_as_they_are(store: Store) -> None:
    hostile = "'; DROP TABLE jobs; -- %s {0} :x \\ 😀"

    job = loading_job(store, tenant=hostile, labels={hostile: hostile}, params={"prompt": hostile + "\x00"})

    found = store.jobs.get(job.id)
    assert (found.tenant, found.labels) == (hostile, {hostile: hostile})
    assert found.params == {"prompt": hostile + "\x00"}


def test_a_value_the_database_cannot_hold_is_the_callers_fault(postgres_url: str) -> None:
    store = Store.open(postgres_url)

    with pytest.raises(InvalidParams):
        loading_job(store, tenant="a\x00b")
    store.close()


def test_the_tables_refuse_a_running_chunk_without_a_lease(store: Store) -> None:
    queued_job(store)

    with pytest.raises(InvalidState, match="refused a row"):
        store._db.write(lambda connection: connection.exec_driver_sql("UPDATE chunks SET state = 'running'"))
    assert {row.state for row in rows(store, "SELECT state FROM chunks")} == {"pending"}


def test_a_loading_job_is_taken_back_as_if_it_had_never_been(store: Store) -> None:
    hook, _ = store.webhooks.create("default", "https://example.com/")
    job = loading_job(store, idempotency_key="k")
    store.jobs.append(job.id, [block(0, 5)])

    for _ in range(2):
        store.jobs.discard(job.id)

    with pytest.raises(UnknownJob):
        store.jobs.get(job.id)
    assert loading_job(store, idempotency_key="k").id != job.id
    assert store.webhooks.deliveries(hook.id) == []


def test_a_job_that_has_its_items_is_not_taken_back(store: Store) -> None:
    job = queued_job(store)

    store.jobs.discard(job.id)

    assert store.jobs.get(job.id).state is JobState.QUEUED

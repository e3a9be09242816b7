"""One shift, from claim to finished job, on both databases."""

import threading
import time
from typing import Any

import orjson
import pytest

from jobs.errors import StoreUnavailable
from jobs.models import Registry
from jobs.states import JobState
from jobs.store import Store
from jobs.store.values import Save
from jobs.tasks.templates import Template
from tests.checker import all_results, check, column, rows
from tests.corpora import model, raw_submit, submit
from tests.rows import ok
from tests.worker.conftest import Exited, MakeShift


def test_a_job_of_several_chunks_is_done_in_one_shift(store: Store, make_shift: MakeShift) -> None:
    job_id = submit(store, 1500)

    tally = make_shift().run()

    job = check(store, job_id)
    assert (tally.items, tally.errors, tally.ran_dry) == (1500, 0, True)
    assert job.in_force is not None
    assert job.in_force["engine"] == "fake"
    assert job.usage.input_tokens == 1500 * 6


@pytest.mark.parametrize("task", ["embed", "summarize", "generate", "translate"])
def test_every_kind_of_request_comes_through(store: Store, make_shift: MakeShift, task: str) -> None:
    main = "prompt" if task == "generate" else "text"
    params = {"target": "de"} if task == "translate" else {}
    job_id = submit(store, [{main: f"words for number {n}"} for n in range(40)], task=task, params=params)

    make_shift().run()

    check(store, job_id)


def test_the_version_of_the_prompt_that_was_asked_with_is_recorded(store: Store, make_shift: MakeShift) -> None:
    fake = Registry(store).get("fake")
    prompts = {"summarize": Template(text="Shorter: {text}", version="7")}
    store.models.put(fake.model_copy(update={"name": "prompted", "prompts": prompts}))
    asked, other = (submit(store, ["a b c"], task=task, model="prompted") for task in ("summarize", "embed"))

    make_shift().run()

    recorded, plain = store.jobs.get(asked).in_force, store.jobs.get(other).in_force
    assert recorded is not None
    assert plain is not None
    assert recorded["prompt_version"] == "7"
    assert "prompt_version" not in plain


def test_one_bad_item_costs_only_itself(store: Store, make_shift: MakeShift) -> None:
    items = [f"good {n}" for n in range(20)]
    items[0], items[7], items[9], items[11] = "   ", "[[raise]] boom", "[[nan]] none", "nul \0 here"
    job_id = submit(store, items, model=model(store))

    make_shift().run()

    errors = {0: "empty_text", 7: "model_error", 9: "model_error", 11: "invalid_text"}
    check(store, job_id, errors=errors)


def test_a_model_that_answers_wrongly_misaligns_nothing(store: Store, make_shift: MakeShift) -> None:
    items = [f"good {n}" for n in range(30)]
    items[4], items[17] = "[[wrong]] type", "[[few]] outcomes"
    job_id = submit(store, items, model=model(store))

    make_shift().run()

    check(store, job_id, errors={4: "model_error", 17: "model_error"})


def test_lines_that_are_no_items_become_their_errors(store: Store, make_shift: MakeShift) -> None:
    deep = b'{"text":' + b"[" * 500 + b"]" * 500 + b"}"
    long = b'{"text":"x","n":' + b"9" * 5000 + b"}"
    lines = [b'{"text":"good"}', b'{"custom_id":"mine","text":7}', b"null", b'{"text":NaN}', b"{", deep, long]
    job_id = raw_submit(store, lines)

    make_shift().run()

    found = all_results(store, job_id)
    assert [result.status for result in found] == ["ok", *["error"] * 6]
    assert {result.error.code for result in found if result.error} == {"invalid_item"}
    assert found[1].custom_id == "mine"


def test_an_items_own_params_and_kept_fields_come_back_with_it(store: Store, make_shift: MakeShift) -> None:
    items = [
        {"text": "one", "custom_id": "a", "params": {"top_k": 1}, "lang": "en"},
        {"text": "two", "custom_id": "ü", "lang": {"deep": [1, None]}},
        {"text": "three", "params": {"top_k": 0}},
    ]
    job_id = submit(store, items, keep=("lang",))

    make_shift().run()

    first, second, third = all_results(store, job_id)
    assert [len(each.output["labels"]) for each in (first, second) if each.output] == [1, 3]
    assert (first.custom_id, first.kept, second.custom_id) == ("a", {"lang": "en"}, "ü")
    assert second.kept == {"lang": {"deep": [1, None]}}
    assert third.custom_id == "2"
    assert third.error is not None
    assert third.error.code == "invalid_item"


def test_a_long_text_is_split_cut_or_refused_as_the_params_say(store: Store, make_shift: MakeShift) -> None:
    long = " ".join(f"word{n}" for n in range(1200))
    job_ids = {how: submit(store, ["short", long], params={"long_text": how}) for how in ("split", "truncate", "error")}

    make_shift().run()

    split, cut, refused = (all_results(store, job_id)[1] for job_id in job_ids.values())
    assert (split.status, split.usage.windows) == ("ok", 3)
    assert split.usage.input_tokens >= 1200
    assert (cut.status, cut.usage.truncated_tokens, cut.usage.input_tokens) == ("ok", 688, 512)
    assert refused.error is not None
    assert refused.error.code == "too_long"
    assert all(all_results(store, job_id)[0].status == "ok" for job_id in job_ids.values())


def test_an_instruction_that_leaves_no_room_is_refused_with_the_numbers(store: Store, make_shift: MakeShift) -> None:
    job_id = submit(store, ["a text"], task="summarize", params={"prompt": "word " * 600 + "{text}"})

    make_shift().run()

    (found,) = all_results(store, job_id)
    assert found.error is not None
    assert found.error.code == "too_long"
    assert found.error.message == (
        "what stands beside the text leaves no room for any of it: 602 tokens; the model takes at most 512"
    )


def test_a_summary_of_a_long_text_takes_a_further_round(store: Store, make_shift: MakeShift) -> None:
    long = " ".join(f"word{n}" for n in range(2000))
    job_id = submit(store, [long, "short text"], task="summarize")

    make_shift().run()

    first, second = all_results(store, job_id)
    assert (first.status, second.status) == ("ok", "ok")
    assert first.usage.windows > 1
    assert first.usage.input_tokens > 2000


def test_items_that_have_a_result_are_skipped_when_a_chunk_is_taken_again(store: Store, make_shift: MakeShift) -> None:
    job_id = submit(store, 50)
    (claim,) = store.chunks.claim(worker_id="gone", queue="default", cost=1, items=1, loaded=[], lease_s=60)
    store.chunks.save([Save(claim.chunk_id, claim.token, [ok(3), ok(9)], False)])
    store.chunks.release({claim.chunk_id: claim.token})

    tally = make_shift().run()

    assert tally.items == 48
    assert [result.seq for result in all_results(store, job_id)] == list(range(50))
    assert store.jobs.get(job_id).state is JobState.COMPLETED


def test_a_model_that_does_not_load_fails_its_jobs_with_its_words(store: Store, make_shift: MakeShift) -> None:
    broken = submit(store, 300, model=model(store, "broken", load_error="no such weights"))
    fine = submit(store, 300)

    make_shift().run()

    assert (store.jobs.get(broken).state, store.jobs.get(broken).error) == (JobState.FAILED, "no such weights")
    check(store, fine)


def test_an_unknown_model_or_an_unserved_task_fails_the_job(store: Store, make_shift: MakeShift) -> None:
    unknown = submit(store, 3, model="nowhere")
    unserved = submit(store, 3, model=model(store, "only-embed", tasks=["embed"]))

    make_shift().run()

    assert "nowhere" in (store.jobs.get(unknown).error or "")
    assert "does not serve 'classify'" in (store.jobs.get(unserved).error or "")
    assert {store.jobs.get(each).state for each in (unknown, unserved)} == {JobState.FAILED}


def test_jobs_of_two_models_are_worked_side_by_side(store: Store, make_shift: MakeShift) -> None:
    other = model(store, "other", delay_s=0.002)
    job_ids = [submit(store, 400, model=name) for name in ("fake", other, "fake", other)]

    make_shift(lookahead_items=256, lookahead_tokens=4096).run()

    for job_id in job_ids:
        check(store, job_id)


def test_many_small_jobs_share_a_few_batches(store: Store, make_shift: MakeShift, residency: object) -> None:
    name = model(store, delay_s=0.02)
    job_ids = [submit(store, 1, model=name) for _ in range(100)]

    make_shift().run()

    for job_id in job_ids:
        check(store, job_id)
    stats = residency.get(name).stats()  # type: ignore[attr-defined]
    assert stats["batches"] <= 15


def test_a_suspect_chunk_runs_with_nothing_else_in_flight(store: Store, make_shift: MakeShift) -> None:
    job_ids = [submit(store, 40, per_chunk=10, model=model(store, delay_s=0.01)) for _ in range(3)]
    store._db.write(lambda connection: connection.exec_driver_sql("UPDATE chunks SET crashes = 1 WHERE seq_lo = 10"))

    make_shift().run()

    for job_id in job_ids:
        check(store, job_id)
    spans = rows(store, "SELECT started_at, finished_at, crashes FROM chunks")
    suspects = [span for span in spans if span[2]]
    assert len(suspects) == 3


def test_a_suspect_is_put_back_however_long_the_database_is_away(
    store: Store, make_shift: MakeShift, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(store, 40, per_chunk=10, model=model(store, delay_s=0.2))
    store._db.write(lambda connection: connection.exec_driver_sql("UPDATE chunks SET crashes = 1 WHERE seq_lo = 10"))
    answers, release = iter([StoreUnavailable("the database is away")] * 2), store.chunks.release
    tries: list[bool] = []

    def shaky(*given: Any, **named: Any) -> dict[int, int]:
        away = next(answers, None)
        tries.append(away is None)
        if away is not None:
            raise away
        return release(*given, **named)

    monkeypatch.setattr(store.chunks, "release", shaky)

    make_shift().run()

    assert tries == [False, False, True]
    check(store, job_id)
    assert sorted(column(store, "SELECT crashes + errors FROM chunks")) == [0, 0, 0, 1]


def test_a_long_chunk_saves_as_it_goes(store: Store, make_shift: MakeShift) -> None:
    job_id = submit(store, 20, model=model(store, delay_s=0.3, max_items=1))
    shift = make_shift()
    running = threading.Thread(target=shift.run)

    running.start()
    _until(lambda: 0 < store.jobs.get(job_id).counts.ok < 20)
    running.join()

    check(store, job_id)


def test_stop_finishes_what_fits_and_gives_the_rest_back_without_blame(store: Store, make_shift: MakeShift) -> None:
    job_id = submit(store, 400, per_chunk=20, model=model(store, delay_s=0.1, max_items=5))
    shift = make_shift()
    running = threading.Thread(target=shift.run)

    running.start()
    _until(lambda: store.jobs.get(job_id).counts.ok > 0)
    shift.stop(0.3)
    running.join(5)

    assert not running.is_alive()
    blame = rows(store, "SELECT sum(crashes), sum(errors), count(lease_until) FROM chunks")[0]
    assert tuple(blame) == (0, 0, 0)
    assert set(column(store, "SELECT state FROM chunks")) == {"done", "pending"}
    make_shift().run()
    check(store, job_id)


def test_cancel_reaches_running_work(store: Store, make_shift: MakeShift) -> None:
    job_id = submit(store, 400, per_chunk=20, model=model(store, delay_s=0.1, max_items=5))
    shift = make_shift(lease_s=1.0)
    running = threading.Thread(target=shift.run)

    running.start()
    _until(lambda: store.jobs.get(job_id).counts.ok > 0)
    store.jobs.cancel(job_id)
    running.join(3)

    assert not running.is_alive()
    job = store.jobs.get(job_id)
    assert job.state is JobState.CANCELLED
    assert 0 < job.counts.ok < 400
    assert store.check() == []


def test_pause_reaches_running_work_and_resume_goes_on(store: Store, make_shift: MakeShift) -> None:
    job_id = submit(store, 200, per_chunk=20, model=model(store, delay_s=0.02, max_items=2))
    shift = make_shift(lease_s=1.0)
    running = threading.Thread(target=shift.run)

    running.start()
    _until(lambda: store.jobs.get(job_id).counts.ok > 0)
    store.jobs.pause(job_id)
    running.join(5)
    paused = store.jobs.get(job_id)
    store.jobs.resume(job_id)
    make_shift().run()

    assert 0 < paused.counts.ok < 200
    check(store, job_id)


def test_a_lost_device_ends_the_process_with_its_code(store: Store, make_shift: MakeShift) -> None:
    submit(store, ["fine", "[[lost]] now"], model=model(store))

    with pytest.raises(Exited) as ended:
        make_shift().run()

    assert ended.value.code == 70


def test_a_chunk_that_fails_five_times_is_done_with_chunk_errors(store: Store, make_shift: MakeShift) -> None:
    job_id = submit(store, 10)
    store._db.write(
        lambda connection: connection.exec_driver_sql("UPDATE blocks SET encoding = 'from the future' WHERE TRUE")
    )
    store._db.write(lambda connection: connection.exec_driver_sql("UPDATE chunks SET errors = 4"))

    make_shift().run()

    found = all_results(store, job_id)
    assert [(result.seq, result.error and result.error.code) for result in found] == [
        (n, "chunk_error") for n in range(10)
    ]
    assert store.jobs.get(job_id).state is JobState.COMPLETED
    assert store.check() == []


def test_output_is_what_the_line_says(store: Store, make_shift: MakeShift) -> None:
    hostile = ["'; DROP TABLE results; --", "مرحبا 👩‍👩‍👧 abc", "\u202e reversed", "x" * 200_000, '"quoted\\"']
    job_id = submit(store, [{"text": text, "custom_id": f"id {n} {text[:20]}"} for n, text in enumerate(hostile)])

    make_shift().run()

    check(store, job_id)
    assert [orjson.loads(line)["custom_id"] for _, line in store.jobs.lines(job_id)] == [
        result.custom_id for result in all_results(store, job_id)
    ]


def _until(true: object, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_chunks_whose_items_cannot_be_read_go_back_whole(
    store: Store, make_shift: MakeShift, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(store, 60, per_chunk=20)
    asked = threading.Event()

    def unavailable(_: object) -> None:
        asked.set()
        raise StoreUnavailable("the database is away")

    shift = make_shift()
    with monkeypatch.context() as patch:
        patch.setattr(store.chunks, "blocks", unavailable)
        running = threading.Thread(target=shift.run)
        running.start()
        asked.wait(10)
        shift.stop(5.0)
        running.join()

    assert column(store, "SELECT state FROM chunks") == ["pending"] * 3
    assert column(store, "SELECT errors + crashes FROM chunks") == [0] * 3
    make_shift().run()
    check(store, job_id)

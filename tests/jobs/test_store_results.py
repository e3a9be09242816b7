"""Results, leaders, workers and models as they are kept, on both databases."""

from array import array

import orjson
import pytest

from jobs.errors import UnknownJob
from jobs.models import ModelSpec
from jobs.schemas import Usage
from jobs.store import Store, results, retries
from jobs.store.encoding import result_line
from jobs.store.values import ResultRow, Save
from jobs.tasks.templates import Template
from tests.rows import block, claim, done, failed, loading_job, ok, queued_job, run_dry


def test_pages_are_in_order_and_filtered(store: Store) -> None:
    job = queued_job(store, 20, per_chunk=20)
    held = claim(store)[0]
    saved = [failed(seq) if seq % 5 == 0 else ok(seq) for seq in range(20)]
    store.chunks.save([Save(held.chunk_id, held.token, saved[10:], False)])
    store.chunks.save([Save(held.chunk_id, held.token, saved[:10], True)])

    first = store.results.page(job.id, limit=8)
    rest = store.results.page(job.id, after=first[-1].seq)

    assert [found.seq for found in first + rest] == list(range(20))
    assert [found.seq for found in store.results.page(job.id, status="error")] == [0, 5, 10, 15]
    assert [found.seq for found in store.results.page(job.id, status="ok", limit=2, after=4)] == [6, 7]
    assert store.results.have(job.id, 3, 6) == {3, 4, 5}


def test_a_result_comes_back_as_it_was_saved(store: Store) -> None:
    job = queued_job(store, 1)
    held = claim(store)[0]
    row = ResultRow(0, "é😀", "ok", '{"summary_text":"\\u0000 ok"}', None, None, None, 7, 8, 9, 2, '{"lang":"ko"}')
    store.chunks.save([Save(held.chunk_id, held.token, [row], True)])

    found = store.results.page(job.id)[0]

    assert store.results.rows(job.id, 0, 1) == [row]
    assert (found.custom_id, found.output, found.kept) == ("é😀", {"summary_text": "\x00 ok"}, {"lang": "ko"})
    assert found.usage == Usage(input_tokens=7, output_tokens=8, truncated_tokens=9, windows=2)


def test_the_vectors_of_tokens_come_back_one_by_one(store: Store) -> None:
    job = queued_job(store, 1)
    held = claim(store)[0]
    vector = array("f", [1, 2, 3, 4, 5, 6]).tobytes()
    row = ok(0, output='{"tokens":3}', vector=vector)
    store.chunks.save([Save(held.chunk_id, held.token, [row], True)])

    found = store.results.page(job.id)[0].output

    assert found == {"tokens": 3, "embedding": [[1, 2], [3, 4], [5, 6]]}
    assert orjson.loads(result_line(store.results.rows_after(job.id)[0]))["output"] == found


def test_an_embedding_is_kept_as_float32(store: Store) -> None:
    job = queued_job(store, 1)
    held = claim(store)[0]
    vector = array("f", [0.5, -1.25, 3.0])
    row = ok(0, output=None, vector=vector.tobytes())
    store.chunks.save([Save(held.chunk_id, held.token, [row], True)])

    assert store.results.page(job.id)[0].output == {"embedding": [0.5, -1.25, 3.0]}
    assert store.results.rows(job.id, 0, 1)[0].vector == vector.tobytes()


def test_retries_are_laid_over_the_first_job(store: Store) -> None:
    first = queued_job(store, 5, per_chunk=5)
    held = claim(store)[0]
    rows = [failed(seq) if seq in (1, 3) else ok(seq) for seq in range(4)]
    store.chunks.save([Save(held.chunk_id, held.token, rows, False)])
    store.jobs.cancel(first.id)
    retry = loading_job(store, retry_of=first.id)
    lines = [b'{"text":"x","custom_id":"%d"}' % seq for seq in (1, 3, 4)]
    store.jobs.append(retry.id, [block(0, 3, lines=lines)])
    store.jobs.seal(retry.id)
    again = claim(store)[0]
    retried = [ok(0, custom_id="1"), failed(1)._replace(custom_id="3"), ok(2, custom_id="4")]
    store.chunks.save([Save(again.chunk_id, again.token, retried, True)])

    by_either = [list(store.retries.latest(job.id)) for job in (first, retry)]

    assert by_either[0] == by_either[1]
    assert [(found.seq, found.custom_id, found.status) for found in by_either[0]] == [
        (0, "0", "ok"),
        (1, "1", "ok"),
        (2, "2", "ok"),
        (3, "3", "error"),
        (4, "4", "ok"),
    ]


@pytest.mark.parametrize(
    ("tries", "outcome"),
    [
        (("error", "ok", "error"), ("ok", 1)),
        (("error", "ok", "ok"), ("ok", 2)),
        (("error", "error", "error"), ("error", 2)),
        (("ok", "error", "error"), ("ok", 0)),
        (("ok", "ok", "error"), ("ok", 1)),
    ],
)
def test_an_ok_result_beats_an_error_and_among_equals_the_newest_counts(
    store: Store, tries: tuple[str, ...], outcome: tuple[str, int]
) -> None:
    first = None
    for number, status in enumerate(tries):
        job = loading_job(store, retry_of=first)
        first = first or job.id
        store.jobs.append(job.id, [block(0, 1, lines=[b'{"text":"x","custom_id":"a"}'])])
        store.jobs.seal(job.id)
        (held,) = claim(store)
        row = ok(0) if status == "ok" else failed(0)
        row = row._replace(custom_id="a", tokens_in=number)
        store.chunks.save([Save(held.chunk_id, held.token, [row], True)])

    (found,) = store.retries.latest(first or "")

    assert (found.status, found.usage.input_tokens) == outcome


def test_retries_in_any_order_are_laid_over_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAGE", 7)
    monkeypatch.setattr(results, "PAGE", 5)
    first = queued_job(store, 60, per_chunk=60)
    held = claim(store)[0]
    store.chunks.save([Save(held.chunk_id, held.token, [failed(seq) for seq in range(0, 60, 2)], False)])
    store.jobs.cancel(first.id)
    again = loading_job(store, retry_of=first.id)
    names = [str(seq) for seq in range(59, 0, -1)]
    lines = [b'{"text":"x","custom_id":"%s"}' % name.encode() for name in names]
    store.jobs.append(again.id, [block(0, 59, per_chunk=59, lines=lines)])
    store.jobs.seal(again.id)
    (held,) = claim(store)
    rows = [
        ok(seq, custom_id=name) if int(name) % 3 else failed(seq)._replace(custom_id=name)
        for seq, name in enumerate(names)
    ]
    store.chunks.save([Save(held.chunk_id, held.token, rows, True)])

    latest = list(store.retries.latest(first.id))
    left = [seq for seq, _ in store.retries.open_lines(first.id)]

    assert [(found.seq, found.custom_id) for found in latest] == [(seq, str(seq)) for seq in range(60)]
    assert [found.seq for found in latest if found.status == "error"] == list(range(0, 60, 3))
    assert left == list(range(0, 60, 3))


def test_a_job_without_retries_is_its_own_latest(store: Store) -> None:
    job = queued_job(store, 12)
    run_dry(store)

    assert [found.seq for found in store.retries.latest(job.id)] == list(range(12))
    with pytest.raises(UnknownJob):
        store.retries.latest("job_" + "0" * 32)


def test_check_names_what_is_wrong(store: Store) -> None:
    job = queued_job(store, 5)
    store.chunks.save([done(held) for held in claim(store)])
    store.jobs.finish(job.id)
    assert store.check() == []

    store._db.write(lambda connection: connection.exec_driver_sql("DELETE FROM results WHERE seq = 2"))

    assert any("5 items, and 4 results" in problem for problem in store.check())


def test_a_role_has_one_holder(store: Store) -> None:
    token = store.leaders.acquire("upkeep", "a", 60)

    assert token is not None
    assert store.leaders.acquire("upkeep", "b", 60) is None
    assert store.leaders.renew("upkeep", token, 60)
    assert not store.leaders.renew("upkeep", "another token", 60)
    assert store.leaders.acquire("another role", "b", 60) is not None


def test_a_role_passes_on_when_released_or_run_out(store: Store) -> None:
    first = store.leaders.acquire("upkeep", "a", 60)
    assert first is not None
    store.leaders.release("upkeep", first)

    second = store.leaders.acquire("upkeep", "b", -1)
    third = store.leaders.acquire("upkeep", "c", 60)

    assert second is not None
    assert third is not None
    assert not store.leaders.renew("upkeep", second, 60)


def test_a_holder_that_restarts_takes_its_role_up_again(store: Store) -> None:
    before = store.leaders.acquire("upkeep", "a", 60)
    after = store.leaders.acquire("upkeep", "a", 60)

    assert after is not None
    assert before is not None
    assert not store.leaders.renew("upkeep", before, 60)


def test_workers_are_live_while_they_report(store: Store) -> None:
    report = {"host": "h", "pid": 1, "boot_id": "b", "device": "cpu", "state": "idle"}
    store.workers.beat("w1", models=[], queues=["default"], **report)  # type: ignore[arg-type]
    store.workers.beat("w2", models=[], queues=["default"], **report)  # type: ignore[arg-type]
    store.workers.beat("w1", models=["m"], queues=["a", "b"], **{**report, "state": "busy"})  # type: ignore[arg-type]

    live = store.workers.live(60)

    assert [(worker.id, worker.models, worker.queues, worker.state) for worker in live] == [
        ("w1", ("m",), ("a", "b"), "busy"),
        ("w2", (), ("default",), "idle"),
    ]
    assert live[0].started_at <= live[0].heartbeat_at
    assert store.workers.prune(60) == 0
    assert store.workers.prune(-1) == 2
    assert store.workers.live(60) == []


def test_a_worker_that_has_ended_is_not_live(store: Store) -> None:
    report = {"host": "h", "pid": 1, "boot_id": "b", "device": "cpu", "models": [], "queues": ["default"]}
    store.workers.beat("w1", **report, state="working")  # type: ignore[arg-type]

    store.workers.beat("w1", **report, state="stopped")  # type: ignore[arg-type]

    assert store.workers.live(60) == []


def test_models_are_put_replaced_and_removed(store: Store) -> None:
    spec = ModelSpec(name="m", path="/models/m", kind="encoder", tasks=("classify",), head="classify")

    store.models.put(spec)
    store.models.put(spec.model_copy(update={"note": "for show", "prompts": {"summarize": Template(text="{text}")}}))
    store.models.put(spec.model_copy(update={"name": "a"}))

    assert [found.name for found in store.models.list()] == ["a", "m"]
    assert store.models.get("m") == spec.model_copy(
        update={"note": "for show", "prompts": {"summarize": Template(text="{text}")}}
    )
    assert store.models.get("none") is None
    assert [store.models.remove("m"), store.models.remove("m")] == [True, False]


def test_the_reason_of_a_worker_s_end_is_kept_unless_it_said_one_itself(store: Store) -> None:
    report = {"host": "h", "boot_id": "b", "device": "cpu", "models": [], "queues": ["default"]}
    for name, pid, state in (("quiet", 1, "working"), ("told", 2, "ended: device lost"), ("well", 3, "stopped")):
        store.workers.beat(name, pid=pid, state=state, **report)

    noted = [store.workers.note_end(host="h", pid=pid, boot_id="b", why="signal 9") for pid in (1, 2, 3, 4)]

    assert noted == [True, False, False, False]
    assert {row.id: row.state for row in store.workers.ended(60)} == {
        "quiet": "ended: signal 9",
        "told": "ended: device lost",
    }
    assert store.workers.live(60) == []

"""Equal items run once, within a job and by the cache across jobs: the same rows as without, on both databases."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs import telemetry
from jobs.models import Registry
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.store import Store
from jobs.store import cache as cache_module
from jobs.store.cache import Cached
from jobs.upkeep import Upkeep
from tests.checker import all_results, check
from tests.corpora import model, submit
from tests.deployment import NOWHERE
from tests.rows import claim, rows
from worker.engines import fake
from worker.residency import Residency

MakeShift = Callable[..., Any]
MIXED = [f"text {n % 7} of the lot" for n in range(1500)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that went through the fake model, in order."""
    seen: list[str] = []
    answers = fake._answers

    def watched(batch: Any) -> Any:
        seen.extend(fake._text(work.encoded.request).strip() for work in batch)
        return answers(batch)

    monkeypatch.setattr(fake, "_answers", watched)
    return seen


def shape(store: Store, job_id: str) -> list[dict[str, Any]]:
    return [result.model_dump() for result in all_results(store, job_id)]


def hits_and_misses() -> tuple[float, float]:
    value = telemetry.REGISTRY.get_sample_value
    return value("textmill_cache_hits_total") or 0.0, value("textmill_cache_misses_total") or 0.0


def test_equal_items_of_a_job_run_once(store: Store, make_shift: MakeShift, run: list[str]) -> None:
    job_id = submit(store, MIXED)

    make_shift(dedup=True).run()

    check(store, job_id)
    assert sorted(run) == sorted(set(MIXED))


def test_without_the_setting_every_item_runs(store: Store, make_shift: MakeShift, run: list[str]) -> None:
    submit(store, MIXED)

    make_shift().run()

    assert len(run) == len(MIXED)


@pytest.mark.parametrize("task", ["classify", "embed", "summarize", "ner"])
@pytest.mark.parametrize("setting", [{"dedup": True}, {"cache_bytes": 10**6}])
def test_rows_are_the_same_with_and_without(
    store: Store, make_shift: MakeShift, task: str, setting: dict[str, Any]
) -> None:
    long = " ".join(f"word{n}" for n in range(1200))
    items: list[Any] = [
        {"text": text, "custom_id": f"{n}-{text}", "lang": n} for n in range(60) for text in ("one", "two words", " ")
    ]
    items += [{"text": long}, {"text": long}, {"text": "one", "params": {"long_text": "truncate"}}, {"text": "n\0l"}]
    plain = submit(store, items, task=task, keep=("lang",))
    make_shift().run()

    once = submit(store, items, task=task, keep=("lang",))
    again = submit(store, items, task=task, keep=("lang",))
    make_shift(**setting).run()

    assert shape(store, once) == shape(store, plain)
    assert shape(store, again) == shape(store, plain)
    assert store.check() == []


def test_without_a_cache_jobs_share_nothing(store: Store, make_shift: MakeShift, run: list[str]) -> None:
    for _ in range(2):
        submit(store, ["same", "same"])

    make_shift(dedup=True).run()

    assert run == ["same", "same"]
    assert rows(store, "SELECT * FROM cache") == []


def test_the_cache_answers_a_later_job_of_another_worker(store: Store, make_shift: MakeShift, run: list[str]) -> None:
    submit(store, ["one", "two"])
    make_shift(cache_bytes=10**6).run()
    before = hits_and_misses()

    later = submit(store, ["two", "three", "one"])
    make_shift(cache_bytes=10**6, worker_id="w2").run()

    check(store, later)
    assert sorted(run) == ["one", "three", "two"]
    hits, misses = (now - then for now, then in zip(hits_and_misses(), before, strict=True))
    assert (hits, misses) == (2, 1)


def test_a_job_that_the_cache_knows_loads_no_model(store: Store, make_shift: MakeShift, residency: Residency) -> None:
    submit(store, ["one"])
    make_shift(cache_bytes=10**6).run()
    residency.close()

    job_id = submit(store, ["one"] * 700)
    make_shift(cache_bytes=10**6).run()

    check(store, job_id)
    assert residency.names() == []


def test_tenants_share_no_outputs(store: Store, make_shift: MakeShift, run: list[str]) -> None:
    for tenant in ("a", "b"):
        submit(store, ["same"], tenant=tenant)
        make_shift(cache_bytes=10**6).run()

    assert run == ["same", "same"]
    assert rows(store, "SELECT tenant FROM cache ORDER BY tenant") == [("a",), ("b",)]


@pytest.mark.parametrize("other", [{"params": {"top_k": 1}}, {"model": "other"}, {"task": "zero_shot"}])
def test_another_question_is_not_answered_from_the_cache(
    store: Store, make_shift: MakeShift, run: list[str], other: dict[str, Any]
) -> None:
    model(store, "other", markers=False)
    submit(store, ["same"])
    make_shift(cache_bytes=10**6).run()
    if "task" in other:
        other = {**other, "params": {"labels": ["a", "b"]}}

    job_id = submit(store, ["same"], **other)
    make_shift(cache_bytes=10**6).run()

    assert len(run) >= 2
    assert all_results(store, job_id)[0].status == "ok"


def test_a_new_revision_of_the_model_is_not_answered_from_the_cache(
    store: Store, make_shift: MakeShift, run: list[str], residency: Residency
) -> None:
    spec = Registry(store).get("fake").model_copy(update={"name": "mine"})
    for revision in ("1", "2"):
        store.models.put(spec.model_copy(update={"revision": revision}))
        residency._specs.clear()
        submit(store, ["same"], model="mine")
        make_shift(cache_bytes=10**6).run()

    assert run == ["same", "same"]


@pytest.mark.parametrize("params", [{"temperature": 0.7}, {"temperature": 0.7, "seed": 3}, {"top_p": 0.5}])
def test_what_is_drawn_by_chance_is_neither_shared_nor_kept(
    store: Store, make_shift: MakeShift, run: list[str], params: dict[str, Any]
) -> None:
    submit(store, [{"prompt": "tell me"}] * 5, task="generate", params=params)

    make_shift(cache_bytes=10**6, dedup=True).run()

    assert len(run) == 5
    assert rows(store, "SELECT * FROM cache") == []


def test_greedy_texts_are_shared(store: Store, make_shift: MakeShift, run: list[str]) -> None:
    for params in ({}, {"temperature": 0.0}):
        submit(store, [{"prompt": "tell me"}] * 5, task="generate", params=params)

    make_shift(cache_bytes=10**6).run()

    assert run == ["tell me", "tell me"]


def test_an_error_is_nobody_elses(store: Store, make_shift: MakeShift, run: list[str]) -> None:
    items = ["[[raise]] boom", "good", "[[raise]] boom", "good", "[[nan]] x", "[[nan]] x"]
    job_id = submit(store, items, model=model(store))

    make_shift(cache_bytes=10**6).run()

    check(store, job_id, errors=dict.fromkeys((0, 2, 4, 5), "model_error"))
    assert len(rows(store, "SELECT * FROM cache")) == 1


def test_a_chunk_that_is_lost_lets_nobody_wait_for_it(
    store: Store, make_shift: MakeShift, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submit(store, ["slow one", "slow two"], model=model(store, delay_s=0.3))
    second = submit(store, ["slow two", "slow one"], model="marked")
    shift = make_shift(cache_bytes=10**6)
    settle = type(shift._once).attach

    def attach(once: Any, held: Any) -> None:
        settle(once, held)
        for other in once._asked.values():
            if other:
                shift._in_hand.drop(next(each for each in shift._in_hand.all() if each.leads))
                break

    monkeypatch.setattr(type(shift._once), "attach", attach)
    shift.run()

    jobs = {job_id: store.jobs.get(job_id) for job_id in (first, second)}
    assert sorted(job.counts.ok for job in jobs.values()) == [0, 2]


def test_a_chunk_taken_up_after_a_crash_is_whole(store: Store, make_shift: MakeShift) -> None:
    job_id = submit(store, MIXED, per_chunk=100)
    held = claim(store, chunks=2)
    store.chunks.release({each.chunk_id: each.token for each in held})

    make_shift(dedup=True).run()

    check(store, job_id)


def entry(size: int = 100) -> Cached:
    return Cached("x" * size, None, 1, 1, 0, 1)


def test_upkeep_takes_away_what_was_used_least_lately(
    store: Store, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "TOUCHED_S", 0.0)
    names = [bytes([n]) * 16 for n in range(10)]
    for name in names:
        store.cache.put("t", {name: entry()})
    rows_of = store.cache.size() // 10
    _age(store)
    store.cache.get("t", names[:3])

    upkeep = _upkeep(store, settings(redis_url=NOWHERE, cache_bytes=4 * rows_of))
    done = upkeep.round()
    left = store.cache.get("t", names)

    assert done["evicted"] == 6 * rows_of
    assert set(left) >= set(names[:3])
    assert len(left) == 4


def test_without_a_cache_upkeep_empties_it_in_pieces(
    store: Store, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "ROWS_AT_ONCE", 3)
    store.cache.put("t", {bytes([n]) * 16: entry() for n in range(40)})
    upkeep = _upkeep(store, settings(redis_url=NOWHERE))

    left = []
    for _ in range(3):
        upkeep.round()
        left.append(len(rows(store, "SELECT * FROM cache")))

    assert left == [16, 0, 0]


def test_an_output_that_is_there_is_left_alone(store: Store) -> None:
    store.cache.put("t", {b"1" * 16: entry()})

    store.cache.put("t", {b"1" * 16: entry(5), b"2" * 16: entry(7)})

    found = store.cache.get("t", [b"1" * 16, b"2" * 16, b"3" * 16])
    assert {name: len(each.output or "") for name, each in found.items()} == {b"1" * 16: 100, b"2" * 16: 7}


def _upkeep(store: Store, settings: Settings) -> Upkeep:
    return Upkeep(store, Queue(settings), settings, "one")


def _age(store: Store) -> None:
    """As if all had been used an hour ago."""
    from sqlalchemy import update

    from jobs.store.clock import later
    from jobs.store.tables import cache

    store._db.write(lambda connection: connection.execute(update(cache).values(used_at=later(-3600))))

"""Incremental jobs: what was done under a name is left out, on both databases, with real shifts between the submits."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs.client import Client
from jobs.errors import InvalidParams, NothingNew
from jobs.handle import JobHandle
from jobs.models import Registry
from jobs.settings import Settings
from jobs.states import JobState
from jobs.store import Store
from jobs.store.jobs import Jobs
from tests.checker import all_results
from tests.corpora import model
from tests.deployment import NOWHERE
from tests.rows import done, rows
from tests.worker.conftest import MakeShift

Submit = Callable[..., JobHandle]


@pytest.fixture
def client(store: Store, settings: Callable[..., Settings]) -> Iterator[Client]:
    with Client(settings(redis_url=NOWHERE), store=store) as opened:
        yield opened


@pytest.fixture
def submit(client: Client) -> Submit:
    """Submits to the corpus `news`; keyword arguments are those of the client."""

    def make(items: list[Any], **given: Any) -> JobHandle:
        return client.submit("classify", items, **{"model": "fake", "incremental": "news", **given})

    return make


def named(*names: str, text: str = "a text") -> list[dict[str, Any]]:
    return [{"custom_id": name, "text": text} for name in names]


def ids_of(store: Store, handle: JobHandle) -> list[str]:
    return [result.custom_id for result in all_results(store, handle.id)]


def test_only_new_and_changed_items_are_run_again(store: Store, submit: Submit, make_shift: MakeShift) -> None:
    submit(named("a", "b", "c"))
    make_shift().run()

    second = submit([*named("a", "c"), *named("b", text="another text"), *named("d")])
    make_shift().run()

    assert ids_of(store, second) == ["b", "d"]
    assert second.loaded is not None
    assert (second.loaded.n_items, second.loaded.unchanged, second.loaded.vanished) == (2, 2, 0)
    assert store.check() == []


def test_with_nothing_new_there_is_no_job(store: Store, client: Client, submit: Submit, make_shift: MakeShift) -> None:
    items = [*named("a", "b"), *({"custom_id": f"{n}", "text": f"text {n}"} for n in range(3000))]
    submit(items)
    make_shift().run()

    with pytest.raises(NothingNew) as nothing:
        submit(items[1:])

    assert (nothing.value.unchanged, nothing.value.vanished) == (3001, 1)
    assert len(client.list()) == 1


def test_only_an_ok_result_counts_as_seen(store: Store, submit: Submit, make_shift: MakeShift) -> None:
    submit([{"custom_id": "good", "text": "fine"}, {"custom_id": "bad", "text": "  "}])
    make_shift().run()
    cancelled = submit([*named("good", text="fine"), *named("bad", text="mended"), *named("more")])
    cancelled.cancel()

    again = submit([*named("good", text="fine"), *named("bad", text="mended"), *named("more")])
    make_shift().run()

    assert ids_of(store, again) == ["bad", "more"]


def test_what_was_changed_back_is_run_again_since_its_last_result_is_another(
    store: Store, submit: Submit, make_shift: MakeShift
) -> None:
    for text in ("one", "two"):
        submit(named("a", text=text))
        make_shift().run()

    back = submit(named("a", text="one"))

    assert back.loaded is not None
    assert back.loaded.n_items == 1


def test_items_without_an_id_are_known_by_their_text_and_called_by_their_place(
    store: Store, submit: Submit, make_shift: MakeShift
) -> None:
    submit(["one", "two", "two"])
    make_shift().run()

    second = submit(["zero", "two", "one", "three"])
    make_shift().run()

    assert ids_of(store, second) == ["0", "3"]


@pytest.mark.parametrize("change", [{"params": {"top_k": 1}}, {"model": "other"}, {"tenant": "else"}])
def test_another_param_model_or_tenant_makes_all_items_new(
    store: Store, submit: Submit, make_shift: MakeShift, change: dict[str, Any]
) -> None:
    model(store, "other")
    submit(named("a", "b"))
    make_shift().run()

    second = submit(named("a", "b"), **change)

    assert second.job.counts.total == 2


def test_a_param_that_says_the_default_or_another_priority_makes_nothing_new(
    store: Store, submit: Submit, make_shift: MakeShift
) -> None:
    submit([{"custom_id": "a", "text": "x", "lang": "en"}])
    make_shift().run()

    with pytest.raises(NothingNew):
        submit([{"lang": "de", "text": "x", "custom_id": "a"}], params={"top_k": None}, priority=3, keep=["lang"])


def test_a_new_revision_of_the_model_makes_all_items_new_and_none_vanish(
    store: Store, submit: Submit, make_shift: MakeShift
) -> None:
    spec = Registry(store).get("fake").model_copy(update={"name": "mine", "revision": "1"})
    store.models.put(spec)
    submit(["one", "two"], model="mine")
    make_shift().run()
    store.models.put(spec.model_copy(update={"revision": "2"}))

    second = submit(["one", "two"], model="mine")

    assert second.loaded is not None
    assert (second.loaded.n_items, second.loaded.vanished) == (2, 0)


def test_an_items_own_params_are_part_of_what_it_was_asked(store: Store, submit: Submit, make_shift: MakeShift) -> None:
    submit([{"custom_id": each, "text": "x", "params": {"top_k": 2}} for each in "ab"])
    make_shift().run()

    second = submit([{"custom_id": each, "text": "x", "params": {"top_k": top}} for each, top in (("a", 2), ("b", 1))])

    assert [line for _, line in store.jobs.lines(second.id)] == [b'{"custom_id":"b","text":"x","params":{"top_k":1}}']


def test_what_vanished_is_listed_until_it_is_back(store: Store, submit: Submit, make_shift: MakeShift) -> None:
    first = submit([*named("a", "b"), "nameless text"])
    make_shift().run()

    submit(named("b", "c"))
    gone = list(store.seen.vanished("default", "news"))
    make_shift().run()
    with pytest.raises(NothingNew):
        submit([*named("a", "b", "c"), "nameless text"])

    assert [(each.custom_id, each.job_id, each.seq) for each in gone] == [("a", first.id, 0), (None, first.id, 2)]
    assert list(store.seen.vanished("default", "news")) == []
    assert store.seen.tally("default", "news") == (4, 4, 0)


def test_a_worker_that_dies_after_the_last_save_leaves_its_items_seen(
    store: Store, submit: Submit, make_shift: MakeShift
) -> None:
    job = submit(named("a", "b"))
    (claim,) = store.chunks.claim(worker_id="gone", queue="default", cost=9, items=9, loaded=[], lease_s=60)
    store.chunks.save([done(claim)])
    assert job.refresh().state is JobState.RUNNING

    second = submit(named("a", "b", "c"))

    assert [line for _, line in store.jobs.lines(second.id)] == [b'{"custom_id":"c","text":"a text"}']


def test_items_of_a_deleted_job_stay_seen(store: Store, submit: Submit, make_shift: MakeShift) -> None:
    job = submit([*named("a", "b"), *named("bad", text=" ")])
    make_shift().run()
    store.jobs.delete(job.id)
    while store.retention.sweep():
        pass

    second = submit([*named("a", "c"), *named("bad", text=" ")])

    assert rows(store, "SELECT count(*) FROM results")[0][0] == 0
    assert second.job.counts.total == 2
    assert [each.custom_id for each in store.seen.vanished("default", "news")] == ["b"]


def test_a_submit_that_breaks_off_and_is_repeated_makes_one_whole_job(
    store: Store, submit: Submit, make_shift: MakeShift, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = named(*(f"{n}" for n in range(2500)))

    def breaks(*_: object) -> None:
        raise OSError("pulled the plug")

    with monkeypatch.context() as broken:
        broken.setattr(Jobs, "seal", breaks)
        with pytest.raises(OSError):
            submit(items, idempotency_key="today")
    whole = submit(items, idempotency_key="today")
    make_shift().run()

    assert ids_of(store, whole) == [f"{n}" for n in range(2500)]
    assert store.seen.tally("default", "news") == (2500, 2500, 0)


def test_a_refused_line_marks_nothing_as_vanished(store: Store, submit: Submit, make_shift: MakeShift) -> None:
    submit(named("a", "b"))
    make_shift().run()

    with pytest.raises(Exception, match="missing"):
        submit([{"custom_id": "c"}])

    assert list(store.seen.vanished("default", "news")) == []


def test_a_forgotten_corpus_is_new_again(store: Store, submit: Submit, make_shift: MakeShift) -> None:
    submit(named("a", "b"))
    make_shift().run()

    forgotten = store.seen.forget("default", "news")

    assert forgotten == 2
    assert submit(named("a", "b")).job.counts.total == 2


@pytest.mark.parametrize("name", ["", "x" * 257, "a\0b"])
def test_a_name_that_cannot_be_stored_is_refused(submit: Submit, name: str) -> None:
    with pytest.raises(InvalidParams, match="1 to 256 characters"):
        submit(["a"], incremental=name)

"""The results of a job as the items of the next one."""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from jobs.chaining import results
from jobs.cli.inputs import open_inputs
from jobs.client import Client
from jobs.corpus import Fields
from jobs.errors import InvalidInput, InvalidState, UnknownJob
from jobs.handle import JobHandle
from jobs.settings import Settings
from jobs.store.encoding import parse_block
from jobs.store.values import ResultRow, Save
from jobs.tasks import all_tasks, find
from tests.corpora import model

MakeSettings = Callable[..., Settings]
OUTPUTS: dict[str, Callable[[str], Any]] = {
    "summarize": lambda text: {"summary_text": text.upper(), "finish_reason": "stop"},
    "translate": lambda text: {"translation_text": text[::-1], "source": "fi", "finish_reason": "stop"},
    "generate": lambda text: {"generations": [{"generated_text": f"{text}!", "finish_reason": "stop"}] * 2},
    "qa": lambda text: {"answers": [] if text == "none" else [{"answer": text, "score": 0.5, "start": 0, "end": 1}]},
    "classify": lambda text: {"labels": [{"label": f"is {text}", "score": 1.0}]},
}


@pytest.fixture
def chosen(settings: MakeSettings, store_url: str) -> Settings:
    return settings(database_url=store_url)


@pytest.fixture
def client(chosen: Settings) -> Iterator[Client]:
    with Client(chosen) as opened:
        model(opened._store)
        yield opened


def worked(client: Client, handle: JobHandle) -> JobHandle:
    """Answer all items; those that say `fail` fail."""
    store, task = client._store, find(handle.job.task)
    while claims := store.chunks.claim(worker_id="w", queue="default", cost=10**6, items=1000, loaded=()):
        for claim in claims:
            encoding, data = store.chunks.blocks([claim.block_id])[claim.block_id]
            lines = [orjson.loads(line) for line in parse_block(encoding, data)][claim.seq_lo - claim.block_lo :]
            rows = [_row(seq, lines[seq - claim.seq_lo], task) for seq in range(claim.seq_lo, claim.seq_hi)]
            store.chunks.save([Save(claim.chunk_id, claim.token, rows, True)])
    for job_id in store.jobs.finishable():
        store.jobs.finish(job_id)
    return handle


def _row(seq: int, item: dict[str, Any], task: Any) -> ResultRow:
    name, text = item.get("custom_id") or str(seq), item[task.main_field]
    if text == "fail":
        return ResultRow(seq, name, "error", None, None, "model_error", "failed", 1, 0, 0, 1, None)
    output = orjson.dumps(OUTPUTS[task.name](text)).decode()
    kept = orjson.dumps({"title": f"title {seq}", "context": "of it"}).decode()
    return ResultRow(seq, name, "ok", output, None, None, None, 1, 0, 0, 1, kept)


def read(client: Client, handle: JobHandle, **named: Any) -> list[Any]:
    """The items, or the codes of what is wrong with them."""
    fields = Fields(**named)
    form, place = results(client._store, f"job:{handle.id}", fields).input
    return [
        orjson.loads(line) if isinstance(line, bytes) else line.code for _, line in form.read(place, fields, 10_000)
    ]


def test_translations_are_summarized_and_answered_under_the_ids_they_had(client: Client) -> None:
    first = worked(client, client.submit("translate", [{"custom_id": "a", "text": "yksi"}, "kaksi"], model="marked",
                                         params={"source": "fi", "target": "en"}))  # fmt: skip

    second = worked(client, client.submit("summarize", first, model="marked", labels={"by": "me"}))
    third = client.submit("embed", second, model="marked")

    assert [(each.custom_id, each.output) for each in second.results()] == [
        ("a", {"summary_text": "ISKY", "finish_reason": "stop"}),
        ("1", {"summary_text": "ISKAK", "finish_reason": "stop"}),
    ]
    assert second.job.labels == {"from_job": first.id, "by": "me"}
    assert third.job.labels == {"from_job": second.id}
    assert third.job.counts.total == 2


@pytest.mark.parametrize(
    ("task", "item", "text"),
    [("generate", {"prompt": "so"}, "so!"), ("qa", {"question": "who", "context": "me"}, "who")],
)
def test_a_task_says_what_text_its_output_is(client: Client, task: str, item: dict[str, str], text: str) -> None:
    handle = worked(client, client.submit(task, [item], model="marked"))

    assert read(client, handle) == [{"custom_id": "0", "text": text, "title": "title 0", "context": "of it"}]


def test_an_output_that_holds_no_text_is_a_problem_of_its_own(client: Client) -> None:
    asked = [{"question": each, "context": "x"} for each in ("none", "some")]
    handle = worked(client, client.submit("qa", asked, model="marked"))

    assert read(client, handle)[0] == "missing_field"
    assert read(client, handle)[1]["text"] == "some"


def test_outputs_that_are_no_texts_are_refused_unless_a_field_is_named(client: Client) -> None:
    handle = worked(client, client.submit("classify", ["good"], model="marked"))

    with pytest.raises(InvalidInput, match=r"a result of classify is no text; name one with --text-field.*: labels"):
        read(client, handle)
    assert read(client, handle, text="output.labels.0.label", id="kept.title") == [
        {"custom_id": "title 0", "text": "is good", "title": "title 0", "context": "of it"}
    ]
    assert read(client, handle, text="output.labels.1.label") == ["missing_field"]
    assert read(client, handle, text="kept.title", id="kept.nothing") == ["missing_field"]


def test_failed_items_are_left_out_which_is_said(client: Client, chosen: Settings) -> None:
    handle = worked(client, client.submit("summarize", ["one", "fail", "three"], model="marked"))
    said: list[str] = []

    with open_inputs([f"job:{handle.id[:13]}"], chosen, Fields(), say=said.append) as source:
        found = [orjson.loads(line)["text"] for _, line in source]  # type: ignore[arg-type]
        assert source.labels == {"from_job": handle.id}
        assert source.fingerprint() is not None

    assert found == ["ONE", "THREE"]
    assert said == [f"job:{handle.id}: 1 of 3 items have no ok result and are left out"]


def test_retries_count_with_the_job(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = worked(client, client.submit("summarize", ["one", "fail"], model="marked"))
    retry = client.retry(handle.id)

    with pytest.raises(InvalidState, match=rf"job:{retry.id} is queued; wait for its end: textmill watch"):
        read(client, handle)
    client.cancel(retry.id)

    assert [each["text"] for each in read(client, handle)] == ["ONE"]


def test_a_job_that_runs_and_one_that_is_none_are_refused(client: Client) -> None:
    handle = client.submit("summarize", ["one"], model="marked")

    with pytest.raises(InvalidState, match="is queued"):
        client.submit("summarize", handle, model="marked")
    with pytest.raises(UnknownJob):
        results(client._store, "job:0000", Fields())


def test_every_text_is_a_field_of_its_task_s_output() -> None:
    assert {task.name for task in all_tasks() if task.text is not None} == {"summarize", "translate", "generate", "qa"}
    for name, output in OUTPUTS.items():
        assert find(name).output.model_validate(output("x"), strict=False)

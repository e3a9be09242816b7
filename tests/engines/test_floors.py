"""Floors under quality: real models on the texts of `examples/`, so that a bug in batching, windows or prompts shows as
lost accuracy. The floors are a little below what was measured; batches of one text give the same answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.client import Client
from jobs.models import Registry
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.store import Store
from tests.worker.conftest import CPU, MakeShift, leave, make_shift
from worker.demo import DEMO
from worker.fetch import fetch
from worker.meter import Meter
from worker.note import Note
from worker.residency import Residency
from worker.shift import Shift
from worker.watchdog import Watchdog

__all__ = ["MakeShift", "make_shift"]

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("store_url", ["sqlite"], indirect=True),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOMY, ALONE = 4096, 16
"""Most tokens of a batch: many texts, or one."""

Run = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo's models lie, fetched by their packages' names."""
    made = tmp_path_factory.mktemp("floors")
    assert len([*fetch(DEMO, made)]) == len(DEMO)
    return made


@pytest.fixture
def run(home: Path, store: Store, settings: Callable[..., Settings]) -> Run:
    """Runs a job on a real model; its outputs in the order of the items."""
    for spec in fetch(DEMO, home):  # there already
        Registry(store).add(spec)

    def go(task: str, items: list[Any], model: str, *, batch_tokens: int = ROOMY, **params: Any) -> list[Any]:
        made = settings(
            home=home, redis_url="redis://127.0.0.1:1/0", max_batch_tokens=batch_tokens, lease_s=600, shift_s=600
        )
        job = Client(made, store=store, queue=Queue(made)).submit(task, items, model=model, params=params)
        residency = Residency(made, CPU._replace(memory_bytes=2**33, threads=2), Registry(store).get)
        try:
            Shift(
                store=store,
                settings=made,
                residency=residency,
                watchdog=Watchdog(lambda reason: None, leave),
                meter=Meter(),
                note=Note(None, "w"),
                worker_id="w",
                queues=("default",),
            ).run()
        finally:
            residency.close()
        results = list(job.results())
        assert [result.status for result in results] == ["ok"] * len(items)
        return [result.output for result in results]

    return go


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()]


def text(output: Any) -> str:
    written: str = output["generations"][0]["generated_text"]
    return written


def accuracy(outputs: list[Any], gold: list[str]) -> float:
    return sum(each["labels"][0]["label"] == right for each, right in zip(outputs, gold, strict=True)) / len(gold)


def test_reviews_are_sorted_by_topic(run: Run) -> None:
    reviews = rows("reviews.jsonl")
    gold = [each["topic"] for each in reviews]
    texts = [{"text": each["text"]} for each in reviews]
    found = run("classify", texts, "minilm-l6", labels=sorted(set(gold)))
    alone = run("classify", texts, "minilm-l6", labels=sorted(set(gold)), batch_tokens=ALONE)
    assert accuracy(found, gold) >= 0.74
    assert [each["labels"][0]["label"] for each in found] == [each["labels"][0]["label"] for each in alone]


def test_notes_are_nearest_to_notes_of_their_group(run: Run) -> None:
    import numpy

    notes = rows("notes.jsonl")
    vectors = numpy.array(
        [each["embedding"] for each in run("embed", [{"text": n["text"]} for n in notes], "minilm-l6")]
    )
    vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    scores = vectors @ vectors.T
    numpy.fill_diagonal(scores, -1)
    groups = [each["group"] for each in notes]
    share = sum(groups[near] == groups[at] for at, near in enumerate(scores.argmax(1))) / len(notes)
    assert share >= 0.55  # one of eight by chance


def test_a_long_text_in_windows_is_found_by_any_of_its_parts(run: Run) -> None:
    """Each article, embedded whole (many windows, pooled), is nearest to a paragraph out of its own middle."""
    import numpy

    articles = [path.read_text(encoding="utf-8") for path in sorted((EXAMPLES / "articles").glob("*.txt"))]
    parts = []
    for article in articles:
        paragraphs = [each for each in article.split("\n\n") if len(each) > 200]
        parts.append(paragraphs[len(paragraphs) // 2])
    whole = run("embed", [{"text": text} for text in articles], "minilm-l6", long_text="split")
    part = run("embed", [{"text": text} for text in parts], "minilm-l6")
    first, second = (numpy.array([each["embedding"] for each in found]) for found in (whole, part))
    scores = (second / numpy.linalg.norm(second, axis=1, keepdims=True)) @ first.T
    share = float((scores.argmax(1) == numpy.arange(len(articles))).mean())
    assert share >= 0.95


def test_a_chat_model_puts_praise_above_complaint(run: Run) -> None:
    """How often praise scores higher for "positive" than a complaint does (0.5: by chance). The small model calls most
    texts positive, so that its labels say little."""
    reviews = [each for each in rows("reviews.jsonl") if each["sentiment"] != "neutral"][:60]
    gold = [each["sentiment"] for each in reviews]
    texts = [{"text": each["text"]} for each in reviews]

    def positive(**more: Any) -> list[float]:
        found = run("classify", texts, "smollm2-135m-instruct", labels=["positive", "negative"], **more)
        return [next(each["score"] for each in one["labels"] if each["label"] == "positive") for one in found]

    scores = positive()
    pairs = [(a, b) for a, x in zip(scores, gold, strict=True) for b, y in zip(scores, gold, strict=True) if x > y]
    share = sum(a > b for a, b in pairs) / len(pairs)
    assert share >= 0.6
    assert positive(batch_tokens=ALONE) == pytest.approx(scores, abs=1e-4)


def test_a_chat_model_knows_a_few_things(run: Run) -> None:
    asked = {
        "What is the capital of France? Answer in one sentence.": "Paris",
        "What is the capital of Italy? Answer in one sentence.": "Rome",
        "What is the capital of Japan? Answer in one sentence.": "Tokyo",
        "What is the capital of Spain? Answer in one sentence.": "Madrid",
        "Which planet do we live on? Answer in one sentence.": "Earth",
    }
    chats = [{"messages": [{"role": "user", "content": text}]} for text in asked]
    found = run("generate", chats, "smollm2-135m-instruct", max_new_tokens=24, temperature=0)
    alone = run("generate", chats, "smollm2-135m-instruct", max_new_tokens=24, temperature=0, batch_tokens=ALONE)
    right = sum(word in text(each) for word, each in zip(asked.values(), found, strict=True))
    assert right >= 4
    assert [text(each) for each in found] == [text(each) for each in alone]

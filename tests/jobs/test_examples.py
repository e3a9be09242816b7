"""The example texts: enough of them, whole, all different, and accepted by the tasks they are for."""

import csv
import json
import runpy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.tasks import find, task_adapter

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARED = 8
"""Two texts with so many words in a row in common count as one text written twice."""


def _jsonl(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()]


def _sentences() -> list[dict[str, Any]]:
    with (EXAMPLES / "sentences_en.csv").open(encoding="utf-8", newline="") as stream:
        return [{**row, "custom_id": row["id"]} for row in csv.DictReader(stream)]


def _articles() -> list[dict[str, Any]]:
    paths = sorted((EXAMPLES / "articles").glob("*.txt"))
    return [{"custom_id": path.name, "text": path.read_text(encoding="utf-8")} for path in paths]


SETS: dict[str, tuple[Callable[[], list[dict[str, Any]]], str, int]] = {
    "reviews": (lambda: _jsonl("reviews.jsonl"), "classify", 150),
    "articles": (_articles, "summarize", 24),
    "sentences": (_sentences, "translate", 80),
    "questions": (lambda: _jsonl("questions.jsonl"), "generate", 46),
    "notes": (lambda: _jsonl("notes.jsonl"), "embed", 60),
}


def _text(item: dict[str, Any]) -> str:
    return str(item.get("text") or item.get("prompt") or item["messages"][-1]["content"])


def _all_texts() -> Iterator[tuple[str, str]]:
    for name, (read, _, _) in SETS.items():
        for item in read():
            yield f"{name}/{item['custom_id']}", _text(item)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return {tuple(words[at : at + SHARED]) for at in range(len(words) - SHARED + 1)}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_complete_and_its_ids_are_unique(name: str) -> None:
    read, _, expected = SETS[name]

    items = read()

    assert len(items) == expected
    assert len({item["custom_id"] for item in items}) == expected


@pytest.mark.parametrize("name", SETS)
def test_the_task_accepts_every_item(name: str) -> None:
    read, task, expected = SETS[name]

    accepted = task_adapter(find(task)).validate_python(read())

    assert len(accepted) == expected


def test_no_two_texts_are_nearly_the_same() -> None:
    owners: dict[tuple[str, ...], set[str]] = defaultdict(set)

    for owner, text in _all_texts():
        for run in _runs(text):
            owners[run].add(owner)

    assert [(" ".join(run), texts) for run, texts in owners.items() if len(texts) > 1] == []


def test_no_text_is_there_twice_or_blank() -> None:
    counted = Counter(" ".join(text.lower().split()) for _, text in _all_texts())

    repeated = [text for text, times in counted.items() if times > 1 or not text]

    assert repeated == []


def test_articles_are_long_enough_to_be_worth_a_summary() -> None:
    lengths = {item["custom_id"]: len(item["text"].split()) for item in _articles()}

    wrong = {name: words for name, words in lengths.items() if not 250 <= words <= 700}

    assert wrong == {}


def test_every_review_carries_the_labels_it_is_judged_by() -> None:
    reviews = _jsonl("reviews.jsonl")

    topics, moods = (Counter(review[key] for review in reviews) for key in ("topic", "sentiment"))

    assert len(topics) == 8
    assert min(topics.values()) >= 15
    assert set(moods) == {"positive", "negative", "neutral"}


def test_every_sentence_has_a_reference_of_its_own() -> None:
    rows = _sentences()

    references = {row["reference_de"] for row in rows if row["reference_de"] != row["text"]}

    assert len(references) == len(rows)


def test_the_demo_says_how_many_of_its_texts_were_cut(capsys: pytest.CaptureFixture[str]) -> None:
    say_cut = runpy.run_path(str(EXAMPLES / "demo.py"))["_say_cut"]
    reasons = ["length", "stop", "length"]

    say_cut([{"output": {"summary_text": "a", "finish_reason": reason}} for reason in reasons])
    say_cut([{"output": {"generations": [{"generated_text": "a", "finish_reason": reason}]}} for reason in reasons[:2]])
    say_cut([{"output": {"translation_text": "a", "finish_reason": "stop"}}])

    told = " ".join(capsys.readouterr().out.split())
    assert "2 of 3 ended at the limit of tokens" in told
    assert "1 of 2 ended at the limit of tokens" in told
    assert told.count("ended at") == 2


def test_the_readme_names_every_file() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")

    missing = [path.name for path in EXAMPLES.iterdir() if path.name not in readme and path.name != "README.md"]

    assert [name for name in missing if not name.startswith((".", "__"))] == []
    assert "CC0" in readme

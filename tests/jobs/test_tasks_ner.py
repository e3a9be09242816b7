"""ner: tokens made entities, in each strategy, and across windows."""

import json
import math
import re
from array import array
from typing import Any

import pytest

from jobs import tasks
from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.tasks.base import Generate, Generated, Known, Labelled, LabelTokens, Request, Sample
from tests.jobs.task_runs import Codec, run

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TEXT = "Ada Lovelace met Mary in London"
WORDS = [match.span() for match in re.finditer(r"\S+", TEXT)]


def labelled(shares: list[dict[str, float]], spans: list[tuple[int, int]], inside: list[bool] | None = None) -> Any:
    """A model that gives tokens these probabilities; what is left goes to `O`."""
    numbers = array("f")
    for each in shares:
        rest = 1 - sum(each.values())
        numbers.extend(math.log(max(each.get(label, rest if label == "O" else 0.0), 1e-9)) for label in LABELS)
    outcome = Labelled(numbers.tobytes(), LABELS, tuple(spans), tuple(inside or [False] * len(spans)))
    return lambda request: outcome


def found(output: Any) -> list[tuple[str, float, str]]:
    return [(each["entity_group"], pytest.approx(each["score"], abs=1e-5), each["word"]) for each in output.entities]


def test_neighbours_of_one_label_are_one_entity_until_another_begins() -> None:
    shares = [{"B-PER": 0.9}, {"I-PER": 0.7}, {}, {"B-PER": 0.8}, {}, {"I-LOC": 0.6}]

    output, _ = run("ner", TEXT, Codec("tagger", 100), answers=labelled(shares, WORDS))

    assert found(output) == [("PER", 0.8, "Ada Lovelace"), ("PER", 0.8, "Mary"), ("LOC", 0.6, "London")]
    assert [(each["start"], each["end"]) for each in output.entities] == [(0, 12), (17, 21), (25, 31)]


def test_tokens_alone_keep_their_labels() -> None:
    shares = [{"B-PER": 0.9}, {"I-PER": 0.7}, {}, {}, {}, {}]

    output, _ = run(
        "ner", TEXT, Codec("tagger", 100), {"aggregation_strategy": "none"}, answers=labelled(shares, WORDS)
    )

    assert [(each["entity"], each["word"]) for each in output.entities] == [("B-PER", "Ada"), ("I-PER", "Lovelace")]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("simple", [("PER", 0.6, "Lon"), ("LOC", 0.7, "d"), ("PER", 0.5, "on")]),
        ("first", [("PER", 0.6, "London")]),
        ("max", [("LOC", 0.7, "London")]),
        ("average", [("PER", 0.4, "London")]),
    ],
)
def test_a_word_of_several_tokens_has_one_label_by_strategy(strategy: str, expected: list[Any]) -> None:
    shares = [{"B-PER": 0.6, "B-LOC": 0.2}, {"B-LOC": 0.7, "B-PER": 0.1}, {"B-PER": 0.5, "B-LOC": 0.1}]
    answers = labelled(shares, [(0, 3), (3, 4), (4, 6)], [False, True, True])

    output, _ = run("ner", "London", Codec("tagger"), {"aggregation_strategy": strategy}, answers=answers)

    assert found(output) == expected


def test_labels_are_ignored_by_name_or_group() -> None:
    shares = [{"B-PER": 0.9}, {"I-PER": 0.7}, {}, {"B-PER": 0.8}, {}, {"I-LOC": 0.6}]

    output, _ = run("pos", TEXT, Codec("tagger", 100), {"ignore_labels": ["PER"]}, answers=labelled(shares, WORDS))

    assert [each["entity_group"] for each in output.entities] == ["O", "O", "LOC"]


def test_what_two_windows_saw_differently_is_decided_by_length_then_score() -> None:
    text = " ".join(["Seoul", *["w"] * 20, "New", "York", *["w"] * 20])

    def answers(request: Request) -> Labelled:
        assert isinstance(request, LabelTokens)
        spans = [match.span() for match in re.finditer(r"\S+", request.text)]
        words = [request.text[start:end] for start, end in spans]
        whole = "New York" in request.text
        shares = [
            {"B-LOC": 0.9}
            if word in ("Seoul", "New")
            else {"I-LOC" if whole else "B-LOC": 0.8}
            if word == "York"
            else {}
            for word in words
        ]
        return labelled(shares, spans)(request)  # type: ignore[no-any-return]

    output, (asked,) = run("ner", text, Codec("tagger", 22), answers=answers)

    assert len(asked.requests) == len(asked.weights) > 2
    assert sum("New" in str(request) for request in asked.requests) == 2
    assert [(each["word"], text[each["start"] : each["end"]]) for each in output.entities] == [
        ("Seoul", "Seoul"),
        ("New York", "New York"),
    ]


def test_both_names_of_the_strategy_together_are_refused() -> None:
    assert tasks.validate_params(tasks.find("ner"), {"grouped_entities": True}).strategy == "simple"
    assert tasks.validate_params(tasks.find("ner"), {"grouped_entities": False}).strategy == "none"
    with pytest.raises(InvalidParams, match="give one of them"):
        tasks.validate_params(tasks.find("ner"), {"grouped_entities": True, "aggregation_strategy": "max"})


def written(*entities: tuple[str, str], reason: Any = "stop") -> Any:
    """A chat model that writes this list."""
    text = json.dumps([{"text": text, "label": label} for text, label in entities])
    return lambda request: Generated((Sample(text, reason),))


def test_a_chat_model_writes_a_list_and_each_of_it_is_found_in_the_text() -> None:
    text = "Ann met Ann in Rome."
    said = [("Rome", "place"), ("Ann", "person"), ("Ann", "person"), ("Ann", "person"), ("Bob", "person")]

    output, (asked,) = run("ner", text, Codec("chat", 100), {"labels": ["person", "place"]}, written(*said))

    (request,) = asked.requests
    assert isinstance(request, Generate)
    assert request.messages is not None
    assert "List every person, place" in request.messages[0].content
    assert request.grammar is not None
    assert '"enum":["person","place"]' in request.grammar.text
    assert [(each["entity_group"], each["start"], each["end"]) for each in output.entities] == [
        ("person", 0, 3),
        ("person", 8, 11),
        ("place", 15, 19),
    ]
    assert {each["score"] for each in output.entities} == {None}


def test_a_long_text_is_read_in_windows_by_a_chat_model_too() -> None:
    text = " ".join([*["word"] * 60, "Ann", *["word"] * 60])

    def answers(request: Request) -> Generated:
        assert isinstance(request, Generate)
        assert request.messages is not None
        seen = [("Ann", "person")] if "Ann" in request.messages[0].content else []
        return written(*seen)(request)  # type: ignore[no-any-return]

    output, (asked,) = run("ner", text, Codec("chat", 80), {"labels": ["person"]}, answers)

    assert len(asked.requests) > 1
    assert [(each["start"], each["end"]) for each in output.entities] == [(300, 303)]


def test_a_list_that_is_not_whole_is_that_items_error() -> None:
    with pytest.raises(ItemError, match="not complete") as caught:
        run("ner", TEXT, Codec("chat", 100), {"labels": ["person"]}, written(("Ada", "person"), reason="length"))

    assert caught.value.code is ItemErrorCode.SCHEMA_UNSATISFIED


@pytest.mark.parametrize(
    ("params", "model", "said"),
    [
        ({}, Known("causal"), "'labels' is needed"),
        ({"labels": ["person"]}, Known("causal", engine="ctranslate2"), "engine 'ctranslate2' cannot keep to a form"),
    ],
)
def test_what_a_chat_model_cannot_do_is_refused_at_submit(params: dict[str, Any], model: Known, said: str) -> None:
    task = tasks.find("ner")

    with pytest.raises(InvalidParams, match=said):
        task.check(tasks.validate_params(task, params), model)

"""rerank: documents in the order in which they answer a query."""

import math
from array import array
from typing import Any

import pytest

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Classified, Classify, Embed, Embedded, Request, Score, Scored
from tests.jobs.task_runs import Codec, run

ITEM = {"query": "what do foxes eat?", "documents": ["rain", "mice", "sun"]}


def relevance(logits: dict[str, tuple[float, ...]]) -> Any:
    """A cross-encoder that answers a document with these logits."""
    return lambda request: Classified(logits[request.pair], tuple("abc"[: len(logits[request.pair])]))


def ranking(output: Any) -> list[tuple[int, float]]:
    return [(each["index"], pytest.approx(each["score"])) for each in output.ranking]


def test_a_cross_encoder_reads_the_query_beside_each_document() -> None:
    answers = relevance({"rain": (0.0,), "mice": (math.log(3),), "sun": (-math.log(3),)})

    output, (asked,) = run("rerank", ITEM, Codec("classifier"), answers=answers)

    assert asked.requests == [Classify(ITEM["query"], each) for each in ITEM["documents"]]
    assert ranking(output) == [(1, 0.75), (0, 0.5), (2, 0.25)]


def test_two_classes_are_a_probability_and_none_leaves_logits_alone() -> None:
    two = relevance({"rain": (0.0, 0.0), "mice": (0.0, math.log(3)), "sun": (5.0, 5.0)})

    shares, _ = run("rerank", ITEM, Codec("classifier"), answers=two)
    logits, _ = run("rerank", ITEM, Codec("classifier"), {"function_to_apply": "none", "top_k": 1}, answers=two)

    assert ranking(shares) == [(1, 0.75), (0, 0.5), (2, 0.5)]
    assert ranking(logits) == [(2, 5.0)]


def test_a_sentence_encoder_gives_cosines() -> None:
    vectors = {"what do foxes eat?": (1.0, 0.0), "rain": (0.0, 1.0), "mice": (0.6, 0.8), "sun": (-1.0, 0.0)}

    def answers(request: Request) -> Embedded:
        assert isinstance(request, Embed)
        return Embedded(array("f", vectors[request.text]).tobytes())

    output, _ = run("rerank", ITEM, Codec("encoder"), {"top_k": 2}, answers)

    assert ranking(output) == [(1, 0.6), (0, 0.0)]


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_the_best_window_of_a_long_document_counts(kind: str) -> None:
    def answers(request: Request) -> Classified | Embedded:
        if isinstance(request, Classify):
            return Classified((2.0 if "mice" in str(request.pair) else -2.0,), ("a",))
        assert isinstance(request, Embed)
        return Embedded(
            array("f", (1.0, 0.0) if {"mice", "query"} & set(request.text.split()) else (0.0, 1.0)).tobytes()
        )

    item = {"query": "query", "documents": ["rain", "rain " * 40 + "mice"]}

    split, (windows,) = run("rerank", item, Codec(kind), answers=answers)
    cut, (start,) = run("rerank", item, Codec(kind), {"long_text": "truncate"}, answers=answers)

    assert [each["index"] for each in split.ranking] == [1, 0]
    assert len(windows.weights) == len(windows.requests) - (kind == "encoder") > 2
    assert cut.ranking[0]["score"] == cut.ranking[1]["score"]
    assert start.truncated_tokens >= 17


def test_a_long_query_leaves_documents_half_of_the_room() -> None:
    item = {"query": "word " * 100, "documents": ["rain", "mice"]}

    _, (asked,) = run("rerank", item, Codec("classifier"), answers=lambda request: Classified((1.0,), ("a",)))

    assert [len(request.text.split()) for request in asked.requests] == [12, 12]
    assert asked.truncated_tokens == 88


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"query": " ", "documents": ["a"]}, ItemErrorCode.EMPTY_TEXT),
        ({"query": "q", "documents": ["a", "\t"]}, ItemErrorCode.EMPTY_TEXT),
        ({"query": "q", "documents": ["a\0"]}, ItemErrorCode.INVALID_TEXT),
    ],
)
def test_a_blank_or_broken_text_fails_the_item_by_name(item: dict[str, Any], code: ItemErrorCode) -> None:
    with pytest.raises(ItemError, match=r"'query'|'documents\[\d\]'") as caught:
        run("rerank", item, Codec("encoder"))

    assert caught.value.code is code


def test_a_model_of_many_classes_or_of_nan_fails_the_item() -> None:
    many = relevance(dict.fromkeys(ITEM["documents"], (1.0, 2.0, 3.0)))
    nan = relevance(dict.fromkeys(ITEM["documents"], (math.nan,)))

    with pytest.raises(ItemError, match="one or two classes; the model has: a, b, c"):
        run("rerank", ITEM, Codec("classifier"), answers=many)
    with pytest.raises(ItemError, match="no numbers"):
        run("rerank", ITEM, Codec("classifier"), answers=nan)


def test_a_chat_model_tells_how_likely_yes_is_for_each_document() -> None:
    odds = {"rain": (-3.0, -1.0), "mice": (-1.0, -3.0), "sun": (-2.0, -2.0)}

    def answers(request: Request) -> Scored:
        assert isinstance(request, Score)
        assert request.continuations == ("yes", "no")
        assert request.messages is not None
        said = request.messages[0].content
        assert said.startswith("Query: what do foxes eat?\n\nDocument: ")
        return Scored(next(odds[word] for word in odds if f"Document: {word}" in said), (1, 1))

    output, (asked,) = run("rerank", ITEM, Codec("chat"), answers=answers)

    assert len(asked.requests) == 3
    likely = 1 / (1 + math.exp(-2))
    assert ranking(output) == [(1, likely), (2, 0.5), (0, 1 - likely)]


def test_a_long_document_is_read_in_windows_by_a_chat_model_too() -> None:
    def answers(request: Request) -> Scored:
        assert isinstance(request, Score)
        assert request.messages is not None
        return Scored((-1.0, -3.0) if "mice" in request.messages[0].content else (-3.0, -1.0), (1, 1))

    long = " ".join(["word"] * 60 + ["mice"])
    output, (asked,) = run(
        "rerank", {"query": "food?", "documents": ["rain", long]}, Codec("chat", 60), answers=answers
    )

    assert len(asked.requests) > 2
    assert output.ranking[0]["index"] == 1

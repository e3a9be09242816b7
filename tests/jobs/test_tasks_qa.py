"""qa: spans from the scores of their ends, and answers in words."""

import re
from array import array
from typing import Any

import pytest

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Answer, Answered, Generate, Generated, Request, Sample
from tests.jobs.task_runs import Codec, run

ITEM = {"question": "who?", "context": "Ada met Mary in London"}
WORDS = [match.span() for match in re.finditer(r"\S+", ITEM["context"])]


def reads(begins: list[float], ends: list[float], spans: Any = WORDS, words: Any = None) -> Any:
    """A model that gives these logits, the first to no answer."""
    numbers = array("f", [value for pair in zip(begins, ends, strict=True) for value in pair])
    return lambda request: Answered(numbers.tobytes(), tuple(spans), tuple(words or spans))


def found(output: Any) -> list[tuple[str, int, int]]:
    return [(each["answer"], each["start"], each["end"]) for each in output.answers]


def test_the_likeliest_span_is_the_answer_with_the_product_of_its_ends() -> None:
    answers = reads([0, 0, 0, 5, 0, 0], [0, 0, 0, 0, 0, 5])

    output, (asked,) = run("question-answering", ITEM, Codec("reader"), answers=answers)

    share = 2.718281828**5 / (2.718281828**5 + 5)
    assert asked.requests == [Answer("who?", ITEM["context"])]
    assert found(output) == [("Mary in London", 8, 22)]
    assert output.answers[0]["score"] == pytest.approx(share**2, rel=1e-4)


def test_an_answer_neither_ends_before_it_begins_nor_is_longer_than_allowed() -> None:
    answers = reads([0, 0, 0, 0, 0, 5], [0, 5, 0, 0, 0, 0])
    longest = reads([0, 5, 0, 0, 0, 0], [0, 0, 0, 0, 0, 5])

    backwards, _ = run("qa", ITEM, Codec("reader"), answers=answers)
    short, _ = run("qa", ITEM, Codec("reader"), {"max_answer_len": 2}, answers=longest)

    assert len(found(backwards)[0][0].split()) == 1 or found(backwards)[0][2] == 22
    assert len(found(short)[0][0].split()) <= 2


def test_tokens_of_one_word_answer_with_the_whole_word_and_their_scores_together() -> None:
    spans, words = [(0, 3), (3, 6), (7, 9)], [(0, 6), (0, 6), (7, 9)]
    answers = reads([-9, 3, 3, 0], [-9, 3, 3, 0], spans, words)

    output, _ = run("qa", {"question": "where?", "context": "London UK"}, Codec("reader"), {"top_k": 2}, answers)

    assert found(output)[0] == ("London", 0, 6)
    assert output.answers[0]["score"] > 3 * 0.4**2
    assert len({each[1:] for each in found(output)}) == 2


def test_no_answer_competes_when_asked_for() -> None:
    answers = reads([5, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0])

    silent, _ = run("qa", ITEM, Codec("reader"), answers=answers)
    honest, _ = run("qa", ITEM, Codec("reader"), {"handle_impossible_answer": True, "top_k": 2}, answers=answers)

    assert silent.answers[0]["answer"] != ""
    assert found(honest)[0] == ("", 0, 0)
    assert honest.answers[0]["score"] > 0.8 > honest.answers[1]["score"]


def test_a_long_context_is_searched_in_windows_and_answers_are_placed_in_the_whole() -> None:
    context = " ".join([*["w"] * 50, "London", *["w"] * 50])

    def answers(request: Request) -> Answered:
        assert isinstance(request, Answer)
        spans = [match.span() for match in re.finditer(r"\S+", request.context)]
        logits = [9.0 if request.context[start:end] == "London" else 0.0 for start, end in spans]
        return reads([0, *logits], [0, *logits], spans)(request)  # type: ignore[no-any-return]

    output, (asked,) = run("qa", {"question": "where?", "context": context}, Codec("reader"), answers=answers)
    cut, (start,) = run(
        "qa", {"question": "where?", "context": context}, Codec("reader"), {"long_text": "truncate"}, answers=answers
    )

    assert len(asked.requests) == len(asked.weights) > 3
    assert found(output) == [("London", 100, 106)]
    assert cut.answers[0]["answer"] != "London"
    assert start.truncated_tokens == 78


def test_a_long_question_is_cut_to_half_of_the_room() -> None:
    item = {"question": "why " * 40, "context": "Foxes eat mice."}

    _, (asked,) = run("qa", item, Codec("reader"))

    assert [len(request.question.split()) for request in asked.requests] == [12]
    assert asked.truncated_tokens == 28


@pytest.mark.parametrize(
    ("text", "expected"), [("Mary", ("Mary", None, 8, 12)), ("Her friend.", ("Her friend.", None, None, None))]
)
def test_a_model_asked_in_words_answers_in_words_with_their_place_if_they_have_one(text: str, expected: Any) -> None:
    def answers(request: Request) -> Generated:
        assert isinstance(request, Generate)
        assert "who?" in repr(request)
        assert ITEM["context"] in repr(request)
        return Generated((Sample(f" {text}\n", "stop"),))

    output, _ = run("qa", ITEM, Codec("chat", 100), answers=answers)

    assert [tuple(each.values()) for each in output.answers] == [expected]


@pytest.mark.parametrize(
    ("item", "field"), [({"question": "q", "context": " "}, "context"), ({"question": "", "context": "c"}, "question")]
)
def test_a_blank_text_fails_the_item_by_name(item: dict[str, str], field: str) -> None:
    with pytest.raises(ItemError, match=f"'{field}' is blank") as caught:
        run("qa", item, Codec("reader"))

    assert caught.value.code is ItemErrorCode.EMPTY_TEXT

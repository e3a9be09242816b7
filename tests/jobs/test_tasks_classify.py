"""classify: scores as the model, the labels and the params say."""

import math
from typing import Any

import pytest

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Classified, Classify, Compared, Request, Score, Scored, Similarity
from jobs.tasks.templates import Template
from tests.jobs.task_runs import Codec, run


def heads(*logits: float, multi_label: bool = False) -> Any:
    """A model that answers every text with these logits, for labels a, b, c, ..."""
    labels = tuple("abcdefgh"[: len(logits)])
    return lambda request: Classified(logits, labels, multi_label)


def scores(*logits: float, multi_label: bool = False, **params: Any) -> list[tuple[str, float]]:
    output, _ = run("classify", "text", Codec("classifier"), params, heads(*logits, multi_label=multi_label))
    return [(each["label"], each["score"]) for each in output.labels]


def test_scores_are_a_softmax_best_first() -> None:
    found = scores(0.0, math.log(3))

    assert found == [("b", pytest.approx(0.75)), ("a", pytest.approx(0.25))]


@pytest.mark.parametrize(
    ("logits", "options", "expected"),
    [
        ((0.0, 0.0), {"multi_label": True}, [("a", 0.5), ("b", 0.5)]),
        ((0.0,), {}, [("a", 0.5)]),
        ((math.log(3), 0.0), {"function_to_apply": "sigmoid"}, [("a", 0.75), ("b", 0.5)]),
        ((0.0, math.log(3)), {"multi_label": True, "function_to_apply": "softmax"}, [("b", 0.75), ("a", 0.25)]),
        ((-2.5, 7.0), {"function_to_apply": "none"}, [("b", 7.0), ("a", -2.5)]),
    ],
)
def test_the_function_is_the_callers_or_the_models(logits: Any, options: Any, expected: Any) -> None:
    assert scores(*logits, **options) == [(label, pytest.approx(score)) for label, score in expected]


def test_equal_scores_stay_in_the_models_order() -> None:
    assert [label for label, _ in scores(1.0, 2.0, 1.0, 2.0)] == ["b", "d", "a", "c"]


def test_top_k_and_threshold_leave_labels_out() -> None:
    assert [label for label, _ in scores(3.0, 2.0, 1.0, top_k=2)] == ["a", "b"]
    assert [label for label, _ in scores(3.0, 2.0, 1.0, top_k=9)] == ["a", "b", "c"]
    assert [label for label, _ in scores(3.0, 0.0, 0.0, threshold=0.5)] == ["a"]
    assert scores(0.0, 0.0, threshold=0.6) == []


@pytest.mark.parametrize(
    ("logits", "function"),
    [
        ((math.nan, 1.0), None),
        ((math.nan, 1.0), "sigmoid"),
        ((math.nan, 1.0), "none"),
        ((1.0, math.nan), None),
        ((math.inf, 1.0), None),
        ((math.inf, -math.inf), "none"),
    ],
)
def test_scores_that_are_no_numbers_are_the_models_error(logits: tuple[float, ...], function: str | None) -> None:
    with pytest.raises(ItemError) as caught:
        scores(*logits, function_to_apply=function)

    assert caught.value.code is ItemErrorCode.MODEL_ERROR


@pytest.mark.parametrize("logits", [(1e4, -1e4), (-1e4, -1e5), (710.0, 0.0)])
@pytest.mark.parametrize("function", ["softmax", "sigmoid"])
def test_large_logits_do_not_overflow(logits: tuple[float, ...], function: str) -> None:
    assert all(0 <= score <= 1 for _, score in scores(*logits, function_to_apply=function))


def test_a_long_texts_scores_are_the_mean_of_its_windows_by_their_tokens() -> None:
    def answers(request: Request) -> Classified:
        assert isinstance(request, Classify)
        first = "w0 " in request.text
        return Classified((100.0, 0.0) if first else (0.0, 100.0), ("a", "b"))

    text = " ".join(f"w{number}" for number in range(15))
    output, (asked,) = run("classify", text, Codec("classifier", limit=10), {}, answers)

    assert asked.weights == (10, 6)
    assert output.labels[0] == {"label": "a", "score": pytest.approx(10 / 16)}


def test_a_pair_stands_beside_every_window() -> None:
    text = {"text": "w " * 30, "text_pair": "p1 p2 p3"}

    _, (asked,) = run("classify", text, Codec("classifier", limit=10))

    assert {each.pair for each in asked.requests if isinstance(each, Classify)} == {"p1 p2 p3"}
    assert asked.weights[0] == 7
    assert asked.truncated_tokens == 0


def test_a_long_pair_is_cut_to_what_the_text_leaves_of_the_room() -> None:
    short_text = {"text": "w1 w2", "text_pair": "p " * 30}
    both_long = {"text": "w " * 30, "text_pair": "p " * 30}

    _, (beside_short,) = run("classify", short_text, Codec("classifier", limit=10))
    _, (beside_long,) = run("classify", both_long, Codec("classifier", limit=10))

    assert (beside_short.truncated_tokens, len(beside_short.requests)) == (22, 1)
    assert beside_long.truncated_tokens == 25
    assert set(beside_long.weights[:-1]) == {5}


def test_a_causal_model_scores_labels_a_token_alike() -> None:
    def answers(request: Request) -> Scored:
        assert isinstance(request, Score)
        return Scored((-4.0, -4.0), (1, 4))

    output, _ = run("classify", "text", Codec("causal"), {"labels": ["yes", "not at all so"]}, answers)

    share = 1 / (1 + math.exp(-3))
    assert [each["label"] for each in output.labels] == ["not at all so", "yes"]
    assert output.labels[0]["score"] == pytest.approx(share)


def test_a_plain_prompt_ends_before_the_label_and_a_chat_template_opens_the_answer() -> None:
    _, (plain,) = run("classify", "a text", Codec("causal"), {"labels": ["x", "y z"]})
    _, (chat,) = run("classify", "a text", Codec("chat", limit=100), {"labels": ["x", "y z"]})

    asked = plain.requests[0]
    assert isinstance(asked, Score)
    assert asked.prompt is not None
    assert asked.prompt.endswith("fits the text best: x, y z?\nLabel:")
    assert asked.continuations == (" x", " y z")
    asked = chat.requests[0]
    assert isinstance(asked, Score)
    assert asked.messages is not None
    assert asked.messages[0].content.endswith("Text: a text")
    assert asked.continuations == ("x", "y z")


def test_the_registrys_prompt_is_preferred() -> None:
    codec = Codec("causal")
    codec.prompts = {"classify": Template(text="{labels}? {text}\n")}

    _, (asked,) = run("classify", "a {labels} b", codec, {"labels": ["x", "y"]})

    assert asked.requests == [Score(("x", "y"), prompt="x, y? a {labels} b\n")]


def test_a_sentence_encoder_compares_with_a_known_scale() -> None:
    def answers(request: Request) -> Compared:
        assert request == Similarity("text", ("x", "y"))
        return Compared((0.5, 0.6))

    compared, _ = run("classify", "text", Codec("encoder"), {"labels": ["x", "y"]}, answers)
    raw, _ = run("classify", "text", Codec("encoder"), {"labels": ["x", "y"], "function_to_apply": "none"}, answers)

    assert compared.labels[0] == {"label": "y", "score": pytest.approx(1 / (1 + math.exp(-2)))}
    assert raw.labels[0] == {"label": "y", "score": 0.6}


@pytest.mark.parametrize(
    ("kind", "item", "params", "said"),
    [
        ("classifier", "a", {"labels": ["x", "y"]}, "parameter 'labels' does not apply"),
        ("encoder", "a", {}, "parameter 'labels' is needed"),
        ("causal", {"text": "a", "text_pair": "b"}, {"labels": ["x", "y"]}, "'text_pair' needs a model with"),
    ],
)
def test_what_the_model_cannot_do_is_said(kind: str, item: Any, params: Any, said: str) -> None:
    with pytest.raises(ItemError, match=said) as caught:
        run("classify", item, Codec(kind), params)

    assert caught.value.code is ItemErrorCode.INVALID_ITEM

"""zero_shot: labels judged by inference, by a causal model's likelihoods or by similarity."""

import math
from typing import Any

import pytest

from jobs import tasks
from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.tasks.base import Classified, Classify, Compared, Known, Request, Score, Scored, Similarity
from tests.jobs.task_runs import Codec, run

INFERENCE = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")


def infers(logits: dict[str, tuple[float, ...]], labels: tuple[str, ...] = INFERENCE) -> Any:
    """An NLI model that answers a hypothesis with these logits."""
    return lambda request: Classified(logits[request.pair], labels)


def scores(output: Any) -> dict[str, float]:
    return {each["label"]: pytest.approx(each["score"]) for each in output.labels}


def test_labels_compete_by_how_much_their_hypotheses_follow() -> None:
    answers = infers({"It is art.": (9.0, 0.0, 0.0), "It is war.": (0.0, 0.0, math.log(3))})
    params = {"labels": ["art", "war"], "hypothesis_template": "It is {}."}

    output, (asked,) = run("zero_shot", "text", Codec("classifier"), params, answers)

    assert asked.requests == [Classify("text", "It is art."), Classify("text", "It is war.")]
    assert [each["label"] for each in output.labels] == ["war", "art"]
    assert scores(output) == {"war": 0.75, "art": 0.25}


@pytest.mark.parametrize("params", [{"labels": ["art"]}, {"labels": ["art", "war"], "multi_label": True}])
def test_labels_that_do_not_compete_are_judged_against_their_contradiction(params: dict[str, Any]) -> None:
    answers = infers({"This example is art.": (0.0, 50.0, math.log(3)), "This example is war.": (1.0, 0.0, 1.0)})

    output, _ = run("zero-shot-classification", "text", Codec("classifier"), params, answers)

    expected = {"art": 0.75, "war": 0.5}
    assert scores(output) == {label: expected[label] for label in params["labels"]}


def test_the_last_class_contradicts_where_the_first_entails() -> None:
    answers = infers({"This example is art.": (math.log(3), 9.0, 0.0)}, ("entailment", "neutral", "contradiction"))

    output, _ = run("zero_shot", "text", Codec("classifier"), {"labels": ["art"]}, answers)

    assert scores(output) == {"art": 0.75}


def test_a_model_without_entailment_fails_the_item_with_the_labels_it_has() -> None:
    with pytest.raises(ItemError, match=r"'entailment'.*NEGATIVE, NEUTRAL, POSITIVE") as caught:
        run("zero_shot", "text", Codec("classifier"))

    assert caught.value.code is ItemErrorCode.INVALID_ITEM


def test_windows_of_a_long_text_are_judged_one_by_one_and_weighed_by_their_tokens() -> None:
    def answers(request: Request) -> Classified:
        assert isinstance(request, Classify)
        return Classified(
            (0.0, 0.0, math.log(3) if ("w0" in request.text) == ("a" in str(request.pair)) else 0.0), INFERENCE
        )

    params = {"labels": ["a", "b"], "hypothesis_template": "{}"}

    output, (asked,) = run("zero_shot", " ".join(f"w{n}" for n in range(30)), Codec("classifier", 21), params, answers)

    first, second = asked.weights
    assert [request.pair for request in asked.requests] == ["a", "b", "a", "b"]
    share = (0.75 * first + 0.25 * second) / (first + second)
    assert scores(output) == {"a": share, "b": 1 - share}


def test_a_causal_model_is_asked_about_all_labels_at_once_and_about_each_where_several_may_fit() -> None:
    def answers(request: Request) -> Scored:
        assert isinstance(request, Score)
        return Scored((math.log(3), 0.0), (1, 1))

    _, (one,) = run("zero_shot", "text", Codec("chat"), {"labels": ["art", "war"]}, answers)
    several, (each,) = run("zero_shot", "text", Codec("chat"), {"labels": ["art", "war"], "multi_label": True}, answers)

    assert [request.continuations for request in one.requests] == [("art", "war")]
    assert [request.continuations for request in each.requests] == [("yes", "no")] * 2
    assert ['"art"' in repr(request) for request in each.requests] == [True, False]
    assert scores(several) == {"art": 0.75, "war": 0.75}


def test_a_sentence_encoder_compares_the_text_with_the_hypotheses() -> None:
    def answers(request: Request) -> Compared:
        assert request == Similarity("text", ("about art", "about war"))
        return Compared((0.5, -0.5))

    params = {"labels": ["art", "war"], "hypothesis_template": "about {}"}

    alone, _ = run("zero_shot", "text", Codec("encoder"), params, answers)
    several, _ = run("zero_shot", "text", Codec("encoder"), {**params, "multi_label": True}, answers)

    assert scores(alone) == {"art": 1 / (1 + math.exp(-20)), "war": 1 / (1 + math.exp(20))}
    assert scores(several) == {"art": 0.5, "war": 0.0}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "'labels' is needed"),
        ({"labels": []}, "labels"),
        ({"labels": ["a", "a"]}, "label 'a' is given twice"),
        ({"labels": ["a"], "hypothesis_template": "no place"}, "has no {} for the label"),
        ({"labels": ["a"], "candidate_labels": ["a"]}, "'labels' is given twice"),
    ],
)
def test_params_that_say_nothing_are_refused(params: dict[str, Any], said: str) -> None:
    task = tasks.find("zero_shot")

    with pytest.raises(InvalidParams, match=said):
        task.check(tasks.validate_params(task, params), Known("encoder", "classify"))


class Paired(Codec):
    """The text side of an NLI model joined with a sentence encoder."""

    def __init__(self, limit: int = 1000) -> None:
        super().__init__("classifier", limit)
        self.heads = frozenset({Classify, Similarity})


LIKE = {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.1}
LOGITS = {"a": 0.0, "b": 2.0, "c": 1.0, "d": 3.0}
FILTERED = {"labels": list("abcd"), "hypothesis_template": "{}.", "prefilter": 3, "prefilter_audit": 0.0}


def paired(request: Request) -> Any:
    if isinstance(request, Similarity):
        return Compared(tuple(LIKE[candidate[0]] for candidate in request.candidates))
    assert isinstance(request, Classify)
    assert request.pair is not None
    return Classified((0.0, 0.0, LOGITS[request.pair[0]]), INFERENCE)


def test_only_labels_that_a_sentence_encoder_finds_similar_are_judged() -> None:
    output, (first, second) = run("zero_shot", "text", Paired(), FILTERED, paired)
    exact, rounds = run("zero_shot", "text", Paired(), FILTERED | {"labels": list("abc")}, paired)

    assert first.requests == [Similarity("text", ("a.", "b.", "c.", "d."))]
    assert second.requests == [Classify("text", "a."), Classify("text", "b."), Classify("text", "c.")]
    assert [each["label"] for each in output.labels] == ["b", "c", "a"]
    assert output.prefilter_rank is None
    assert output.labels == exact.labels
    assert len(rounds) == 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_an_audit_judges_all_labels_and_changes_no_score(multi_label: bool) -> None:
    params = FILTERED | {"multi_label": multi_label}

    plain, _ = run("zero_shot", "text", Paired(), params, paired)
    output, (_, second) = run("zero_shot", "text", Paired(), params | {"prefilter_audit": 1.0}, paired)

    assert len(second.requests) == 4
    assert output.labels == plain.labels
    assert output.prefilter_rank == 4  # of `d`, which fits best of all
    assert "prefilter_rank" not in plain.model_dump()


def test_the_share_of_audited_texts_is_about_what_is_asked() -> None:
    params = FILTERED | {"prefilter_audit": 0.25}

    ranks = [run("zero_shot", f"text {n}", Paired(), params, paired)[0].prefilter_rank for n in range(400)]

    assert 70 < sum(rank is not None for rank in ranks) < 130


@pytest.mark.parametrize("long_text", ["split", "truncate"])
def test_a_long_text_is_filtered_once_and_judged_in_every_window(long_text: str) -> None:
    text = " ".join(f"w{n}" for n in range(50))

    output, (first, second) = run("zero_shot", text, Paired(20), FILTERED | {"long_text": long_text}, paired)

    assert {type(each) for each in first.requests} == {Similarity}
    assert len(second.requests) == 3 * len(first.requests)
    assert [each["label"] for each in output.labels] == ["b", "c", "a"]
    assert (len(first.weights) > 1) == (long_text == "split")


def test_a_prefilter_needs_a_model_that_is_joined_with_a_sentence_encoder() -> None:
    task = tasks.find("zero_shot")
    params = tasks.validate_params(task, {"labels": ["a", "b"], "prefilter": 1})

    task.check(params, Known("encoder", engine="paired"))
    with pytest.raises(InvalidParams, match=r"'prefilter' needs a model.*engine is 'torch'"):
        task.check(params, Known("encoder", engine="torch"))

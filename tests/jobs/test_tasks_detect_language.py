"""detect_language, and the detection that needs no model."""

import math

import pytest

from jobs import tasks
from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.tasks.base import Classified, Known, Request, Score, Scored
from jobs.tasks.detection import detect, languages
from tests.jobs.task_runs import Codec, run

TEXTS = {
    "en": "The committee will meet again on Thursday to talk about the budget.",
    "de": "Der Ausschuss trifft sich am Donnerstag wieder, um über den Haushalt zu sprechen.",
    "fr": "Le comité se réunira de nouveau jeudi pour parler du budget.",
    "ko": "위원회는 목요일에 다시 모여 예산을 논의할 예정이다.",
    "ja": "委員会は木曜日に再び集まり、予算について話し合う。",
    "ru": "Комитет снова соберётся в четверг, чтобы обсудить бюджет.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_the_language_of_a_sentence_is_found(language: str) -> None:
    (best, share), *others = detect(TEXTS[language])

    assert best == language
    assert share > 0.9
    assert math.isclose(share + sum(each for _, each in others), 1, abs_tol=1e-4)
    assert {code for code, _ in detect(TEXTS[language])} == set(languages())


def test_languages_come_best_first_and_as_many_as_asked() -> None:
    labels = ("de", "en", "fr")

    def answers(request: object) -> Classified:
        return Classified((0.0, math.log(2), math.log(5)), labels)

    best, _ = run("detect_language", "text", Codec("classifier"), answers=answers)
    every, _ = run("language-detection", "text", Codec("classifier"), {"top_k": None}, answers)

    assert best.languages == [{"language": "fr", "score": pytest.approx(0.625)}]
    assert [each["language"] for each in every.languages] == ["fr", "en", "de"]


def test_of_the_languages_to_choose_from_the_scores_add_up_to_one() -> None:
    def answers(request: object) -> Classified:
        return Classified((0.0, math.log(3), math.log(5)), ("de", "en", "fr"))

    output, _ = run(
        "detect_language", "text", Codec("classifier"), {"top_k": None, "languages": ["en", "de", "ko"]}, answers
    )

    assert output.languages == [
        {"language": "en", "score": pytest.approx(0.75)},
        {"language": "de", "score": pytest.approx(0.25)},
    ]
    with pytest.raises(ItemError, match=r"none of the languages ko, ja; it knows: de, en, fr") as caught:
        run("detect_language", "text", Codec("classifier"), {"languages": ["ko", "ja"]}, answers)
    assert caught.value.code is ItemErrorCode.UNSUPPORTED_LANGUAGE


def test_a_chat_model_chooses_among_the_languages_by_their_names() -> None:
    def answers(request: Request) -> Scored:
        assert isinstance(request, Score)
        assert request.continuations == ("Korean", "Brazilian Portuguese")
        assert request.messages is not None
        assert "Korean, Brazilian Portuguese?" in request.messages[0].content
        return Scored((-1.0, -2.0 * (1 + math.log(3))), (1, 2))

    output, _ = run("detect_language", "oi", Codec("chat"), {"top_k": None, "languages": ["ko", "pt-BR"]}, answers)

    assert output.languages == [
        {"language": "ko", "score": pytest.approx(0.75)},
        {"language": "pt-BR", "score": pytest.approx(0.25)},
    ]


@pytest.mark.parametrize(
    ("params", "said"), [({}, "'languages' is needed"), ({"languages": ["en", "tlh"]}, "'tlh' is not known")]
)
def test_what_a_chat_model_cannot_choose_from_is_refused_at_submit(params: dict[str, object], said: str) -> None:
    task = tasks.find("detect_language")

    with pytest.raises(InvalidParams, match=said):
        task.check(tasks.validate_params(task, params), Known("causal"))
    task.check(tasks.validate_params(task, params), Known("encoder"))

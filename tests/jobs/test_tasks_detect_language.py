"""detect_language, and the detection that needs no model."""

import math

import pytest

from jobs.tasks.base import Classified
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

"""The engine that tells languages apart without a model, behind the port."""

import pytest

from jobs.models import Registry
from jobs.store import Store
from jobs.tasks.base import Classify
from tests.engines.conftest import Subject
from tests.engines.task_on_model import run


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    opened = Store.open(f"sqlite:///{tmp_path_factory.mktemp('store')}/mill.db")
    try:
        return Subject(Registry(opened).get("langid"))
    finally:
        opened.close()


def test_texts_are_told_apart_by_language(subject: Subject) -> None:
    texts = {"en": "There is nothing to install.", "es": "No hay nada que instalar.", "ko": "설치할 것이 없습니다."}

    found = {code: run(subject, "detect_language", text).languages for code, text in texts.items()}

    assert {code: each[0]["language"] for code, each in found.items()} == {code: code for code in texts}
    assert all(len(each) == 1 and each[0]["score"] > 0.5 for each in found.values())


def test_a_text_is_judged_the_same_in_every_company_and_at_any_length(subject: Subject) -> None:
    requests = [Classify(text) for text in ("Guten Morgen", "x", "12345", "नमस्ते दुनिया", "The fox. " * 20_000)]

    together = subject(*requests)

    assert together == subject.one_by_one(*requests)
    assert [outcome.input_tokens for outcome in together][-1] == 180_000


def test_scores_of_all_languages_add_up_to_one(subject: Subject) -> None:
    found = run(subject, "detect_language", "Dette er en setning.", {"top_k": None}).languages

    assert len(found) == 140
    assert sum(each["score"] for each in found) == pytest.approx(1, abs=1e-6)

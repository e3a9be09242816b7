"""A job that names its models by a pattern: each item goes to the model of its languages."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs.client import Client
from jobs.errors import InvalidModel, InvalidParams, ModelMismatch, UnknownModel
from jobs.models import Registry
from jobs.settings import Settings
from jobs.store import Store
from tests.checker import all_results, column
from tests.corpora import model
from tests.worker.conftest import MakeShift

GERMAN = "Der Ausschuss trifft sich am Donnerstag wieder, um über den Haushalt zu sprechen."
KOREAN = "위원회는 목요일에 다시 모여 예산을 논의할 예정이다."
FRENCH = "Le comité se réunira de nouveau jeudi pour parler du budget."
PATTERN = "mt-{source}-{target}"


@pytest.fixture
def client(store: Store, settings: Callable[..., Settings]) -> Client:
    for name in ("mt-de-en", "mt-ko-en", "mt-en-de", "mt-big-de-en"):
        model(store, name, tasks=["translate"])
    model(store, "mt-xx-yy", tasks=["classify"])
    return Client(settings(), store=store)


def translate(client: Client, items: list[Any], **params: Any) -> str:
    return client.submit("translate", items, model=PATTERN, params=params).id


def test_each_item_is_translated_by_the_model_of_its_language(
    client: Client, store: Store, make_shift: MakeShift
) -> None:
    job_id = translate(client, [GERMAN, GERMAN, KOREAN, GERMAN, FRENCH, "123 456"], target="en")

    make_shift().run()

    assert column(store, "SELECT model FROM chunks ORDER BY seq_lo") == ["mt-de-en", "mt-ko-en", "mt-de-en", PATTERN]
    results = all_results(store, job_id)
    assert [each.status for each in results] == ["ok"] * 4 + ["error"] * 2
    assert [each.output["source"] for each in results if each.output] == ["de", "de", "ko", "de"]
    for each in results[4:]:
        assert each.error is not None
        assert each.error.code == "unsupported_language"
        assert "the models there are: mt-de-en, mt-en-de, mt-ko-en" in each.error.message
    assert store.jobs.get(job_id).state == "completed"


def test_languages_that_are_given_are_not_detected(client: Client, store: Store, make_shift: MakeShift) -> None:
    own = {"text": "hello", "params": {"source": "en", "target": "de"}}
    no_model = {"text": "x", "params": {"target": "ko"}}
    job_id = translate(client, ["whatever it is", own, no_model], source="ko-KR", target="en")

    make_shift().run()

    assert column(store, "SELECT model FROM chunks ORDER BY seq_lo") == ["mt-ko-en", "mt-en-de", PATTERN]
    assert [each.status for each in all_results(store, job_id)] == ["ok", "ok", "error"]


def test_a_pattern_may_leave_one_language_open(client: Client, store: Store, make_shift: MakeShift) -> None:
    client.submit("translate", [GERMAN, KOREAN], model="mt-{source}-en")

    make_shift().run()

    assert column(store, "SELECT model FROM chunks ORDER BY seq_lo") == ["mt-de-en", "mt-ko-en"]


def test_a_retry_is_sent_to_the_models_there_are_by_then(client: Client, store: Store, make_shift: MakeShift) -> None:
    job_id = translate(client, [GERMAN, FRENCH], target="en")
    make_shift().run()
    model(store, "mt-fr-en", tasks=["translate"])

    again = client.retry(job_id)
    make_shift().run()

    (result,) = all_results(store, again.id)
    assert (result.status, result.output["source"]) == ("ok", "fr")  # type: ignore[index]


@pytest.mark.parametrize(
    ("named", "params", "error", "said"),
    [
        (PATTERN, {}, InvalidParams, "'target' is needed"),
        ("nmt-{source}-{target}", {"target": "en"}, UnknownModel, "no registered model that serves translate"),
        ("mt-{language}", {"target": "en"}, UnknownModel, "each once"),
        ("mt-{source}-{source}", {"target": "en"}, UnknownModel, "each once"),
        ("mt-{source", {"target": "en"}, UnknownModel, "each once"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_at_submit(
    client: Client, named: str, params: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        client.submit("translate", ["text"], model=named, params=params)


def test_a_pattern_is_for_translate_alone_and_no_models_own_name(client: Client, store: Store) -> None:
    with pytest.raises(ModelMismatch, match="does not serve classify"):
        client.submit("classify", ["text"], model=PATTERN)
    registry = Registry(store)
    named = registry.get("mt-de-en").model_copy(update={"name": PATTERN})
    with pytest.raises(InvalidModel, match="is a pattern of names"):
        registry.add(named)

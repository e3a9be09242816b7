"""OpenVINO reads as the built-in engine reads, and refuses what it cannot do."""

from array import array
from typing import Any

import pytest
import torch

from jobs.errors import ModelFailed
from jobs.tasks.base import Classified, Classify, Compared, Embed, Embedded, Similarity
from tests.engines.conftest import Ask, Subject
from tests.engines.tiny import Tiny
from worker.engines import engine
from worker.engines.openvino import conversion

TEXTS = (
    "the quick brown fox",
    "rain",
    "Seoul is the capital of Korea and Paris",
    "a model reads a text and writes another text",
)


def logits_of(outcomes: list[Any]) -> list[float]:
    return [logit for outcome in outcomes for logit in outcome.logits]


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "xlm-roberta", "deberta"])
def test_texts_are_classified_as_by_the_built_in_engine(ask: Ask, name: str) -> None:
    requests = [*map(Classify, TEXTS), Classify(TEXTS[0], pair=TEXTS[2])]

    one, other = ask(name)(*requests), ask(name, engine="openvino")(*requests)

    assert all(isinstance(outcome, Classified) for outcome in other)
    wanted = logits_of(one)
    assert logits_of(other) == pytest.approx(wanted, rel=0, abs=1e-3 * max(map(abs, wanted)))
    assert [outcome.input_tokens for outcome in other] == [outcome.input_tokens for outcome in one]


@pytest.mark.parametrize("pooling", [None, "mean", "cls", "max", "last"])
def test_vectors_are_pooled_alike(ask: Ask, pooling: Any) -> None:
    requests = [Embed(text, pooling=pooling, normalize=False, dimensions=16) for text in TEXTS]

    one, other = ask("sentences")(*requests), ask("sentences", engine="openvino")(*requests)

    for left, right in zip(one, other, strict=True):
        assert isinstance(left, Embedded)
        assert isinstance(right, Embedded)
        assert list(array("f", right.vector)) == pytest.approx(list(array("f", left.vector)), abs=1e-3)


def test_tokens_keep_their_vectors_alike(ask: Ask) -> None:
    requests = [Embed(text, pooling="none", normalize=False) for text in TEXTS]

    one, other = ask("embedder")(*requests), ask("embedder", engine="openvino")(*requests)

    for left, right in zip(one, other, strict=True):
        assert isinstance(left, Embedded)
        assert isinstance(right, Embedded)
        assert right.tokens == left.tokens
        assert list(array("f", right.vector)) == pytest.approx(list(array("f", left.vector)), abs=1e-3)


def test_candidates_are_compared_alike(ask: Ask) -> None:
    requests = [Similarity(text, ("rain", "fox and sun")) for text in TEXTS]

    one, other = ask("embedder")(*requests), ask("embedder", engine="openvino")(*requests)

    for left, right in zip(one, other, strict=True):
        assert isinstance(left, Compared)
        assert isinstance(right, Compared)
        assert right.similarities == pytest.approx(left.similarities, abs=1e-4)


def test_weights_in_int8_stay_near(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "SMALL", 0)
    monkeypatch.setattr(conversion, "RECIPE", "small weights, too")
    requests = [Embed(text) for text in TEXTS]

    whole, small = ask("embedder", engine="openvino"), ask("embedder", engine="openvino", dtype="int8")
    pairs: list[Any] = list(zip(whole(*requests), small(*requests), strict=True))

    cosines = [sum(a * b for a, b in zip(array("f", x.vector), array("f", y.vector), strict=True)) for x, y in pairs]
    assert min(cosines) > 0.98
    assert max(cosines) < 1 - 1e-6  # it did change something
    assert small.model.stats()["memory_bytes"] < whole.model.stats()["memory_bytes"]


def test_a_precision_that_the_cpu_lacks_is_refused_with_those_it_has(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.engines import openvino as ours

    monkeypatch.setattr(ours, "_supported", lambda: ("float32", "int8"))

    with pytest.raises(ModelFailed, match="in float32, int8, not in bfloat16"):
        Subject(tiny("bert", engine="openvino", dtype="bfloat16"))


def test_another_device_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelFailed, match="runs on 'cpu', not on 'cuda:0'"):
        Subject(tiny("bert", engine="openvino"), device="cuda:0")


def test_a_generating_model_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelFailed, match="not generating models"):
        engine("openvino").codec(tiny("t5", engine="openvino"))


def test_a_model_that_says_something_else_after_conversion_is_not_used(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = conversion._traced
    monkeypatch.setattr(conversion, "RECIPE", "spoilt")

    def spoilt(model: Any, codec: Any) -> Any:
        made = traced(model, codec)
        # Another tensor: the converted model shares the memory of the one it was traced from.
        model.classifier.weight = torch.nn.Parameter(model.classifier.weight * 1.5)
        return made

    monkeypatch.setattr(conversion, "_traced", spoilt)

    with pytest.raises(ModelFailed, match="answers otherwise than the model itself"):
        Subject(tiny("bert", engine="openvino"))


def test_nothing_is_reported_to_anybody(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino_telemetry

    def told(*_: Any, **__: Any) -> None:
        raise AssertionError("OpenVINO reports its use")

    monkeypatch.setattr(openvino_telemetry.Telemetry, "init", told)
    monkeypatch.setattr(conversion, "RECIPE", "anew, in silence")

    Subject(tiny("bert", engine="openvino"))

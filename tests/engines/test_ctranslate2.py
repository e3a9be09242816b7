"""CTranslate2 says what the built-in engine says, and refuses what it cannot do."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest
import safetensors.torch
import torch

from jobs.errors import ModelFailed
from jobs.tasks.base import Failed, Generate, Generated, Sampling, Score, Scored
from tests.engines.conftest import Ask, Subject, texts_of
from tests.engines.tiny import DECODERS, Tiny
from worker.engines import engine

TEXTS = (
    "the quick brown fox",
    "rain",
    "Seoul is the capital of Korea and Paris",
    "we like long walks",
    "a model reads a text and writes another text",
    "sun shines on the sea",
)

TRANSLATORS = ("bart", "t5", "pegasus", "marian", "marian-multi", "m2m100", "nllb", "mbart", "mbart50")
WRITERS = ("llama", "gpt2", "qwen2", "qwen3", "bloom", "gptj")
"""What the library's converters take, of the tiny models."""


def asked(name: str, text: str, **wishes: Any) -> Generate:
    more = {key: wishes.pop(key) for key in ("n", "stop", "seed", "target_language") if key in wishes}
    sampling = Sampling(**{"max_new_tokens": 12, "temperature": 0, "num_beams": 1, **wishes})
    return Generate(**{"prompt" if name in DECODERS else "source": text}, sampling=sampling, **more)


def both(ask: Ask, name: str, requests: list[Any]) -> tuple[list[Any], list[Any]]:
    return ask(name)(*requests), ask(name, engine="ctranslate2")(*requests)


def equal(one: list[Any], other: list[Any]) -> int:
    return sum(left == right for left, right in zip(one, other, strict=True))


def texts_by_item(outcomes: list[Any]) -> list[list[str]]:
    return [texts_of([outcome]) for outcome in outcomes]


@pytest.mark.parametrize("name", [*TRANSLATORS, *WRITERS])
def test_every_architecture_says_what_the_built_in_engine_says(ask: Ask, name: str) -> None:
    requests = [asked(name, text) for text in TEXTS]

    one, other = both(ask, name, requests)

    assert len(set(texts_of(one))) > 3
    assert equal(one, other) >= 5  # of 6: another CPU's rounding may turn a near tie


@pytest.mark.parametrize(
    "wishes",
    [
        {"num_beams": 3, "length_penalty": 0.6},
        {"num_beams": 4, "n": 3},
        {"min_new_tokens": 8, "max_new_tokens": 9},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"n": 2, "num_beams": 2},
        {"stop": ("e", "ö")},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["t5", "marian", "llama"])
def test_wishes_are_honoured(ask: Ask, name: str, wishes: dict[str, Any]) -> None:
    requests = [asked(name, text, **wishes) for text in TEXTS]

    one, other = both(ask, name, requests)

    assert equal(texts_by_item(one), texts_by_item(other)) >= 5


def test_the_models_own_settings_are_in_force(ask: Ask) -> None:
    requests = [Generate(source=text) for text in TEXTS]

    one, other = both(ask, "marian", requests)

    assert equal(one, other) >= 5


@pytest.mark.parametrize("name", ["nllb", "m2m100", "mbart", "mbart50", "marian-multi"])
def test_each_row_has_its_own_target_language(ask: Ask, name: str) -> None:
    codes = ask(name).codec.languages[:2]
    requests = [asked(name, text, target_language=code) for text in TEXTS[:3] for code in codes]

    one, other = both(ask, name, requests)

    assert equal(one, other) >= 5
    assert texts_of(other[0:1]) != texts_of(other[1:2]) or texts_of(other[2:3]) != texts_of(other[3:4])


@pytest.mark.parametrize("name", WRITERS)
def test_continuations_are_scored_alike(ask: Ask, name: str) -> None:
    requests = [Score((" rain", " the sun", " fox"), prompt=text) for text in TEXTS]

    one, other = both(ask, name, requests)

    for left, right in zip(one, other, strict=True):
        assert isinstance(right, Scored)
        assert right.tokens == left.tokens
        assert right.logprobs == pytest.approx(left.logprobs, rel=1e-3, abs=1e-3)


def test_scoring_goes_in_parts_when_the_vocabulary_is_large(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.engines.ctranslate2 import nets

    requests = [Score((" rain", " the sun"), prompt=text) for text in TEXTS]
    whole = ask("gpt2", engine="ctranslate2")(*requests)

    monkeypatch.setattr(nets, "SCORED_NUMBERS", 1)
    parts = ask("gpt2", engine="ctranslate2")(*requests)

    for left, right in zip(whole, parts, strict=True):
        assert isinstance(left, Scored)
        assert isinstance(right, Scored)
        assert right.logprobs == pytest.approx(left.logprobs, rel=1e-4)


def test_a_prompt_of_one_token_spoils_no_other(ask: Ask) -> None:
    subject = ask("gpt2", engine="ctranslate2")
    short = next(text for text in ("e", "a", "t") if len(subject.codec.spans(text)) == 1)
    requests = [asked("gpt2", text) for text in (short, *TEXTS)]

    together = subject(*requests)

    assert together == subject.one_by_one(*requests)


def test_draws_give_as_many_samples_as_asked(ask: Ask) -> None:
    requests = [asked("gpt2", text, temperature=1.0, n=4, top_p=0.9) for text in TEXTS]

    outcomes: list[Any] = ask("gpt2", engine="ctranslate2")(*requests)

    assert [len(outcome.samples) for outcome in outcomes] == [4] * 6
    assert any(len({sample.text for sample in outcome.samples}) > 1 for outcome in outcomes)


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [({"temperature": 1.0, "seed": 7}, "seed"), ({"temperature": 0.7, "num_beams": 2}, "beams")],
)
def test_what_it_cannot_honour_is_refused_for_that_request_alone(ask: Ask, wishes: dict[str, Any], reason: str) -> None:
    requests = [asked("t5", TEXTS[0]), asked("t5", TEXTS[0], **wishes), asked("t5", TEXTS[0], seed=7)]

    before, refused, after = ask("t5", engine="ctranslate2")(*requests)

    assert isinstance(before, Generated)
    assert isinstance(after, Generated)  # a seed asks for nothing where nothing is drawn
    assert isinstance(refused, Failed)
    assert refused.code == "invalid_item"
    assert reason in refused.message


def test_settings_it_cannot_honour_fail_the_model(tiny: Tiny) -> None:
    spec = tiny("t5", engine="ctranslate2", generation={"encoder_no_repeat_ngram_size": 2, "typical_p": 0.5})

    with pytest.raises(ModelFailed, match="encoder_no_repeat_ngram_size, typical_p"):
        engine("ctranslate2").codec(spec)


def test_an_encoder_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelFailed, match="not encoders"):
        engine("ctranslate2").codec(tiny("bert", engine="ctranslate2"))


def test_a_precision_that_the_machine_lacks_is_refused_with_those_it_has(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ctranslate2

    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda *_: {"float32", "int8", "int8_float32"})

    with pytest.raises(ModelFailed, match="in float32, int8, not in bfloat16"):
        Subject(tiny("t5", engine="ctranslate2", dtype="bfloat16"))


def test_int8_takes_a_part_of_the_memory_and_stays_near(ask: Ask) -> None:
    requests = [Score((" rain", " fox"), prompt=text) for text in TEXTS]
    whole, small = ask("gpt2", engine="ctranslate2"), ask("gpt2", engine="ctranslate2", dtype="int8")

    one, other = ([sum(outcome.logprobs) for outcome in each(*requests)] for each in (whole, small))

    assert one != other
    assert median(abs(right / left - 1) for left, right in zip(one, other, strict=True)) < 0.2
    assert small.model.stats()["memory_bytes"] < 0.7 * whole.model.stats()["memory_bytes"]


def test_a_conversion_that_says_something_else_is_not_used(tiny: Tiny, tmp_path: Path) -> None:
    spec = tiny.copy("marian", tmp_path / "marian").model_copy(update={"engine": "ctranslate2"})
    weights = safetensors.torch.load_file(tmp_path / "marian" / "model.safetensors")
    for name in [name for name in weights if name.endswith(("embed_tokens.weight", "shared.weight"))]:
        weights[name][-1] = torch.ones(weights[name].shape[1])  # CTranslate2 takes Marian's padding for zeros
    safetensors.torch.save_file(weights, tmp_path / "marian" / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelFailed, match="answers otherwise than the model itself"):
        Subject(spec)

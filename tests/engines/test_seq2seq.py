"""Encoder-decoder models: the same text whatever the company, languages per row, the model's own settings."""

from typing import Any

import pytest
import torch
import transformers

from jobs.tasks.base import Failed, Generate, Generated, Sampling
from jobs.tasks.templates import Template
from tests.engines.conftest import Ask, Subject, texts_of
from tests.engines.tiny import SEQ2SEQ, Tiny

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
"""Marian's tokenizer recommends a package it does not use, when Transformers itself loads it for comparison."""

TEXTS = [
    "the quick brown fox",
    "a",
    "Seoul is the capital of Korea and Paris is the capital of France",
    "we like long walks",
    "rain",
    "who reads this, and why? nobody knows",
]
MULTILINGUAL = {
    "nllb": ("eng_Latn", "kor_Hang", "deu_Latn", "zho_Hant"),
    "m2m100": ("en", "ko", "de", "zh"),
    "mbart": ("en_XX", "ko_KR", "de_DE", "ro_RO"),
    "mbart50": ("en_XX", "ko_KR", "de_DE", "ro_RO"),
}


TIE = 1e-4
"""Scores of beams are mean log-probabilities; of random weights the best two are some 1e-3 apart."""


def reference(name: str, tiny: Tiny) -> tuple[Any, Any]:
    path = tiny(name).path
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.parametrize(
    "wishes",
    [{}, {"num_beams": 1}, {"num_beams": 3, "length_penalty": 2.0}, {"num_beams": 1, "repetition_penalty": 1.5}],
    ids=str,
)
def test_a_batch_writes_what_transformers_writes_alone(name: str, wishes: dict[str, Any], tiny: Tiny, ask: Ask) -> None:
    subject, (model, tokenizer) = ask(name), reference(name, tiny)
    requests = [Generate(source=text, sampling=Sampling(max_new_tokens=10, **wishes)) for text in TEXTS]

    together, alone = subject(*requests), subject.one_by_one(*requests)

    assert together == alone
    assert len(set(texts_of(together))) > 2
    for text, written in zip(TEXTS, texts_of(together), strict=True):
        asked = tokenizer(text, return_tensors="pt")
        made = model.generate(**asked, max_new_tokens=10, **wishes)
        if written != _text(tokenizer, made[0, 1:].tolist()):
            assert written in _tied(model, tokenizer, asked, wishes)


def _tied(model: Any, tokenizer: Any, asked: Any, wishes: dict[str, Any]) -> list[str]:
    """What a beam search finds as good as its best: vocabularies are trained anew for each run, and now and then two
    beams of random weights are closer than what a sum in another order makes of them."""
    beams = wishes.get("num_beams") or model.generation_config.num_beams or 1
    if beams == 1:
        return []
    more = {"num_return_sequences": beams, "output_scores": True, "return_dict_in_generate": True}
    made = model.generate(**asked, max_new_tokens=10, **wishes, **more)
    scores = made.sequences_scores.tolist()
    close = [row for row, score in zip(made.sequences, scores, strict=True) if scores[0] - score < TIE]
    return [_text(tokenizer, row[1:].tolist()) for row in close]


@pytest.mark.parametrize("name", list(MULTILINGUAL))
def test_each_row_has_its_own_pair_of_languages(name: str, tiny: Tiny, ask: Ask) -> None:
    model, tokenizer = reference(name, tiny)
    codes = MULTILINGUAL[name]
    rows = [(text, codes[at % 4], codes[(at + 1 + at // 4) % 4]) for at, text in enumerate(TEXTS)]
    setting = "decoder_start_token_id" if name == "mbart" else "forced_bos_token_id"
    expected = []
    for text, source, target in rows:
        tokenizer.src_lang = source
        token = tokenizer.get_lang_id(target) if name == "m2m100" else tokenizer.convert_tokens_to_ids(target)
        made = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=8, **{setting: token})
        expected.append(_text(tokenizer, made[0, 1:].tolist()))

    requests = [
        Generate(source=text, source_language=source, target_language=target, sampling=Sampling(max_new_tokens=8))
        for text, source, target in rows
    ]
    together, alone = ask(name)(*requests), ask(name).one_by_one(*requests)

    assert together == alone
    assert texts_of(together) == expected


@pytest.mark.parametrize("name", list(MULTILINGUAL))
def test_source_and_target_language_change_the_text(name: str, ask: Ask) -> None:
    codes = MULTILINGUAL[name]
    targets = [Generate(source=TEXTS[2], source_language=codes[0], target_language=code) for code in codes]
    sources = [Generate(source=TEXTS[2], source_language=code, target_language=codes[1]) for code in codes]

    assert len(set(texts_of(ask(name)(*targets)))) > 1
    assert len(set(texts_of(ask(name)(*sources)))) > 1


def test_marian_is_told_its_target_before_the_text(ask: Ask) -> None:
    codec: Any = ask("marian-multi").codec

    (plain,) = codec.encode([Generate(source="the fox")])
    (french,) = codec.encode([Generate(source="the fox", target_language="fra")])
    (forged,) = codec.encode([Generate(source=">>fra<< the fox")])

    token = codec.tokenizer.convert_tokens_to_ids(">>fra<<")
    assert french.payload.ids == [token, *plain.payload.ids]
    assert token not in forged.payload.ids
    assert codec.tokenizer(">>fra<< the fox")["input_ids"] == french.payload.ids


def test_a_language_code_of_another_model_is_refused(ask: Ask) -> None:
    fine, refused = ask("nllb")(
        Generate(source="fox", target_language="deu_Latn"), Generate(source="fox", target_language="de_DE")
    )

    assert isinstance(fine, Generated)
    assert isinstance(refused, Failed)
    assert (refused.code, "de_DE" in refused.message) == ("unsupported_language", True)


def test_language_tokens_are_not_part_of_the_text(ask: Ask) -> None:
    for name, codes in MULTILINGUAL.items():
        found = texts_of(ask(name)(*(Generate(source=text, target_language=codes[2]) for text in TEXTS)))
        assert not any(code in text for text in found for code in (*codes, "__de__"))


def test_the_models_own_generation_settings_hold(tiny: Tiny, ask: Ask) -> None:
    model, tokenizer = reference("bart", tiny)
    expected = []
    for text in TEXTS:
        made = model.generate(**tokenizer(text, return_tensors="pt"))
        expected.append((_text(tokenizer, made[0, 1:].tolist()), made.shape[1] - 1))
    subject = ask("bart")

    found = subject(*(Generate(source=text) for text in TEXTS))

    for (text, tokens), outcome in zip(expected, found, strict=True):
        assert isinstance(outcome, Generated)
        assert (outcome.samples[0].text, outcome.output_tokens) == (text, tokens)
    own = {"num_beams": 2, "min_length": 3, "no_repeat_ngram_size": 3, "max_new_tokens": 19}
    assert {key: subject.codec.in_force[key] for key in own} == own


def test_the_registry_may_override_the_models_settings(tiny: Tiny) -> None:
    subject = Subject(tiny("bart", generation={"num_beams": 1, "max_new_tokens": 5, "min_length": 0}))

    (outcome,) = subject(Generate(source="the fox"))

    assert isinstance(outcome, Generated)
    assert outcome.output_tokens <= 5
    assert subject.codec.in_force["max_new_tokens"] == 5


def test_an_answer_never_outgrows_the_decoders_positions(ask: Ask) -> None:
    (outcome,) = ask("pegasus")(Generate(source="the fox", sampling=Sampling(max_new_tokens=500, min_new_tokens=500)))

    assert isinstance(outcome, Generated)
    assert outcome.output_tokens == 63


@pytest.mark.parametrize("name", ["t5", "m2m100"])
def test_draws_do_not_depend_on_the_company(name: str, ask: Ask) -> None:
    wishes = Sampling(max_new_tokens=8, temperature=1.2, num_beams=1)
    requests = [Generate(source=text, sampling=wishes, n=2, seed=4) for text in TEXTS]

    together, alone = ask(name)(*requests), ask(name).one_by_one(*requests)

    assert together == alone
    assert len(set(texts_of(together))) > len(TEXTS)


@pytest.mark.parametrize("name", ["t5", "marian", "bart"])
def test_stop_strings_end_a_text(name: str, ask: Ask) -> None:
    subject = ask(name)
    wishes = Sampling(max_new_tokens=10, num_beams=1, min_new_tokens=6)
    whole = texts_of(subject(*(Generate(source=text, sampling=wishes) for text in TEXTS)))
    stop = (next(text[2] for text in whole if len(text) > 4 and text[2] not in " \ufffd"),)

    found = subject(*(Generate(source=text, sampling=wishes, stop=stop) for text in TEXTS))

    assert any(stop[0] in text for text in whole)
    assert [text.partition(stop[0])[0] for text in whole] == texts_of(found)


def test_t5_declares_its_prefixes_as_prompts(tiny: Tiny, ask: Ask) -> None:
    assert {name: prompt.text for name, prompt in ask("t5").codec.prompts.items()} == {
        "summarize": "summarize: {text}",
        "translate": "translate {source} to {target}: {text}",
    }
    own = Subject(tiny("t5", prompts={"summarize": Template(text="shorten: {text}")}))
    assert own.codec.prompts["summarize"].text == "shorten: {text}"


def test_a_prompt_is_refused_where_a_source_is_needed(ask: Ask) -> None:
    (refused,) = ask("t5")(Generate(prompt="the fox"))

    assert isinstance(refused, Failed)
    assert "source" in refused.message


def test_an_empty_text_is_answered(ask: Ask) -> None:
    for name in SEQ2SEQ:
        (outcome,) = ask(name)(Generate(source="", sampling=Sampling(max_new_tokens=3)))
        assert isinstance(outcome, Generated)


def test_logits_that_are_no_numbers_fail_their_items(tiny: Tiny) -> None:
    subject = Subject(tiny("bart"))
    routes: Any = subject.model
    routes.second._net._generator._model.final_logits_bias.fill_(float("nan"))

    outcomes = subject(Generate(source="a"), Generate(source="the fox"))

    assert [outcome.code for outcome in outcomes if isinstance(outcome, Failed)] == ["model_error"] * 2


def _text(tokenizer: Any, ids: list[int]) -> str:
    """Without language tokens, which M2M100's tokenizer does not count among its special ones."""
    codes = set(getattr(tokenizer, "lang_token_to_id", {}).values())
    text: str = tokenizer.decode([number for number in ids if number not in codes], skip_special_tokens=True)
    return text

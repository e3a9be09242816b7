"""Answers of a given form: whatever a model would rather say, it says only what the form allows."""

import json
import re
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from jobs import tasks
from jobs.tasks.base import Failed, Generate, Generated, Grammar, Request, Sampling
from jobs.tasks.formats import grammar_of
from tests.engines.conftest import Ask, Subject, texts_of
from tests.engines.tiny import Tiny
from worker.engines.torch import causal_model, grammars
from worker.engines.torch.unfit import Unfit

SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
    },
    "required": ["mood", "stars", "tags"],
    "additionalProperties": False,
}
LONG = Sampling(max_new_tokens=60, temperature=0)
DRAWN = Sampling(max_new_tokens=60, temperature=1.5)
JSON = grammar_of({"type": "json_schema", "json_schema": {"name": "review", "schema": SCHEMA}})
YES_NO = grammar_of({"type": "choice", "choices": ["yes", "no", "who knows"]})
DATE = grammar_of({"type": "regex", "regex": r"[12][0-9]{3}-[01][0-9]"})


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_answers_keep_to_a_schema_drawn_or_not(name: str, ask: Ask) -> None:
    subject = ask(name)
    requests: list[Request] = [Generate(prompt="the fox", sampling=LONG, grammar=JSON)]
    requests += [Generate(prompt=f"rain {at}", sampling=DRAWN, seed=at, n=2, grammar=JSON) for at in range(6)]

    found = texts_of(subject(*requests))

    for text in found:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert len(set(found)) > 4


def test_forms_may_stand_side_by_side_with_free_texts(ask: Ask) -> None:
    subject = ask("qwen2")
    free = Generate(prompt="the fox", sampling=Sampling(max_new_tokens=9, temperature=0))
    requests: list[Request] = [
        free,
        Generate(prompt="the fox", sampling=LONG, grammar=YES_NO),
        Generate(prompt="the fox", sampling=LONG, grammar=DATE),
        Generate(prompt="the fox", sampling=LONG, grammar=JSON),
    ]

    together, alone = subject(*requests), subject.one_by_one(*requests)

    texts = texts_of(together)
    assert together == alone
    assert texts[0] == texts_of(subject(free))[0]
    assert texts[1] in ("yes", "no", "who knows")
    assert re.fullmatch(r"[12][0-9]{3}-[01][0-9]", texts[2])
    assert all(outcome.samples[0].finish_reason == "stop" for outcome in together[1:] if isinstance(outcome, Generated))


def test_an_answer_that_is_cut_says_so(ask: Ask) -> None:
    (outcome,) = ask("qwen2")(Generate(prompt="a", sampling=Sampling(max_new_tokens=3, temperature=0), grammar=JSON))

    assert isinstance(outcome, Generated)
    assert outcome.samples[0].finish_reason == "length"


def test_a_grammar_that_cannot_be_kept_to_is_that_items_alone(ask: Ask) -> None:
    broken = Generate(prompt="a", sampling=LONG, grammar=Grammar("regex", "(unclosed"))
    fine = Generate(prompt="a", sampling=LONG, grammar=YES_NO)

    found = ask("qwen2")(broken, fine)

    assert isinstance(found[0], Failed)
    assert found[0].code == "schema_unsatisfied"
    assert isinstance(found[1], Generated)


def test_models_that_cannot_be_held_to_a_form_refuse(tiny: Tiny, ask: Ask) -> None:
    seq2seq: Any = ask("marian")(Generate(source="rain", grammar=YES_NO))[0]
    converted: Any = Subject(tiny("llama", engine="ctranslate2"))(Generate(prompt="rain", grammar=YES_NO))[0]
    fake: Any = ask("llama", engine="fake")(
        Generate(prompt="rain", grammar=JSON), Generate(prompt="rain", grammar=YES_NO)
    )

    assert (seq2seq.code, converted.code) == ("invalid_item", "invalid_item")
    assert fake[0].code == "schema_unsatisfied"
    assert fake[1].samples[0].text in ("yes", "no", "who knows")


def test_a_model_without_the_loop_refuses(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def unfit(*_: Any, **__: Any) -> bool:
        raise Unfit("for this test")

    monkeypatch.setattr(causal_model, "prove", unfit)
    free = Generate(prompt="rain", sampling=Sampling(max_new_tokens=3, temperature=0))

    held, plain = Subject(tiny("qwen2"))(Generate(prompt="rain", sampling=LONG, grammar=YES_NO), free)

    assert isinstance(held, Failed)
    assert (held.code, "plain batches" in held.message) == ("schema_unsatisfied", True)
    assert isinstance(plain, Generated)


def test_a_tokenizer_that_the_library_cannot_read_is_named(ask: Ask) -> None:
    (found,) = ask("llama")(Generate(prompt="rain", grammar=YES_NO))

    assert isinstance(found, Failed)
    assert "cannot read the model's tokenizer" in found.message


def test_without_the_library_the_item_says_what_to_install(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)

    (found,) = Subject(tiny("qwen2"))(Generate(prompt="rain", grammar=YES_NO))

    assert isinstance(found, Failed)
    assert grammars.NOT_INSTALLED in found.message


def test_a_model_asked_for_entities_writes_a_list_of_them_and_nothing_else(ask: Ask) -> None:
    subject, ner = ask("qwen2"), tasks.find("ner")
    params = tasks.validate_params(ner, {"labels": ["animal", "place"]})
    (request,) = ner.preprocess(ner.input(text="a fox in Rome"), params, subject.codec).requests
    short = replace(request, messages=None, prompt="a fox", sampling=DRAWN, seed=1, n=12)

    (outcome,) = subject(short)

    whole = [each.text for each in outcome.samples if each.finish_reason == "stop"]
    assert whole
    for text in whole:
        assert all(set(each) == {"text", "label"} and each["label"] in ("animal", "place") for each in json.loads(text))
    assert all(each.text.startswith("[") for each in outcome.samples)

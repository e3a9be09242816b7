"""Decoder-only models: the same text whatever the company, draws that no neighbour touches, true likelihoods."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from jobs.tasks.base import Failed, Generate, Generated, Message, Sample, Sampling, Score, Scored
from tests.engines.conftest import Ask, Subject, module_of, texts_of
from tests.engines.tiny import DECODERS, Tiny, write_json
from worker.engines.base import Encoded, Work
from worker.engines.torch.drawing import uniform

PROMPTS = [
    "the quick brown fox",
    "a",
    "Seoul is the capital of Korea and",
    "we like long walks",
    "rain",
    "who reads this, and why? nobody knows",
]
GREEDY = Sampling(max_new_tokens=10, temperature=0)


def reference(name: str, tiny: Tiny) -> tuple[Any, Any]:
    path = tiny(name).path
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(
    "wishes",
    [
        {"temperature": 0},
        {"num_beams": 3, "length_penalty": 0.5},
        {"repetition_penalty": 1.7, "temperature": 0},
        {"no_repeat_ngram_size": 2, "temperature": 0},
        {"min_new_tokens": 10, "temperature": 0},
    ],
    ids=str,
)
def test_a_batch_writes_what_transformers_writes_alone(name: str, wishes: dict[str, Any], tiny: Tiny, ask: Ask) -> None:
    model, tokenizer = reference(name, tiny)
    settings = {key: value for key, value in wishes.items() if key != "temperature"}
    expected = []
    for prompt in PROMPTS:
        given = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**given, max_new_tokens=10, do_sample=False, **settings)
        expected.append(made[0, given["input_ids"].shape[1] :].tolist())

    subject = ask(name)
    requests = [Generate(prompt=prompt, sampling=Sampling(max_new_tokens=10, **wishes)) for prompt in PROMPTS]
    together, alone = subject(*requests), subject.one_by_one(*requests)

    assert together == alone
    assert len(set(texts_of(together))) == len(PROMPTS)
    for wanted, prompt, outcome in zip(expected, PROMPTS, together, strict=True):
        assert isinstance(outcome, Generated)
        prompt_ids = tokenizer(prompt)["input_ids"]
        before = tokenizer.decode(prompt_ids, skip_special_tokens=True)
        assert before + outcome.samples[0].text == tokenizer.decode(prompt_ids + wanted, skip_special_tokens=True)


@pytest.mark.parametrize("name", DECODERS)
def test_draws_depend_on_seed_seq_and_sample_only(name: str, ask: Ask) -> None:
    subject = ask(name)
    wishes = Sampling(max_new_tokens=8, temperature=0.9, top_p=0.95)
    requests = [Generate(prompt=prompt, sampling=wishes, n=2, seed=5) for prompt in PROMPTS]

    together, alone, again = subject(*requests), subject.one_by_one(*requests), subject(*requests)

    assert together == alone == again
    texts = texts_of(together)
    assert len(set(texts)) > 2 * len(PROMPTS) - 3


def test_another_seed_or_seq_draws_another_text(ask: Ask) -> None:
    subject = ask("gpt2")
    wishes = Sampling(max_new_tokens=12, temperature=1.5)

    def drawn(seed: int | None, seq: int) -> list[str]:
        (encoded,) = subject.codec.encode([Generate(prompt="the fox", sampling=wishes, seed=seed)])
        assert isinstance(encoded, Encoded)
        subject.model.add([Work("key", encoded, seq)])
        return texts_of([outcome for _, outcome in subject.model.step()])

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(None, 0) == drawn(0, 0)
    assert len({str(drawn(seed, seq)) for seed in (1, 2) for seq in (0, 1)}) == 4


def test_draws_follow_the_models_probabilities(ask: Ask, tiny: Tiny) -> None:
    model, tokenizer = reference("gpt2", tiny)
    with torch.no_grad():
        logits = model(**tokenizer("the fox", return_tensors="pt")).logits[0, -1]
    kept = torch.topk(logits / 4.0, 5)
    expected = dict(zip(kept.indices.tolist(), kept.values.softmax(-1).tolist(), strict=True))
    wishes = Sampling(max_new_tokens=1, temperature=4.0, top_k=5)
    subject = ask("gpt2")
    n = 40

    drawn = subject(*(Generate(prompt="the fox", sampling=wishes, n=n, seed=seed) for seed in range(25)))

    before = tokenizer.decode(tokenizer("the fox")["input_ids"])
    read = {tokenizer.decode([*tokenizer("the fox")["input_ids"], each])[len(before) :]: each for each in expected}
    seen = [read[text] for text in texts_of(drawn)]
    assert len(read) == 5
    assert len(seen) == 25 * n
    assert all(seen.count(number) / len(seen) == pytest.approx(share, abs=0.06) for number, share in expected.items())


def test_the_random_numbers_are_even_and_differ_by_every_argument() -> None:
    numbers = [
        uniform(seed, seq, sample, at) for seed in (1, 2) for seq in range(5) for sample in (0, 1) for at in range(50)
    ]

    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    assert sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("wishes", [{"temperature": 0.8}, {"top_p": 0.9}, {"top_k": 5}])
def test_naming_a_sampling_parameter_samples(wishes: dict[str, Any], ask: Ask) -> None:
    request = Generate(prompt="the fox", sampling=Sampling(max_new_tokens=8, **wishes), n=6, seed=1)

    assert len(set(texts_of(ask("gpt2")(request)))) > 1


@pytest.mark.parametrize("wishes", [{}, {"temperature": 0}, {"temperature": 0, "num_beams": 1}])
def test_several_samples_without_draws_or_beams_are_refused(wishes: dict[str, Any], ask: Ask) -> None:
    (refused,) = ask("gpt2")(Generate(prompt="the fox", sampling=Sampling(max_new_tokens=4, **wishes), n=3))

    assert isinstance(refused, Failed)
    assert refused.code == "invalid_item"
    assert "n=3 asked of a model that takes the likeliest token each time" in refused.message
    assert "temperature" in refused.message


def test_beams_return_as_many_texts_as_asked_and_no_more_than_they_are(ask: Ask) -> None:
    wishes = Sampling(max_new_tokens=6, num_beams=3)

    found, refused = ask("gpt2")(
        Generate(prompt="the fox", sampling=wishes, n=3), Generate(prompt="the fox", sampling=wishes, n=4)
    )

    assert isinstance(found, Generated)
    assert len(set(found.samples)) == 3
    assert isinstance(refused, Failed)
    assert "3 beams" in refused.message


def test_beams_that_draw_are_seeded_too(ask: Ask) -> None:
    wishes = Sampling(max_new_tokens=8, num_beams=2, temperature=1.5)
    requests = [Generate(prompt=prompt, sampling=wishes, seed=3) for prompt in PROMPTS[:3]]
    subject = ask("gpt2")
    before = torch.random.get_rng_state()

    together, alone = subject(*requests), subject.one_by_one(*requests)

    assert together == alone
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", DECODERS)
def test_a_stop_string_ends_the_text_before_it(name: str, ask: Ask) -> None:
    subject = ask(name)
    whole = texts_of(subject(*(Generate(prompt=prompt, sampling=GREEDY) for prompt in PROMPTS)))
    stop = tuple({text[4:6] for text in whole if len(text) > 6 and "\ufffd" not in text[4:6]})
    assert stop

    found = subject(*(Generate(prompt=prompt, sampling=GREEDY, stop=stop) for prompt in PROMPTS))

    for text, outcome in zip(whole, found, strict=True):
        assert isinstance(outcome, Generated)
        ends = [text.index(each) for each in stop if each in text]
        sample = outcome.samples[0]
        if ends:
            assert (sample.text, sample.finish_reason) == (text[: min(ends)], "stop")
        else:
            assert sample.text == text


def test_a_row_that_stops_early_makes_fewer_tokens(ask: Ask) -> None:
    subject = ask("qwen2")
    (whole,) = subject(Generate(prompt="rain", sampling=GREEDY))
    assert isinstance(whole, Generated)
    first = whole.samples[0].text[:1]

    (stopped,) = subject(Generate(prompt="rain", sampling=GREEDY, stop=(first,)))

    assert isinstance(stopped, Generated)
    assert (stopped.samples[0].text, whole.samples[0].finish_reason) == ("", "length")
    assert stopped.output_tokens < whole.output_tokens == 10


@pytest.mark.parametrize(("name", "beams"), [("qwen2", 1), ("qwen2", 2), ("llama", 1)])
def test_a_stop_string_of_several_tokens_ends_the_writing(name: str, beams: int, ask: Ask) -> None:
    subject = ask(name)
    wishes = Sampling(max_new_tokens=30, min_new_tokens=30, temperature=0, num_beams=beams)
    (whole,) = subject(Generate(prompt="rain", sampling=wishes))
    assert isinstance(whole, Generated)
    text = whole.samples[0].text
    stop = text[len(text) // 2 :][:8]

    (stopped,) = subject(Generate(prompt="rain", sampling=wishes, stop=(stop,)))

    assert isinstance(stopped, Generated)
    assert len(subject.codec.encode([Generate(prompt=stop)])[0].payload.ids) > 3  # type: ignore[union-attr]
    assert stopped.samples[0].text == text[: text.index(stop)]
    if beams == 1:  # a search may go on with another beam
        assert stopped.output_tokens < 26


def test_a_stop_string_may_begin_with_the_space_that_the_first_token_brings(ask: Ask) -> None:
    for beams in (1, 2):
        wishes = Sampling(max_new_tokens=12, min_new_tokens=12, temperature=0, num_beams=beams)
        asked = [Generate(prompt=prompt, sampling=wishes) for prompt in PROMPTS]
        prompt, text = next(
            (prompt, text)
            for prompt, text in zip(PROMPTS, texts_of(ask("llama")(*asked)), strict=True)
            if text.startswith(" ") and len(text) > 2
        )

        (stopped,) = ask("llama")(Generate(prompt=prompt, sampling=wishes, stop=(text[:2],)))

        assert isinstance(stopped, Generated)
        assert stopped.samples[0] == Sample("", "stop")
        assert stopped.output_tokens < 12


def test_the_models_own_stop_strings_end_a_text(tiny: Tiny) -> None:
    (whole,) = texts_of(Subject(tiny("qwen2"))(Generate(prompt="rain", sampling=GREEDY)))
    subject = Subject(tiny("qwen2", generation={"stop_strings": [whole[3:5], "never"]}))

    looped, searched = subject(
        Generate(prompt="rain", sampling=GREEDY, stop=("nor this",)),
        Generate(prompt="rain", sampling=Sampling(max_new_tokens=10, num_beams=2, temperature=0)),
    )

    assert looped.samples[0] == Sample(whole[: whole.index(whole[3:5])], "stop")  # type: ignore[union-attr]
    assert isinstance(searched, Generated)
    assert subject.codec.in_force["stop_strings"] == [whole[3:5], "never"]


@pytest.mark.parametrize(
    ("generation", "wishes"),
    [
        ({}, {"num_beams": 3, "no_repeat_ngram_size": 1}),
        ({}, {"num_beams": 2, "repetition_penalty": 1.5}),
        ({"encoder_repetition_penalty": 1.5}, {}),
        ({"encoder_no_repeat_ngram_size": 1}, {}),
        ({"guidance_scale": 1.5}, {}),
        ({"sequence_bias": [[[5, 6], 3.0]]}, {}),
    ],
    ids=str,
)
def test_rules_that_read_the_prompt_read_no_padding(
    generation: dict[str, Any], wishes: dict[str, Any], tiny: Tiny
) -> None:
    subject = Subject(tiny("qwen2", generation=generation))
    prompts = [*PROMPTS, "one", "two", "sea"]
    asked = [Generate(prompt=each, sampling=Sampling(max_new_tokens=12, temperature=0, **wishes)) for each in prompts]

    together, alone = subject(*asked), subject.one_by_one(*asked)

    assert together == alone
    plain = subject.model.second.stats()  # type: ignore[attr-defined]
    assert plain["items"] == 2 * len(prompts)
    assert plain["padded_tokens"] >= plain["tokens"]
    assert plain["batches"] < 2 * len(prompts)


def test_the_end_token_is_reported_as_stop(tiny: Tiny) -> None:
    model, tokenizer = reference("gpt2", tiny)
    given = tokenizer("rain", return_tensors="pt")
    made = model.generate(**given, max_new_tokens=10, do_sample=False)[0, given["input_ids"].shape[1] :].tolist()
    third = made[2]

    ended = Subject(tiny("gpt2", generation={"eos_token_id": [third, 0]}))
    (outcome,) = ended(Generate(prompt="rain", sampling=GREEDY))

    assert isinstance(outcome, Generated)
    assert (outcome.samples[0].finish_reason, outcome.output_tokens) == ("stop", made.index(third) + 1)


def test_the_models_own_settings_hold_unless_the_request_says_otherwise(tiny: Tiny, tmp_path: Path) -> None:
    spec = tiny.copy("gpt2", tmp_path / "model")
    model, tokenizer = reference("gpt2", tiny)
    own = {"max_new_tokens": 7, "repetition_penalty": 1.9, "suppress_tokens": [20, 21, 22], "eos_token_id": 0}
    write_json(Path(spec.path) / "generation_config.json", {**own, "pad_token_id": 1})
    given = tokenizer("the fox", return_tensors="pt")
    expected = model.generate(**given, do_sample=False, **own)[0, given["input_ids"].shape[1] :].tolist()
    subject = Subject(spec)

    mine, other = subject(Generate(prompt="the fox"), Generate(prompt="the fox", sampling=Sampling(max_new_tokens=3)))

    assert isinstance(mine, Generated)
    assert mine.output_tokens == len(expected)
    assert mine.samples[0].text == tokenizer.decode(expected, skip_special_tokens=True)
    assert isinstance(other, Generated)
    assert other.output_tokens == 3
    assert {key: subject.codec.in_force[key] for key in own} == own


def test_a_model_that_samples_by_itself_does_so_with_our_numbers(tiny: Tiny) -> None:
    settings = {"do_sample": True, "temperature": 1.3, "top_k": 0, "max_new_tokens": 8}
    subject = Subject(tiny("gpt2", generation=settings))
    requests = [Generate(prompt=prompt, seed=at) for at, prompt in enumerate(PROMPTS)]

    together, alone = subject(*requests), subject.one_by_one(*requests)
    (greedy,) = subject(Generate(prompt=PROMPTS[0], sampling=Sampling(temperature=0)))

    assert together == alone
    assert greedy != together[0]


def test_a_least_length_counted_from_the_prompts_start_is_the_same_in_company(tiny: Tiny) -> None:
    subject = Subject(tiny("gpt2", generation={"min_length": 30, "max_length": 40}))
    requests = [Generate(prompt=prompt, sampling=Sampling(temperature=0)) for prompt in PROMPTS]

    together, alone = subject(*requests), subject.one_by_one(*requests)

    assert together == alone
    assert all(30 <= outcome.input_tokens + outcome.output_tokens <= 40 for outcome in together)


def test_rows_of_unlike_wishes_are_generated_apart(ask: Ask) -> None:
    subject = ask("gpt2")
    wishes = [GREEDY, Sampling(max_new_tokens=4, temperature=0), Sampling(max_new_tokens=6, num_beams=2)]
    requests = [Generate(prompt=prompt, sampling=wishes[at % 3]) for at, prompt in enumerate(PROMPTS)]

    assert subject(*requests) == subject.one_by_one(*requests)


def test_an_empty_prompt_is_continued(ask: Ask) -> None:
    for name in DECODERS:
        (outcome,) = ask(name)(Generate(prompt="", sampling=Sampling(max_new_tokens=3, min_new_tokens=3)))
        assert isinstance(outcome, Generated)
        assert outcome.output_tokens == 3


def test_a_conversation_is_answered(ask: Ask) -> None:
    talks = [(Message("user", prompt),) for prompt in PROMPTS]
    requests = [Generate(messages=talk, sampling=GREEDY) for talk in talks]

    together, alone = ask("qwen2")(*requests), ask("qwen2").one_by_one(*requests)

    assert together == alone
    assert len(set(texts_of(together))) > 3


# ----- likelihoods ---------------------------------------------------------------------------------------


def likelihood(model: Any, tokenizer: Any, prompt: str, continuation: str) -> tuple[float, int]:
    """As one would compute it by hand: one row, no padding."""
    start = len(tokenizer(prompt)["input_ids"])
    ids = tokenizer(prompt + continuation, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logprobs = model(ids).logits[0].log_softmax(-1)
    picked = [float(logprobs[at - 1, ids[0, at]]) for at in range(start, ids.shape[1])]
    return sum(picked), len(picked)


@pytest.mark.parametrize("name", DECODERS)
def test_likelihoods_are_those_of_one_unpadded_row(name: str, tiny: Tiny, ask: Ask) -> None:
    model, tokenizer = reference(name, tiny)
    choices = (" rain", " the sun shines", "!", " Paris is the capital")
    expected = [[likelihood(model, tokenizer, prompt, choice) for choice in choices] for prompt in PROMPTS]

    subject = ask(name)
    requests = [Score(choices, prompt=prompt) for prompt in PROMPTS]
    together, alone = subject(*requests), subject.one_by_one(*requests)

    for wanted, one, other in zip(expected, together, alone, strict=True):
        assert isinstance(one, Scored)
        assert isinstance(other, Scored)
        assert one.logprobs == pytest.approx([value for value, _ in wanted], abs=2e-3)
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-3)
        assert one.tokens == tuple(count for _, count in wanted)
        assert len({round(value, 2) for value in one.logprobs}) == len(choices)


def test_continuations_of_one_token_share_a_row(ask: Ask) -> None:
    codec = ask("gpt2").codec

    (shared,) = codec.encode([Score(("a", "b", "c"), prompt="the quick brown fox")])
    (apart,) = codec.encode([Score(("a b c", "b c d"), prompt="the quick brown fox")])

    assert isinstance(shared, Encoded)
    assert isinstance(apart, Encoded)
    assert shared.payload.cost() == len(shared.payload.prompt)
    assert apart.payload.cost() > 2 * len(apart.payload.prompt)


def test_continuations_of_a_conversation_are_scored_behind_the_template(ask: Ask) -> None:
    talk = (Message("user", "is it raining?"),)

    found, nasty = ask("qwen2")(Score(("yes", "no rain"), messages=talk), Score(("yes<|im_end|>",), messages=talk))

    assert isinstance(found, Scored)
    assert all(value < 0 for value in found.logprobs)
    assert isinstance(nasty, Scored)
    assert nasty.tokens[0] > found.tokens[0] + 1


def test_a_continuation_without_tokens_is_refused(ask: Ask) -> None:
    (refused,) = ask("gpt2")(Score(("yes", ""), prompt="is it?"))

    assert isinstance(refused, Failed)
    assert refused.code == "invalid_item"


def test_logits_that_are_no_numbers_fail_their_items(tiny: Tiny) -> None:
    subject = Subject(tiny("llama"))
    (encoded,) = subject.codec.encode([Generate(prompt="rain")])
    assert isinstance(encoded, Encoded)
    poisoned = encoded.payload.ids[-1]
    module_of(subject.model).model.embed_tokens.weight[poisoned] = float("nan")

    requests = [Generate(prompt=text, sampling=GREEDY) for text in ("rain", "the fox")]
    bad, good = subject(*requests)
    scores = subject(Score((" a b", " c d"), prompt="rain"))

    assert isinstance(bad, Failed)
    assert bad.code == "model_error"
    assert isinstance(scores[0], Failed)
    assert isinstance(good, Generated)


def test_without_the_mask_company_changes_the_text(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teeth of this suite where texts go through `generate()`."""
    subject = Subject(tiny("gptj"))
    module = module_of(subject.model)
    whole = module.generate
    monkeypatch.setattr(
        module, "generate", lambda **given: whole(**{**given, "attention_mask": torch.ones_like(given["input_ids"])})
    )
    requests = [Generate(prompt=prompt, sampling=GREEDY) for prompt in PROMPTS]

    assert subject(*requests) != subject.one_by_one(*requests)

"""Rules over rows of scores: each equals Transformers' own processor, row by row, whatever the other rows are."""

import random
from typing import Any

import pytest
import torch
import transformers

from tests.engines.tiny import Tiny
from worker.engines.torch.drawing import uniform
from worker.engines.torch.rules import UNSUPPORTED, Line, Lot, Rules, chosen, ruled, supported

WORDS = 40
MOST = 12
SETTINGS: list[dict[str, Any]] = [
    {},
    {"suppress_tokens": [3, 5, 39]},
    {"bad_words_ids": [[4], [7], [1]]},
    {"begin_suppress_tokens": [2, 6]},
    {"begin_suppress_tokens": [2, 6], "forced_bos_token_id": 9},
    {"forced_bos_token_id": 9},
    {"forced_eos_token_id": 1},
    {"forced_eos_token_id": [1, 2]},
    {"min_new_tokens": 4},
    {"min_new_tokens": 4, "eos_token_id": [1, 2]},
    {"repetition_penalty": 1.7},
    {"repetition_penalty": 0.6},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "min_new_tokens": 2, "suppress_tokens": [8]},
    {"renormalize_logits": True, "suppress_tokens": [8]},
]
DRAWS: list[dict[str, Any]] = [
    {"temperature": 0.7},
    {"top_k": 5},
    {"top_k": 0, "top_p": 0.8},
    {"min_p": 0.1, "top_k": 0},
    {"typical_p": 0.7},
    {"epsilon_cutoff": 0.02},
    {"eta_cutoff": 0.05},
    {"top_h": 0.5, "top_k": 0},
    {"temperature": 1.3, "top_k": 12, "top_p": 0.9, "repetition_penalty": 1.4, "min_new_tokens": 3},
]


def config_of(**settings: Any) -> Any:
    given = {"eos_token_id": 1, "pad_token_id": 0, "max_new_tokens": MOST, "min_length": 0, **settings}
    return transformers.GenerationConfig(**given)


def lines_of(rules: Rules, seed: int = 0) -> list[Line]:
    """Rows of different lengths at different positions, the first and the last among them."""
    chance = random.Random(seed)
    found = []
    for position in [0, 0, 1, 2, 3, 4, 5, MOST - 1, MOST - 1, 0, 1]:
        start = chance.choice([1, 1, 2, 5, 9])
        ids = [chance.randrange(2, 12) for _ in range(start + position)]
        found.append(Line(rules, start, position, ids if rules.looks_back else ()))
    return found


def scores_for(lines: list[Line], seed: int = 0) -> torch.Tensor:
    return torch.randn(len(lines), WORDS, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(tiny("gpt2").path)


def transformers_says(model: Any, settings: dict[str, Any], line: Line, scores: torch.Tensor) -> torch.Tensor:
    """The scores [words] after the library's own processors, for one row by itself."""
    config = config_of(**settings)
    config.max_length = line.start + MOST
    config.min_length = None
    model._prepare_special_tokens(config, device=scores.device)
    processors = model._get_logits_processor(config, input_ids_seq_length=line.start)
    ids = list(line.ids) or [11] * (line.start + line.position)
    made: torch.Tensor = processors(torch.tensor([ids]), scores[None])[0]
    return made


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_each_rule_is_transformers_own(settings: dict[str, Any], model: Any) -> None:
    rules = Rules(config_of(**settings), torch.device("cpu"), draws=False)
    lines = lines_of(rules)
    scores = scores_for(lines)

    found = ruled(scores, lines)

    for line, given, made in zip(lines, scores, found, strict=True):
        assert torch.equal(made, transformers_says(model, settings, line, given))
    assert torch.equal(found, scores) == (not settings)


@pytest.mark.parametrize("settings", DRAWS, ids=str)
def test_draws_follow_what_transformers_warpers_leave(settings: dict[str, Any], model: Any) -> None:
    rules = Rules(config_of(do_sample=True, **settings), torch.device("cpu"), draws=True)
    lines = lines_of(rules)
    lots = [Lot(seed, seed + 3, seed % 2) for seed in range(len(lines))]
    scores = scores_for(lines)

    found = chosen(ruled(scores, lines), lines, lots)

    for line, lot, given, token in zip(lines, lots, scores, found, strict=True):
        asked = {"do_sample": True, "top_k": 50, **settings}
        shares = transformers_says(model, asked, line, given).double().softmax(-1).cumsum(-1)
        number = uniform(lot.seed, lot.seq, lot.sample, line.position)
        assert token == int(torch.searchsorted(shares, number * shares[-1], right=True))
    assert len(set(found)) > 3


def test_rows_of_different_rules_stand_in_one_tensor() -> None:
    made = [Rules(config_of(**settings), torch.device("cpu"), draws=False) for settings in SETTINGS]
    lines = [line for at, rules in enumerate(made) for line in lines_of(rules, seed=at)]
    random.Random(1).shuffle(lines)
    scores = scores_for(lines)

    together = ruled(scores, lines)

    alone = [ruled(given[None], [line])[0] for given, line in zip(scores, lines, strict=True)]
    assert torch.equal(together, torch.stack(alone))


def test_greedy_and_drawn_rows_choose_together() -> None:
    greedy = Rules(config_of(), torch.device("cpu"), draws=False)
    draw = Rules(config_of(temperature=2.0, do_sample=True), torch.device("cpu"), draws=True)
    lines = [Line(greedy if at % 2 else draw, 3, 1) for at in range(20)]
    lots = [Lot(7, at, 0) for at in range(20)]
    scores = scores_for(lines)

    together = chosen(scores, lines, lots)

    alone = [chosen(scores[at : at + 1], [lines[at]], [lots[at]])[0] for at in range(20)]
    assert together == alone
    assert together[1::2] == scores.argmax(-1).tolist()[1::2]
    assert together[::2] != scores.argmax(-1).tolist()[::2]


def test_the_scores_given_stay_as_they_are() -> None:
    rules = Rules(config_of(suppress_tokens=[3]), torch.device("cpu"), draws=False)
    scores = scores_for([Line(rules, 1, 0)])
    before = scores.clone()

    ruled(scores, [Line(rules, 1, 0)])

    assert torch.equal(scores, before)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, None),
        ({"num_beams": 4, "length_penalty": 0.5}, None),
        ({"do_sample": True, "top_p": 0.9}, None),
        ({"bad_words_ids": [[5], [6]]}, None),
        ({"bad_words_ids": [[5], [6, 7]]}, "bad_words_ids of several tokens"),
        ({"guidance_scale": 1.5}, "guidance_scale"),
        ({"sequence_bias": [[[3], 1.5]]}, "sequence_bias"),
        ({"encoder_repetition_penalty": 1.2}, "encoder_repetition_penalty"),
        ({"encoder_no_repeat_ngram_size": 3}, "encoder_no_repeat_ngram_size"),
        ({"exponential_decay_length_penalty": (5, 1.2)}, "exponential_decay_length_penalty"),
        ({"num_beam_groups": 2, "num_beams": 4, "diversity_penalty": 0.5}, "diversity_penalty"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha"),
        ({"remove_invalid_values": True}, "remove_invalid_values"),
        ({"do_sample": True, "num_beams": 2}, "beams that draw"),
    ],
    ids=str,
)
def test_what_only_generate_knows_is_named(settings: dict[str, Any], reason: str | None) -> None:
    assert supported(config_of(**settings)) == reason


def test_every_setting_of_transformers_that_shapes_scores_is_a_rule_or_refused() -> None:
    """A version of the library with another processor shows here."""
    rules = {"bad_words_ids", "begin_suppress_tokens", "eos_token_id", "forced_bos_token_id", "forced_eos_token_id"}
    rules |= {"max_length", "max_new_tokens", "min_length", "min_new_tokens", "no_repeat_ngram_size", "suppress_tokens"}
    rules |= {"repetition_penalty", "renormalize_logits", "do_sample", "temperature", "top_k", "top_p", "min_p"}
    rules |= {"top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "num_beams", "length_penalty", "early_stopping"}
    source = transformers.GenerationMixin._get_logits_processor.__code__

    read = {name for name in source.co_names if hasattr(transformers.GenerationConfig(), name)}

    assert len(read) > 20
    assert read - rules - UNSUPPORTED.keys() <= {"pad_token_id", "use_cache"}

"""What a generation runs with: the model's own GenerationConfig with the request's wishes laid over it."""

import copy
from collections.abc import Hashable
from typing import Any, NamedTuple

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Generate, Grammar, Sampling

NEW_TOKENS = 256
"""Most new tokens where neither the request nor the model names a number."""
EXPECTED_SHARE = 4
"""One in so many of the allowed new tokens is counted as cost: most answers end early."""
READS_BEFORE = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "guidance_scale": 1.0,
    "watermarking_config": None,
}
"""Rules of `generate()` that read what stands before a token, padding of the batch among it; and when they are idle."""
READS_SOURCE = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}
"""Those that read what the model was given."""
SAMPLING_ONLY = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")


class Ask(NamedTuple):
    """One row of a generating model: ids that go in, and all that must be alike within a batch."""

    ids: list[int]
    most: int
    """New tokens at most."""
    least: int
    sampling: Sampling
    n: int = 1
    stop: tuple[str, ...] = ()
    target: int | None = None
    """Token of the target language."""
    rows: int = 1
    """Rows of the batch that it takes: samples or beams."""
    alone: bool = False
    """Whether it cannot share a batch: beams that draw use the library's one generator."""
    grammar: Grammar | None = None
    even: bool = False
    """Whether `generate()` must not pad it: a rule that reads the ids would take padding for text."""

    def alike(self) -> Hashable:
        """Rows with the same value may be generated together."""
        wishes = (self.most, self.least, self.sampling, self.n, self.stop, self.target, self.grammar)
        return (*wishes, id(self.ids)) if self.alone else wishes

    def cost(self) -> int:
        """Tokens of a batch it takes."""
        return self.rows * (len(self.ids) + self.most // EXPECTED_SHARE)


class Plan(NamedTuple):
    """A generation's configuration, and whether its tokens are drawn."""

    config: Any
    drawn: Any | None
    """The configuration of the draw; None: beams, or the likeliest token."""


def plan(base: Any, ask: Ask) -> Plan:
    """What `generate()` is given for rows like this one."""
    config = copy.deepcopy(base)
    _lay_over(config, ask.sampling)
    config.stop_strings = None  # they are among those of the request
    config.max_new_tokens, config.max_length = ask.most, None
    config.min_new_tokens, config.min_length = min(ask.least, ask.most) or None, 0
    beams = config.num_beams or 1
    config.num_return_sequences = ask.n if beams > 1 else 1
    config.return_dict_in_generate = config.output_scores = config.output_logits = False
    if config.do_sample and beams == 1:
        drawn = copy.deepcopy(config)
        return Plan(_undrawn(config), drawn)
    return Plan(config if config.do_sample else _undrawn(config), None)


def ask(
    base: Any, request: Generate, ids: list[int], *, most: int, length: int, behind: bool, target: int | None = None
) -> Ask:
    """The row that a request is; `behind`: what is generated stands behind the ids, as in decoder-only models. Raises
    ItemError when it asks for more samples than there are different ones."""
    wished = copy.copy(base)
    _lay_over(wished, request.sampling)
    beams, drawn = wished.num_beams or 1, bool(wished.do_sample)
    if beams > 1 and request.n > beams:
        raise ItemError(ItemErrorCode.INVALID_ITEM, f"n={request.n} asked of a search with {beams} beams")
    if request.grammar is not None and beams > 1:
        raise ItemError(ItemErrorCode.INVALID_ITEM, "the model's own num_beams rule out a response_format: give 1")
    if request.n > 1 and beams == 1 and not drawn:
        raise ItemError(
            ItemErrorCode.INVALID_ITEM,
            f"n={request.n} asked of a model that takes the likeliest token each time, so that all texts would be the "
            "same: give temperature (above 0), top_p or top_k to draw, or num_beams of at least n",
        )
    return Ask(
        ids,
        most,
        least_tokens(base, request.sampling, length=length),
        request.sampling,
        request.n,
        (*request.stop, *_strings(base.stop_strings)),
        target,
        rows=beams if beams > 1 else request.n,
        alone=drawn and beams > 1,
        grammar=request.grammar,
        even=_reads(wished, READS_SOURCE | (READS_BEFORE if behind else {})),
    )


def completed(base: Any, config: Any, tokenizer: Any) -> Any:
    """The model's generation defaults with the tokens that `generate()` cannot do without."""
    base.pad_token_id = _first(base.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    base.eos_token_id = _first(base.eos_token_id, getattr(config, "eos_token_id", None), tokenizer.eos_token_id)
    if config.is_encoder_decoder:
        start = _first(base.decoder_start_token_id, getattr(config, "decoder_start_token_id", None))
        base.decoder_start_token_id = _first(start, base.bos_token_id, base.pad_token_id)
    return base


def new_tokens(base: Any, sampling: Sampling, *, length: int) -> int | None:
    """Most new tokens after `length` tokens of prompt; None: nobody says. `length` counts for `max_length` only."""
    if sampling.max_new_tokens is not None:
        return sampling.max_new_tokens
    if base.max_new_tokens is not None:
        return int(base.max_new_tokens)
    return max(1, base.max_length - length) if base.max_length else None


def least_tokens(base: Any, sampling: Sampling, *, length: int) -> int:
    """Fewest new tokens, likewise."""
    if sampling.min_new_tokens is not None:
        return sampling.min_new_tokens
    return max(int(base.min_new_tokens or 0), int(base.min_length or 0) - length, 0)


def in_force(base: Any) -> dict[str, Any]:
    """The configuration as plain JSON values, without what is empty."""
    values = base.to_diff_dict()
    plain = (str, int, float, bool, list)
    hidden = ("transformers_version", "_from_model_config")
    return {name: value for name, value in values.items() if isinstance(value, plain) and name not in hidden}


def _reads(config: Any, rules: dict[str, Any]) -> bool:
    return any(getattr(config, name, None) not in (None, idle) for name, idle in rules.items())


def _strings(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else list(stop or [])


def _lay_over(config: Any, sampling: Sampling) -> None:
    for name in ("num_beams", "length_penalty", "repetition_penalty", "no_repeat_ngram_size", "top_p", "top_k"):
        value = getattr(sampling, name)
        if value is not None:
            setattr(config, name, value)
    if sampling.temperature is not None:
        config.do_sample = sampling.temperature > 0
        config.temperature = sampling.temperature or 1.0
    elif sampling.top_p is not None or sampling.top_k is not None:
        config.do_sample = True


def _undrawn(config: Any) -> Any:
    """Without the settings that only a draw has: `generate()` complains about them."""
    config.do_sample = False
    for name in SAMPLING_ONLY:
        if hasattr(config, name):
            setattr(config, name, None)
    return config


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)

"""What a generation asks of CTranslate2: the library's options for it, and what the library cannot honour (4.8).

- One random generator serves all rows and cannot be seeded again, so a seed per item is refused. Draws without a seed
  differ from run to run.
- Draws with beams are refused.
- A beam search ends with `num_beams` finished texts, as Transformers does with `early_stopping` true, and what
  penalties forbid adds to the likelihood of the rest.
- Stop strings cut a beam search's texts only when they are finished; elsewhere they end the row.
- The first token of a causal prompt does not count for `repetition_penalty`, and a decoder's start token neither.
"""

from collections.abc import Sequence
from typing import Any

from jobs.errors import ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Generate
from worker.engines.torch.generation import Ask, plan

TOP_K = 50
"""What Transformers takes when sampling and nobody names a `top_k` (5.23)."""
NEUTRAL: dict[str, Any] = {
    "begin_suppress_tokens": [],
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "min_p": 0.0,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "sequence_bias": None,
    "top_h": None,
    "typical_p": 1.0,
    "watermarking_config": None,
}
"""Settings of a GenerationConfig that the library has nothing for, with the value that asks for nothing."""


def check_settings(spec: ModelSpec, base: Any) -> None:
    """Raises ModelFailed when the model's own generation settings cannot be honoured."""
    asked = [name for name, neutral in NEUTRAL.items() if getattr(base, name, None) not in (None, neutral)]
    if asked:
        raise ModelFailed(
            f"model {spec.name!r}: engine 'ctranslate2' cannot honour its generation settings {', '.join(asked)}; "
            "register it for engine 'torch', or override them in the registry"
        )


def refusal(base: Any, request: Generate) -> str | None:
    """Why this request cannot be honoured; None: it can."""
    if request.grammar is not None:
        return "engine 'ctranslate2' cannot keep to a response_format: use engine 'torch'"
    sampling = request.sampling
    drawn = bool(base.do_sample) if sampling.temperature is None else sampling.temperature > 0
    drawn = drawn or (sampling.temperature is None and (sampling.top_p, sampling.top_k) != (None, None))
    if not drawn:
        return None
    if (sampling.num_beams or base.num_beams or 1) > 1:
        return "engine 'ctranslate2' does not sample with beams: set num_beams=1 or temperature=0"
    if request.seed is not None:
        return (
            "engine 'ctranslate2' cannot draw by a seed: leave `seed` out (and texts differ from run to run), set "
            "temperature=0, or use engine 'torch'"
        )
    return None


def options(base: Any, ask: Ask, *, words: int) -> dict[str, Any]:
    """Keyword arguments that both of the library's generating calls know. `words`: tokens of the vocabulary."""
    config, drawn = plan(base, ask)
    beams = config.num_beams or 1
    given = {
        "beam_size": beams,
        "num_hypotheses": ask.n if beams > 1 or drawn else 1,
        "length_penalty": 1.0 if config.length_penalty is None else config.length_penalty,
        "repetition_penalty": config.repetition_penalty or 1.0,
        "no_repeat_ngram_size": config.no_repeat_ngram_size or 0,
        "suppress_sequences": _suppressed(config, words),
        "end_token": sorted(_numbers(config.eos_token_id)),
        "return_end_token": True,  # a text's length counts its end in Transformers' length penalty
    }
    return given | (_draw(drawn, words) if drawn else {})


def looks_back(base: Any, ask: Ask) -> bool:
    """Whether tokens of the prompt count for what may follow."""
    config = plan(base, ask).config
    return (config.repetition_penalty or 1.0) != 1.0 or bool(config.no_repeat_ngram_size)


def tokens_of(ids: Sequence[int]) -> list[str]:
    """Ids as the converted vocabulary spells them."""
    return list(map(str, ids))


def _draw(config: Any, words: int) -> dict[str, Any]:
    top_k = TOP_K if config.top_k is None else config.top_k
    return {
        "sampling_topk": min(top_k, words),
        "sampling_topp": 1.0 if config.top_p is None else config.top_p,
        "sampling_temperature": config.temperature or 1.0,
    }


def _suppressed(config: Any, words: int) -> list[list[str]] | None:
    """Tokens and runs of tokens that are never written; those the vocabulary lacks (Marian's padding) cannot be."""
    runs = [*(config.bad_words_ids or []), *([token] for token in config.suppress_tokens or [])]
    return [tokens_of(run) for run in runs if max(run) < words] or None


def _numbers(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]

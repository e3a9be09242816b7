"""How many tokens a model takes, from its configuration: `model_max_length` alone can be 1e30."""

from typing import Any

from jobs.models import ModelSpec

OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "data2vec-text", "mpnet", "ibert", "esm"}
    | {"roberta-prelayernorm", "xmod", "luke", "bertweet"}
)
"""Models whose positions start behind the padding token's id: 514 positions hold 512 tokens."""
NO_LIMIT = 10**6
"""A tokenizer that names more than this names no limit."""
RELATIVE = 512
"""For models without a table of positions (T5) that name no length: what they were trained on."""


def positions(config: Any, tokenizer: Any) -> int | None:
    """Tokens that the position embeddings reach; None for a model that has no such bound."""
    text = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    if not isinstance(most, int) or most <= 0:
        return None
    return most - first_position(config, tokenizer)


def first_position(config: Any, tokenizer: Any) -> int:
    """The position of a text's first token."""
    return (tokenizer.pad_token_id or 0) + 1 if config.model_type in OFFSET_POSITIONS else 0


def input_limit(spec: ModelSpec, config: Any, tokenizer: Any, *, named: int | None = None) -> int:
    """Most tokens of one input. `named` is a limit that other files of the model state (sentence encoders)."""
    hard = positions(config, tokenizer)
    told = tokenizer.model_max_length if tokenizer.model_max_length < NO_LIMIT else None
    if hard is None:
        # Nothing breaks beyond what such a model was trained on: the registry may say more.
        return spec.max_input_tokens or named or told or getattr(config, "n_positions", None) or RELATIVE
    return min(limit for limit in (hard, told, named, spec.max_input_tokens) if limit is not None)


def answer_limit(config: Any, tokenizer: Any) -> int | None:
    """Most tokens a sequence-to-sequence model's decoder can write, its start token not counted."""
    hard = positions(config, tokenizer)
    return None if hard is None else hard - 1

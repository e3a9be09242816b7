"""Counts tokens where no model is loaded: by its own tokenizer where that can be read, else by bytes as intake does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from jobs.blocks import BYTES_PER_TOKEN
from jobs.checking import DEFAULT_NEW_TOKENS
from jobs.models import FAKE, ModelSpec

TOKENIZER, CONFIG, TOKENIZER_CONFIG = "tokenizer.json", "config.json", "tokenizer_config.json"
NO_LIMIT = 10**6
"""A tokenizer that names more than this names no limit."""

Count = Callable[[Sequence[str]], list[int]]


class Tokens(NamedTuple):
    """How the tokens of texts are counted."""

    by: Literal["tokenizer", "bytes"]
    of: Count


def tokens_of(spec: ModelSpec) -> Tokens:
    """The model's own tokenizer, where it lies in a file and the library that reads it is installed (`textmill[worker]`
    brings it; torch is not loaded); else a rough measure. What prompts add is counted by neither."""
    if spec.engine == FAKE:
        return Tokens("tokenizer", lambda texts: [len(text.split()) for text in texts])
    file = Path(spec.path) / TOKENIZER
    try:
        from tokenizers import Tokenizer

        tokenizer: Any = Tokenizer.from_file(str(file))
    except Exception:  # whatever is wrong with it: the library raises plain exceptions
        return Tokens("bytes", lambda texts: list(map(_by_bytes, texts)))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Tokens("tokenizer", lambda texts: [len(each.ids) for each in tokenizer.encode_batch_fast(list(texts))])


def input_limit(spec: ModelSpec, params: Any) -> int | None:
    """How many tokens of one text the model reads under these params; None: its files do not say."""
    if spec.kind == "causal":
        limits = [spec.context_tokens, spec.max_input_tokens]
        answer = getattr(params, "max_new_tokens", None) or DEFAULT_NEW_TOKENS
    else:
        told = _read(spec, TOKENIZER_CONFIG).get("model_max_length")
        limits = [_read(spec, CONFIG).get("max_position_embeddings"), told, spec.max_input_tokens]
        answer = 0
    named = [limit for limit in limits if isinstance(limit, int) and 0 < limit < NO_LIMIT]
    return max(min(named) - answer, 1) if named else None


def _by_bytes(text: str) -> int:
    return len(text.encode(errors="replace")) // BYTES_PER_TOKEN + 1


def _read(spec: ModelSpec, name: str) -> dict[str, Any]:
    try:
        content = orjson.loads((Path(spec.path) / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

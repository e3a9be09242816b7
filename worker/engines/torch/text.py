"""The text side that every kind of model has in common: tokens, limits, languages, refusals."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.errors import ItemError, ItemErrorCode
from jobs.models import ModelSpec
from jobs.tasks.base import Failed, Kind, Request
from jobs.tasks.templates import Template
from worker.engines.base import Encoded
from worker.engines.torch.languages import languages_of
from worker.engines.torch.loading import config_of, tokenizer_of
from worker.engines.torch.tokens import tokens_of


class TextCodec(ABC):
    """Tokenizer and configuration of one model; no weights. Safe to use from several threads."""

    kind: Kind
    heads: frozenset[type]
    has_chat_template = False

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        self.folder = folder
        self.config = config_of(spec, folder)
        self.tokenizer = tokenizer_of(spec, folder)
        self.tokens = tokens_of(self.tokenizer)
        self.pad: int = next(
            (number for number in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if number is not None), 0
        )
        self._languages = languages_of(self.tokenizer)
        own = {name: Template(text=text) for name, text in self._own_prompts().items()}
        self.prompts: Mapping[str, Template] = {**own, **spec.prompts}
        self.in_force: Mapping[str, Any] = {"mode": "close"}

    @property
    def languages(self) -> tuple[str, ...]:
        return self._languages.codes

    def language(self, code: str) -> str | None:
        return self._languages.find(code)

    def spans(self, text: str) -> list[tuple[int, int]]:
        return self.tokens.plain([text])[0].spans

    def encode(self, requests: Sequence[Request]) -> list[Encoded | Failed]:
        return [self._encoded(request) for request in requests]

    @abstractmethod
    def room(self, request: Request) -> int: ...

    @abstractmethod
    def _encode(self, request: Any) -> Encoded | Failed:
        """One request, of a kind this model answers. Raises ItemError."""

    def _own_prompts(self) -> dict[str, str]:
        """Prompt templates that the model's files declare."""
        return {}

    def _encoded(self, request: Request) -> Encoded | Failed:
        if type(request) not in self.heads:
            text = f"the model does not answer {type(request).__name__} requests"
            return Failed(ItemErrorCode.INVALID_ITEM, text)
        try:
            return self._encode(request)
        except ItemError as error:
            return Failed(error.code, error.message)
        except (UnicodeError, TypeError) as error:  # TypeError: how `tokenizers` refuses a lone surrogate
            return Failed(ItemErrorCode.INVALID_TEXT, f"the text cannot be tokenized: {error}")

    def _ids(self, text: str) -> list[int]:
        return self.tokens.ids([text])[0]


def too_long(length: int, limit: int, *, answer: int = 0) -> Failed:
    """The refusal of a request of `length` tokens, with room kept for an answer."""
    text = f"{length} tokens; the model takes at most {limit}"
    if answer:
        text = f"{length} tokens of prompt and {answer} of answer; the model's context holds {limit} together"
    return Failed(ItemErrorCode.TOO_LONG, text, input_tokens=length)

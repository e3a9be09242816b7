"""Encoder-decoder models: a source text into another, with language codes per row where the model has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from jobs.errors import ItemError, ItemErrorCode
from jobs.models import ModelSpec
from jobs.tasks.base import Failed, Generate, Kind, Outcome, Request, Sampling
from worker.engines.base import Encoded, Work
from worker.engines.torch.answers import Row
from worker.engines.torch.generation import NEW_TOKENS, Ask, ask, completed, in_force, new_tokens
from worker.engines.torch.generator import Generator
from worker.engines.torch.limits import answer_limit, input_limit
from worker.engines.torch.loading import generation_of
from worker.engines.torch.text import TextCodec, too_long

_NO_WISHES = Sampling()


class Seq2SeqCodec(TextCodec):
    """The text side of an encoder-decoder model."""

    kind: Kind = "seq2seq"
    heads = frozenset({Generate})

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__(spec, folder)
        self.generation = completed(generation_of(spec, folder, self.config), self.config, self.tokenizer)
        self.limit = input_limit(spec, self.config, self.tokenizer)
        self._answer_limit = answer_limit(self.config, self.tokenizer)
        self._source = self._default_source()
        self.target_as = self._target_setting()
        most = new_tokens(self.generation, _NO_WISHES, length=1) or NEW_TOKENS
        self.in_force = {**self.in_force, **in_force(self.generation), "max_new_tokens": self._at_most(most)}

    def room(self, request: Request) -> int:
        return self.limit - len(self._ids_of(request)) if isinstance(request, Generate) else 0

    def _own_prompts(self) -> dict[str, str]:
        """T5's prefixes, which its configuration lists by task."""
        declared = getattr(self.config, "task_specific_params", None) or {}
        prompts = {name: f"{said['prefix']}{{text}}" for name, said in declared.items() if said.get("prefix")}
        pairs = [name for name in prompts if name.startswith("translation")]
        if "summarization" in prompts:
            prompts["summarize"] = prompts.pop("summarization")
        for name in pairs:
            prompts.pop(name)
            prompts["translate"] = "translate {source} to {target}: {text}"
        return prompts

    def _encode(self, request: Any) -> Encoded | Failed:
        if request.grammar is not None:
            raise ItemError(ItemErrorCode.INVALID_ITEM, "encoder-decoder models cannot keep to a response_format")
        ids = self._ids_of(request)
        if len(ids) > self.limit:
            return too_long(len(ids), self.limit)
        named = new_tokens(self.generation, request.sampling, length=1)
        most = self._at_most(NEW_TOKENS if named is None else named)
        target = self._token(request.target_language) if self.target_as else None
        return Encoded(
            request, len(ids), ask(self.generation, request, ids, most=most, length=1, behind=False, target=target)
        )

    def _at_most(self, tokens: int) -> int:
        return tokens if self._answer_limit is None else min(tokens, self._answer_limit)

    def _ids_of(self, request: Generate) -> list[int]:
        if request.source is None:
            raise ItemError(ItemErrorCode.INVALID_ITEM, "a sequence-to-sequence model takes a source text")
        prefix, suffix = self._frame(request)
        return [*prefix, *self._ids(request.source), *suffix]

    def _frame(self, request: Generate) -> tuple[list[int], list[int]]:
        """What stands around the text: the source's language where the model has one, Marian's target before it."""
        prefix, suffix = self.tokens.prefix, self.tokens.suffix
        if self.target_as is None and request.target_language is not None:
            target = self._token(request.target_language)
            return ([] if target is None else [target]) + prefix, suffix
        source = self._token(request.source_language)
        if source is None or self._source is None:
            return prefix, suffix
        swapped = [[source if number == self._source else number for number in side] for side in (prefix, suffix)]
        return swapped[0], swapped[1]

    def _token(self, language: str | None) -> int | None:
        """The token of one of the model's languages. Raises ItemError for another."""
        if language is None or not self.languages:
            return None
        token = self._languages.token(language)
        if token is None:
            raise ItemError(
                ItemErrorCode.UNSUPPORTED_LANGUAGE, f"{language!r} is not one of the model's language codes"
            )
        return token

    def _default_source(self) -> int | None:
        """The language token that the tokenizer puts around a text by itself."""
        own = getattr(self.tokenizer, "src_lang", None)
        return self._languages.token(own) if own else None

    def _target_setting(self) -> str | None:
        """How the model is told the target language: mBART-25 by its decoder's first token, the others by the token
        that it is forced to write first, Marian not at all in the decoder."""
        if self._source is None:
            return None
        return "decoder_start_token_id" if type(self.tokenizer).__name__ == "MBartTokenizer" else "forced_bos_token_id"


class Seq2SeqNet:
    """Runs batches of generations that are alike."""

    def __init__(self, model: Any, codec: Seq2SeqCodec, device: torch.device) -> None:
        self._codec, self._device = codec, device
        self._generator = Generator(model, codec.generation, codec.tokens.decode, target_as=codec.target_as)

    def forward(self, batch: Sequence[Work]) -> list[Outcome]:
        """The outcomes of a batch, in its order."""
        asks: list[Ask] = [item.encoded.payload for item in batch]
        width = max(len(each.ids) for each in asks)
        ids = torch.full((len(asks), width), self._codec.pad)
        mask = torch.zeros_like(ids)
        for row, each in enumerate(asks):
            ids[row, : len(each.ids)] = torch.tensor(each.ids)
            mask[row, : len(each.ids)] = 1
        given = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        return self._generator.outcomes(batch, given, start=1, text=self._text)

    def _text(self, ask: Ask, row: Row) -> str:
        return self._codec.tokens.decode(row.ids)

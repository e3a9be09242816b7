"""Decoder-only models: continuations of prompts and conversations, and the likelihood of given continuations."""

import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jobs.errors import ItemError, ItemErrorCode
from jobs.models import ModelSpec
from jobs.tasks.base import Failed, Generate, Kind, Outcome, Request, Score, Scored
from worker.engines.base import Encoded, Work
from worker.engines.torch.answers import Row, end_tokens, read_behind
from worker.engines.torch.chat import Chat
from worker.engines.torch.generation import NEW_TOKENS, Ask, ask, completed, in_force, new_tokens
from worker.engines.torch.generator import Generator
from worker.engines.torch.grammars import Grammars
from worker.engines.torch.limits import input_limit
from worker.engines.torch.loading import generation_of
from worker.engines.torch.text import TextCodec, too_long


class ToScore(NamedTuple):
    """A prompt, and the tokens of each continuation."""

    prompt: list[int]
    continuations: tuple[tuple[int, ...], ...]

    def rows(self) -> list[tuple[int, ...]]:
        """What the model reads for each continuation: all but its last token, after which nothing is asked, so that
        continuations of one token share a row."""
        return [(*self.prompt, *continuation[:-1]) for continuation in self.continuations]

    def cost(self) -> int:
        """Tokens of a batch it takes: its rows, as long as the longest."""
        rows = set(self.rows())
        return len(rows) * max(map(len, rows), default=0)


class CausalCodec(TextCodec):
    """The text side of a decoder-only model."""

    kind: Kind = "causal"
    heads = frozenset({Generate, Score})

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__(spec, folder)
        self.has_chat_template = bool(self.tokenizer.chat_template)
        self._chat = Chat(self.tokenizer, self.tokens)
        self.generation = completed(generation_of(spec, folder, self.config), self.config, self.tokenizer)
        self.limit = input_limit(spec, self.config, self.tokenizer)
        self.in_force = {**self.in_force, "max_new_tokens": NEW_TOKENS, **in_force(self.generation)}

    @cached_property
    def grammars(self) -> Grammars:
        """Grammars over this vocabulary; made when the first is asked for, since that takes a second. Raises
        ItemError."""
        return Grammars(self.tokenizer, self.config.get_text_config().vocab_size, end_tokens(self.generation))

    def room(self, request: Request) -> int:
        if isinstance(request, Score):
            return self.limit - max(map(len, self._to_score(request).rows()), default=0)
        if not isinstance(request, Generate):
            return 0
        ids = self._prompt(request)
        return self.limit - len(ids) - self._reserved(request, len(ids))

    def _encode(self, request: Any) -> Encoded | Failed:
        return self._generate(request) if isinstance(request, Generate) else self._score(request)

    def _generate(self, request: Generate) -> Encoded | Failed:
        ids = self._prompt(request)
        reserved = self._reserved(request, len(ids))
        if len(ids) + reserved > self.limit:
            return too_long(len(ids), self.limit, answer=reserved)
        named = new_tokens(self.generation, request.sampling, length=len(ids))
        most = min(NEW_TOKENS if named is None else named, self.limit - len(ids))
        if request.grammar is not None:
            self.grammars.follow(request.grammar)  # what cannot be kept to is refused here
        return Encoded(request, len(ids), ask(self.generation, request, ids, most=most, length=len(ids), behind=True))

    def _reserved(self, request: Generate, length: int) -> int:
        """Tokens kept free for the answer: those asked for, else a share of the model's length."""
        if request.sampling.max_new_tokens is not None:
            return request.sampling.max_new_tokens
        named = new_tokens(self.generation, request.sampling, length=length)
        return min(NEW_TOKENS if named is None else named, self.limit // 4)

    def _score(self, request: Score) -> Encoded | Failed:
        asked = self._to_score(request)
        longest = max(map(len, asked.rows()), default=0)
        if longest > self.limit:
            return too_long(longest, self.limit)
        return Encoded(request, len(asked.prompt) + sum(map(len, asked.continuations)), asked)

    def _prompt(self, request: Generate | Score, answer: str = "") -> list[int]:
        """Ids of what the model continues, `answer` being the start of what it would say itself."""
        if request.messages is not None:
            if not self.has_chat_template:
                raise ItemError(ItemErrorCode.INVALID_ITEM, "the model has no chat template: give a prompt instead")
            return self._chat.ids(request.messages, answer)
        if request.prompt is None:
            raise ItemError(ItemErrorCode.INVALID_ITEM, "a causal model takes a prompt or messages")
        ids = [*self.tokens.prefix, *self._ids(request.prompt + answer)]
        return ids or self._start()

    def _start(self) -> list[int]:
        """Something to continue, where the prompt is empty."""
        start = self.tokenizer.bos_token_id
        return [self.tokenizer.eos_token_id or self.pad if start is None else start]

    def _to_score(self, request: Score) -> ToScore:
        prompt = self._prompt(request)
        return ToScore(prompt, tuple(self._continuation(request, prompt, text) for text in request.continuations))

    def _continuation(self, request: Score, prompt: list[int], text: str) -> tuple[int, ...]:
        """A continuation's tokens, as they come behind this prompt where the border allows it."""
        whole = self._prompt(request, text)
        ids = whole[len(prompt) :] if whole[: len(prompt)] == prompt else self._ids(text)
        if not ids:
            raise ItemError(ItemErrorCode.INVALID_ITEM, f"continuation {text!r} has no tokens")
        return tuple(ids)


class CausalNet:
    """Runs batches: of generations that are alike, or of continuations to score."""

    def __init__(self, model: Any, codec: CausalCodec, device: torch.device) -> None:
        self._model, self._codec, self._device = model, codec, device
        self._takes = inspect.signature(model.forward).parameters
        self._generator = Generator(model, codec.generation, codec.tokens.decode)

    def forward(self, batch: Sequence[Work]) -> list[Outcome]:
        """The outcomes of a batch, in its order."""
        if isinstance(batch[0].encoded.request, Score):
            return self._scores(batch)
        asks: list[Ask] = [item.encoded.payload for item in batch]
        if asks[0].grammar is not None:
            said = "this model generates in plain batches, which cannot be held to a response_format"
            return [Failed(ItemErrorCode.SCHEMA_UNSATISFIED, said, input_tokens=each.encoded.length) for each in batch]
        ids, mask = _left_padded([each.ids for each in asks], self._codec.pad, self._device)
        given = {"input_ids": ids, "attention_mask": mask}
        return self._generator.outcomes(batch, given, start=ids.shape[1], text=self._text)

    def _text(self, ask: Ask, row: Row) -> str:
        """What was generated, as it reads behind the prompt."""
        return read_behind(self._codec.tokens.decode, ask.ids, row.ids)

    def _scores(self, batch: Sequence[Work]) -> list[Outcome]:
        asked: list[ToScore] = [item.encoded.payload for item in batch]
        rows = list(dict.fromkeys((at, row) for at, each in enumerate(asked) for row in each.rows()))
        keep = max(len(continuation) for each in asked for continuation in each.continuations)
        logprobs = self._logprobs([list(row) for _, row in rows], keep)
        where = {row: number for number, row in enumerate(rows)}
        outcomes: list[Outcome] = []
        for at, (each, item) in enumerate(zip(asked, batch, strict=True)):
            sums = [
                _sum(logprobs[where[at, row]], continuation)
                for row, continuation in zip(each.rows(), each.continuations, strict=True)
            ]
            tokens = tuple(map(len, each.continuations))
            outcomes.append(Scored(tuple(sums), tokens, input_tokens=item.encoded.length))
        return outcomes

    def _logprobs(self, rows: list[list[int]], keep: int) -> torch.Tensor:
        """Log-probabilities [rows, keep, words] of what follows each of the last `keep` tokens."""
        ids, mask = _left_padded(rows, self._codec.pad, self._device)
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if "position_ids" in self._takes:
            given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        if "logits_to_keep" in self._takes:
            given["logits_to_keep"] = keep
        if "use_cache" in self._takes:
            given["use_cache"] = False
        logits: torch.Tensor = self._model(**given).logits[:, -keep:]
        return logits.float().log_softmax(-1)


def _sum(logprobs: torch.Tensor, continuation: tuple[int, ...]) -> float:
    """`logprobs` [keep, words] end where the continuation's last token is predicted."""
    last = logprobs[-len(continuation) :]
    return float(last.gather(1, torch.tensor(continuation, device=last.device)[:, None]).sum())


def _left_padded(rows: list[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [rows, tokens], all rows ending in the last column."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, width - len(row) :] = torch.tensor(row)
        mask[at, width - len(row) :] = 1
    return ids.to(device), mask.to(device)

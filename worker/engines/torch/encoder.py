"""The text side of models that read a text once: classification heads, and embeddings."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from jobs.errors import ItemErrorCode
from jobs.models import ModelSpec
from jobs.tasks.base import (
    Answer,
    Classify,
    Embed,
    Failed,
    Filling,
    FillMask,
    Head,
    Kind,
    LabelTokens,
    Request,
    Similarity,
)
from worker.engines.base import Encoded
from worker.engines.torch.limits import input_limit
from worker.engines.torch.padded import Ids
from worker.engines.torch.recent import Recent
from worker.engines.torch.sentences import sentences_of
from worker.engines.torch.text import TextCodec, too_long

HEADS: dict[Head, frozenset[type]] = {
    "classify": frozenset({Classify}),
    "label": frozenset({LabelTokens}),
    "answer": frozenset({Answer}),
    "fill": frozenset({FillMask}),
    "embed": frozenset({Embed, Similarity}),
}
CANDIDATES = 8192
"""Candidates that are kept: labels are few, and every item is compared with the same ones."""


class Compare(NamedTuple):
    """A text, and the candidates it is compared with."""

    text: Ids
    candidates: dict[str, Ids]


class Tagged(NamedTuple):
    """A text whose tokens are labelled, with what each of them stands for."""

    text: Ids
    spans: tuple[tuple[int, int], ...]
    inside: tuple[bool, ...]


class Searched(NamedTuple):
    """A question beside the text that is searched for its answer."""

    text: Ids
    first: int
    """Where the context's tokens begin."""
    spans: tuple[tuple[int, int], ...]
    words: tuple[tuple[int, int], ...]


class Masked(NamedTuple):
    """A text with masks in it, and the words that may stand there (none: all)."""

    text: Ids
    places: tuple[int, ...]
    targets: tuple[int, ...]


class EncoderCodec(TextCodec):
    """The text side of classification heads and of embedding models."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        self.sentences = sentences_of(folder)
        super().__init__(spec, self.sentences.folder)
        self.kind: Kind = spec.kind if spec.kind != "any" else "encoder"
        self.heads = HEADS[spec.head]
        self.limit = input_limit(spec, self.config, self.tokenizer, named=self.sentences.max_tokens)
        self.width = int(self.config.get_text_config().hidden_size)
        self._known: Recent[Ids] = Recent(CANDIDATES)

    def encode(self, requests: Sequence[Request]) -> list[Encoded | Failed]:
        simple = [each for each in requests if type(each) in (Classify, Embed) and getattr(each, "pair", None) is None]
        if len(simple) < len(requests) or not self.heads.issuperset(map(type, simple)):
            return super().encode(requests)
        try:
            texts = self.tokens.ids([self._text(request) for request in simple])
        except (UnicodeError, TypeError):  # one of them: each by itself then
            return super().encode(requests)
        return [self._fit(request, self.framed(ids)) for request, ids in zip(requests, texts, strict=True)]

    def room(self, request: Request) -> int:
        return self.limit - len(self._read(request).ids)

    def _own_prompts(self) -> dict[str, str]:
        return {"embed": self.sentences.prompt + "{text}"} if self.sentences.prompt else {}

    def _encode(self, request: Any) -> Encoded | Failed:
        if isinstance(request, LabelTokens):
            return self._tagged(request)
        if isinstance(request, Answer):
            return self._searched(request)
        if isinstance(request, FillMask):
            return self._masked(request)
        read = self._read(request)
        if not isinstance(request, Similarity):
            return self._fit(request, read)
        candidates = {text: self._candidate(text) for text in request.candidates}
        longest = max(map(len, (each.ids for each in candidates.values())), default=0)
        if longest > self.limit:
            return too_long(longest, self.limit)
        return self._fit(request, read, Compare(read, candidates))

    def _tagged(self, request: LabelTokens) -> Encoded | Failed:
        text = self._text(request)
        plain = self.tokens.plain([text])[0]
        read = self.framed(plain.ids)
        inside = tuple(self._goes_on(text, number, *span) for number, span in zip(*plain, strict=True))
        return self._fit(request, read, Tagged(read, tuple(plain.spans), inside))

    def _searched(self, request: Answer) -> Encoded | Failed:
        read = self._read(request)
        context = self.tokens.plain([request.context])[0]
        first = len(read.ids) - len(self.tokens.suffix) - len(context.ids)
        words = self.tokens.words(request.context, context)
        return self._fit(request, read, Searched(read, first, tuple(context.spans), tuple(words)))

    def _masked(self, request: FillMask) -> Encoded | Failed:
        read = self.framed(self._with_masks(request.text))
        places = tuple(at for at, number in enumerate(read.ids) if number == self.tokenizer.mask_token_id)
        if not places:
            return Failed(
                ItemErrorCode.NO_MASK, f"the text has no {self.tokenizer.mask_token!r}, which is the model's mask"
            )
        return self._fit(request, read, Masked(read, places, self._targets(request.targets)))

    def _with_masks(self, text: str) -> list[int]:
        """Ids of a text in which the mask is meant, and no other token that steers the model."""
        ids, mask = self.tokens.whole(text), self.tokenizer.mask_token_id
        if not (set(ids) & self.tokens.control) - {mask}:
            return ids
        pieces = self.tokens.plain(text.split(self.tokenizer.mask_token))
        return [number for piece in pieces for number in (mask, *piece.ids)][1:]

    def _targets(self, words: Sequence[str]) -> tuple[int, ...]:
        """The token of each, once: its own where the vocabulary has the word, else the first of its tokens."""
        vocabulary = self._vocabulary if words else {}
        firsts = (vocabulary.get(word, next(iter(self._ids(word)), None)) for word in words)
        return tuple(dict.fromkeys(first for first in firsts if first is not None))

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        known: dict[str, int] = self.tokenizer.get_vocab()
        return known

    def filling(self, masked: Masked, place: int, token: int, score: float) -> Filling:
        """The token in that place. Where there are several masks, the others stay to be seen, as in the pipeline of
        Transformers 5.23."""
        ids = [token if at == place else number for at, number in enumerate(masked.text.ids)]
        sequence = self.tokenizer.decode(ids, skip_special_tokens=len(masked.places) == 1)
        return Filling(token, self.tokenizer.decode([token]), score, sequence)

    def _goes_on(self, text: str, number: int, start: int, end: int) -> bool:
        """As the pipeline of Transformers 5.23 tells it: by the mark of a token that continues a word, where the
        vocabulary has one, else by the white space before it."""
        if number == self.tokenizer.unk_token_id:
            return False
        if self._marks_continuations:
            return len(self.tokenizer.convert_ids_to_tokens(number)) != end - start
        return start > 0 and " " not in text[start - 1 : start + 1]

    @cached_property
    def _marks_continuations(self) -> bool:
        model = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "model", None)
        return bool(getattr(model, "continuing_subword_prefix", None))

    def _fit(self, request: Any, read: Ids, payload: Any = None) -> Encoded | Failed:
        if len(read.ids) > self.limit:
            return too_long(len(read.ids), self.limit)
        if isinstance(request, Embed) and (request.dimensions or 0) > self.width:
            text = f"{request.dimensions} dimensions asked; the model has {self.width}"
            return Failed(ItemErrorCode.INVALID_ITEM, text)
        return Encoded(request, len(read.ids), payload or read)

    def _read(self, request: Any) -> Ids:
        if isinstance(request, Answer):
            return Ids(*self.tokens.pair(request.question, request.context))
        pair = getattr(request, "pair", None)
        if pair is None:
            return self.framed(self._ids(self._text(request)))
        return Ids(*self.tokens.pair(request.text, pair))

    def _text(self, request: Any) -> str:
        text: str = request.text
        return text.lower() if self.sentences.lowercase else text

    def framed(self, ids: Sequence[int]) -> Ids:
        """These tokens of a text with what the model puts before and after them."""
        framed = [*self.tokens.prefix, *ids, *self.tokens.suffix]
        return Ids(framed, [0] * len(framed))

    def _candidate(self, text: str) -> Ids:
        known = self._known.get(text)
        if known is None:
            known = self.framed(self._ids(text.lower() if self.sentences.lowercase else text))
            self._known.put(text, known)
        return known

"""Models that read a text once: classification heads, embeddings, similarity with candidates that recur."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from jobs.errors import ItemErrorCode
from jobs.models import ModelSpec
from jobs.tasks.base import (
    Classified,
    Classify,
    Compared,
    Embed,
    Embedded,
    Failed,
    Kind,
    Outcome,
    Request,
    Similarity,
)
from worker.engines.base import Encoded, Work
from worker.engines.torch.limits import input_limit
from worker.engines.torch.sentences import Pooling, sentences_of
from worker.engines.torch.text import TextCodec, too_long
from worker.packing import pack

CANDIDATES = 8192
"""Vectors of candidates that are kept; labels are few, and every item is compared with the same ones."""

Value = TypeVar("Value")


class Ids(NamedTuple):
    """A text as the model reads it."""

    ids: list[int]
    types: list[int]
    """Segment of each token; all 0 but for the second text of a pair."""


class Compare(NamedTuple):
    """A text, and the candidates it is compared with."""

    text: Ids
    candidates: dict[str, Ids]


class EncoderCodec(TextCodec):
    """The text side of classification heads and of embedding models."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        self.sentences = sentences_of(folder)
        super().__init__(spec, self.sentences.folder)
        self.kind: Kind = spec.kind if spec.kind != "any" else "encoder"
        self.heads = frozenset({Classify} if spec.head == "classify" else {Embed, Similarity})
        self.limit = input_limit(spec, self.config, self.tokenizer, named=self.sentences.max_tokens)
        self.width = int(self.config.get_text_config().hidden_size)
        self._known: _Recent[Ids] = _Recent(CANDIDATES)

    def encode(self, requests: Sequence[Request]) -> list[Encoded | Failed]:
        simple = [each for each in requests if type(each) in (Classify, Embed) and getattr(each, "pair", None) is None]
        if len(simple) < len(requests) or not self.heads.issuperset(map(type, simple)):
            return super().encode(requests)
        try:
            texts = self.tokens.plain([self._text(request) for request in simple])
        except (UnicodeError, TypeError):  # one of them: each by itself then
            return super().encode(requests)
        return [self._fit(request, self._framed(text.ids)) for request, text in zip(requests, texts, strict=True)]

    def room(self, request: Request) -> int:
        return self.limit - len(self._read(request).ids)

    def _own_prompts(self) -> dict[str, str]:
        return {"embed": self.sentences.prompt + "{text}"} if self.sentences.prompt else {}

    def _encode(self, request: Any) -> Encoded | Failed:
        read = self._read(request)
        if not isinstance(request, Similarity):
            return self._fit(request, read)
        candidates = {text: self._candidate(text) for text in request.candidates}
        longest = max(map(len, (each.ids for each in candidates.values())), default=0)
        if longest > self.limit:
            return too_long(longest, self.limit)
        return self._fit(request, read, Compare(read, candidates))

    def _fit(self, request: Any, read: Ids, payload: Any = None) -> Encoded | Failed:
        if len(read.ids) > self.limit:
            return too_long(len(read.ids), self.limit)
        if isinstance(request, Embed) and (request.dimensions or 0) > self.width:
            text = f"{request.dimensions} dimensions asked; the model has {self.width}"
            return Failed(ItemErrorCode.INVALID_ITEM, text)
        return Encoded(request, len(read.ids), payload or read)

    def _read(self, request: Any) -> Ids:
        pair = getattr(request, "pair", None)
        if pair is None:
            return self._framed(self._ids(self._text(request)))
        return Ids(*self.tokens.pair(request.text, pair))

    def _text(self, request: Any) -> str:
        text: str = request.text
        return text.lower() if self.sentences.lowercase else text

    def _framed(self, ids: list[int]) -> Ids:
        framed = [*self.tokens.prefix, *ids, *self.tokens.suffix]
        return Ids(framed, [0] * len(framed))

    def _candidate(self, text: str) -> Ids:
        known = self._known.get(text)
        if known is None:
            known = self._framed(self._ids(text.lower() if self.sentences.lowercase else text))
            self._known.put(text, known)
        return known


class EncoderNet:
    """Runs batches of one kind of request. `batch_tokens` bounds what candidates take in one pass."""

    def __init__(self, model: Any, codec: EncoderCodec, device: torch.device, *, batch_tokens: int) -> None:
        self._model = model.get_encoder() if codec.config.is_encoder_decoder and Embed in codec.heads else model
        self._codec, self._device, self._batch_tokens = codec, device, batch_tokens
        self._vectors: _Recent[torch.Tensor] = _Recent(CANDIDATES)
        config = codec.config
        self._labels = tuple(str(config.id2label[at]) for at in range(config.num_labels))
        self._multi_label = config.problem_type == "multi_label_classification"

    def forward(self, batch: Sequence[Work]) -> list[Outcome]:
        """The outcomes of a batch, in its order."""
        kind = type(batch[0].encoded.request)
        if kind is Classify:
            return self._classify(batch)
        return self._embed(batch) if kind is Embed else self._compare(batch)

    def _classify(self, batch: Sequence[Work]) -> list[Outcome]:
        logits = self._run([item.encoded.payload for item in batch])[0].logits.float().cpu().tolist()
        return [
            Classified(tuple(row), self._labels, self._multi_label, input_tokens=item.encoded.length)
            for row, item in zip(logits, batch, strict=True)
        ]

    def _embed(self, batch: Sequence[Work]) -> list[Outcome]:
        requests: list[Any] = [item.encoded.request for item in batch]
        hidden, mask = self._hidden([item.encoded.payload for item in batch])
        own = self._codec.sentences.pooling
        pooled = {mode: pool(hidden, mask, mode).cpu() for mode in {each.pooling or own for each in requests}}
        return [
            Embedded(_bytes(pooled[request.pooling or own][at], request), input_tokens=item.encoded.length)
            for at, (request, item) in enumerate(zip(requests, batch, strict=True))
        ]

    def _compare(self, batch: Sequence[Work]) -> list[Outcome]:
        payloads: list[Compare] = [item.encoded.payload for item in batch]
        candidates = self._candidates({text: ids for each in payloads for text, ids in each.candidates.items()})
        texts = self._unit([each.text for each in payloads])
        outcomes: list[Outcome] = []
        for text, item, each in zip(texts, batch, payloads, strict=True):
            asked: Any = item.encoded.request
            vectors = [candidates[candidate] for candidate in asked.candidates]
            cosines = (torch.stack(vectors) @ text).tolist() if vectors else []
            outcomes.append(Compared(tuple(cosines), input_tokens=len(each.text.ids)))
        return outcomes

    def _candidates(self, wanted: dict[str, Ids]) -> dict[str, torch.Tensor]:
        found = {text: vector for text in wanted if (vector := self._vectors.get(text)) is not None}
        missing = [text for text in wanted if text not in found]
        lengths = [len(wanted[text].ids) for text in missing]
        for batch in pack(lengths, self._batch_tokens):
            texts = [missing[at] for at in batch]
            for text, vector in zip(texts, self._unit([wanted[text] for text in texts]), strict=True):
                found[text] = vector
                self._vectors.put(text, vector)
        return found

    def _unit(self, texts: list[Ids]) -> torch.Tensor:
        """Vectors of length 1, on the CPU."""
        hidden, mask = self._hidden(texts)
        return torch.nn.functional.normalize(pool(hidden, mask, self._codec.sentences.pooling), dim=-1).cpu()

    def _hidden(self, texts: list[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        output, mask = self._run(texts)
        return output.last_hidden_state.float(), mask

    def _run(self, texts: list[Ids]) -> tuple[Any, torch.Tensor]:
        """The model's output for the texts padded to the longest, and the mask [texts, tokens] of what is real."""
        width = max(len(text.ids) for text in texts)
        ids = torch.full((len(texts), width), self._codec.pad)
        mask = torch.zeros_like(ids)
        types = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
            types[row, : len(text.ids)] = torch.tensor(text.types)
            mask[row, : len(text.ids)] = 1
        given = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        if self._codec.tokens.has_types:
            given["token_type_ids"] = types.to(self._device)
        return self._model(**given), given["attention_mask"]


def pool(hidden: torch.Tensor, mask: torch.Tensor, mode: Pooling) -> torch.Tensor:
    """One vector [texts, width] of each text's token vectors [texts, tokens, width], padding on the right left out."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    real = mask[:, :, None].bool()
    if mode == "max":
        return hidden.masked_fill(~real, -torch.inf).amax(1)
    return hidden.masked_fill(~real, 0.0).sum(1) / mask.sum(1, keepdim=True)


def _bytes(vector: torch.Tensor, request: Embed) -> bytes:
    vector = vector[: request.dimensions]
    if request.normalize:
        vector = torch.nn.functional.normalize(vector, dim=-1)
    data: bytes = vector.numpy().astype("<f4").tobytes()
    return data


class _Recent(OrderedDict[str, Value]):
    """What was used last, up to a number of entries."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def get(self, key: str) -> Value | None:  # type: ignore[override]
        value = super().get(key)
        if value is not None:
            self.move_to_end(key)
        return value

    def put(self, key: str, value: Value) -> None:
        self[key] = value
        if len(self) > self._most:
            self.popitem(last=False)

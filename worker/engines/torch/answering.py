"""Answers one-shot requests from what a reader makes of texts: classification, embeddings, similarity."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy
import torch

from jobs.tasks.base import (
    Answer,
    Answered,
    Classified,
    Classify,
    Compared,
    Embed,
    Embedded,
    Filled,
    FillMask,
    Labelled,
    LabelTokens,
    Outcome,
)
from worker.engines.base import Work
from worker.engines.torch.encoder import CANDIDATES, Compare, EncoderCodec, Masked, Searched, Tagged
from worker.engines.torch.padded import Ids
from worker.engines.torch.recent import Recent
from worker.engines.torch.sentences import Pooling
from worker.packing import Packing


class Reader(Protocol):
    """A way of reading several texts in one pass."""

    def hidden(self, texts: Sequence[Ids]) -> list[torch.Tensor]: ...

    def logits(self, texts: Sequence[Ids]) -> torch.Tensor: ...

    def logits_of_tokens(self, texts: Sequence[Ids]) -> list[torch.Tensor]: ...

    def logits_at(self, texts: Sequence[Ids], places: Sequence[Sequence[int]]) -> list[torch.Tensor]: ...


def answers(reader: Reader, codec: EncoderCodec, texts: Sequence[Ids]) -> list[torch.Tensor]:
    """What the model's head says of each text, or of each of its tokens; without a head, their vectors."""
    if FillMask in codec.heads:
        return reader.logits_at(texts, [sorted({0, len(text.ids) - 1}) for text in texts])
    if codec.heads & {LabelTokens, Answer}:
        return reader.logits_of_tokens(texts)
    return list(reader.logits(texts)) if Classify in codec.heads else reader.hidden(texts)


class ReaderNet:
    """Runs batches through a reader. `batch_tokens` is what a pass takes, as `packing` counts them."""

    def __init__(self, codec: EncoderCodec, reader: Reader, *, packing: Packing, batch_tokens: int) -> None:
        self._codec, self._reader = codec, reader
        self.packing, self.batch_tokens = packing, batch_tokens
        self._vectors: Recent[torch.Tensor] = Recent(CANDIDATES)
        config = codec.config
        self._labels = tuple(str(config.id2label[at]) for at in range(config.num_labels))
        self._multi_label = config.problem_type == "multi_label_classification"

    def forward(self, batch: Sequence[Work]) -> list[Outcome]:
        """The outcomes of a batch, in its order."""
        kind = type(batch[0].encoded.request)
        if kind is Classify:
            return self._classify(batch)
        if kind is LabelTokens:
            return self._label(batch)
        if kind is Answer:
            return self._answer(batch)
        if kind is FillMask:
            return self._fill(batch)
        return self._embed(batch) if kind is Embed else self._compare(batch)

    def _classify(self, batch: Sequence[Work]) -> list[Outcome]:
        logits = self._reader.logits([item.encoded.payload for item in batch]).float().cpu().tolist()
        return [
            Classified(tuple(row), self._labels, self._multi_label, input_tokens=item.encoded.length)
            for row, item in zip(logits, batch, strict=True)
        ]

    def _label(self, batch: Sequence[Work]) -> list[Outcome]:
        payloads: list[Tagged] = [item.encoded.payload for item in batch]
        first = len(self._codec.tokens.prefix)
        found = self._reader.logits_of_tokens([each.text for each in payloads])
        return [
            Labelled(
                _floats(logits[first : first + len(each.spans)]),
                self._labels,
                each.spans,
                each.inside,
                input_tokens=item.encoded.length,
            )
            for logits, each, item in zip(found, payloads, batch, strict=True)
        ]

    def _answer(self, batch: Sequence[Work]) -> list[Outcome]:
        payloads: list[Searched] = [item.encoded.payload for item in batch]
        found = self._reader.logits_of_tokens([each.text for each in payloads])
        return [
            Answered(
                _floats(torch.cat((logits[:1], logits[each.first : each.first + len(each.spans)]))),
                each.spans,
                each.words,
                input_tokens=item.encoded.length,
            )
            for logits, each, item in zip(found, payloads, batch, strict=True)
        ]

    def _fill(self, batch: Sequence[Work]) -> list[Outcome]:
        payloads: list[Masked] = [item.encoded.payload for item in batch]
        found = self._reader.logits_at([each.text for each in payloads], [each.places for each in payloads])
        return [
            self._filled(logits.float().softmax(-1).cpu(), item, each)
            for logits, item, each in zip(found, batch, payloads, strict=True)
        ]

    def _filled(self, shares: torch.Tensor, item: Work, masked: Masked) -> Filled:
        """`shares`: [masks, words]."""
        asked: Any = item.encoded.request
        kept = shares[:, list(masked.targets)] if masked.targets else shares
        scores, at = kept.topk(min(asked.top_k, kept.shape[1]))
        tokens = [[masked.targets[each] for each in row] for row in at.tolist()] if masked.targets else at.tolist()
        masks = tuple(
            tuple(self._codec.filling(masked, place, *each) for each in zip(row, some, strict=True))
            for place, row, some in zip(masked.places, tokens, scores.tolist(), strict=True)
        )
        return Filled(masks, input_tokens=item.encoded.length)

    def _embed(self, batch: Sequence[Work]) -> list[Outcome]:
        own = self._codec.sentences.pooling
        asked: list[Any] = [item.encoded.request for item in batch]
        hidden = self._reader.hidden([item.encoded.payload for item in batch])
        alike: dict[tuple[Any, int | None, bool], list[int]] = {}
        for at, request in enumerate(asked):
            alike.setdefault((request.pooling or own, request.dimensions, request.normalize), []).append(at)
        found: dict[int, bytes] = {}
        tokens: dict[int, int] = {}
        for (mode, dimensions, normalize), where in alike.items():
            if mode == "none":
                for at in where:
                    own_rows = _unit(hidden[at].float().cpu()[:, :dimensions], normalize=normalize)
                    found[at], tokens[at] = _bytes(own_rows.numpy()), len(own_rows)
                continue
            vectors = pooled([hidden[at] for at in where], mode)[:, :dimensions]
            rows = _unit(vectors, normalize=normalize)
            found.update(zip(where, map(_bytes, rows.numpy()), strict=True))
        return [Embedded(found[at], tokens.get(at), input_tokens=item.encoded.length) for at, item in enumerate(batch)]

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
        for batch in self.packing.batches(lengths, self.batch_tokens):
            texts = [missing[at] for at in batch]
            for text, vector in zip(texts, self._unit([wanted[text] for text in texts]), strict=True):
                found[text] = vector
                self._vectors.put(text, vector)
        return found

    def _unit(self, texts: list[Ids]) -> torch.Tensor:
        """Vectors of length 1, on the CPU."""
        pooling = self._codec.sentences.pooling
        return torch.nn.functional.normalize(pooled(self._reader.hidden(texts), pooling), dim=-1)


def pooled(texts: Sequence[torch.Tensor], mode: Pooling) -> torch.Tensor:
    """One vector [texts, width] of each text's token vectors [tokens, width], on the CPU; in few calls, since a GPU
    waits for each of them."""
    if mode in ("cls", "last"):
        return torch.stack([tokens[0 if mode == "cls" else -1] for tokens in texts]).float().cpu()
    whole = torch.cat(list(texts)).float()
    lengths = torch.tensor([len(tokens) for tokens in texts], device=whole.device)
    return torch.segment_reduce(whole, mode, lengths=lengths).cpu()


def _unit(vectors: torch.Tensor, *, normalize: bool) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors


def _floats(numbers: torch.Tensor) -> bytes:
    return _bytes(numbers.float().cpu().numpy())


def _bytes(numbers: numpy.ndarray[Any, Any]) -> bytes:
    return numbers.astype("<f4", copy=False).tobytes()

"""An engine that tells languages apart without a model: py3langid behind the port, as a classifier of texts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.errors import ItemError, ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Classified, Classify, Failed, Kind, Outcome, Request
from jobs.tasks.detection import detect, languages
from jobs.tasks.templates import Template
from worker.engines.base import Encoded, EngineCodec, Model, Room, Work
from worker.engines.batch import BatchModel

MOST_ITEMS = 256
BATCH_CHARACTERS = 100_000
"""About 50 ms of work, so that cancel is heard."""
LEAST = 1e-12
"""Probabilities below this are as good as none, and have a logarithm."""


class LangidEngine:
    """Implements the engine port with py3langid. Its tokens are characters."""

    name = "langid"

    def codec(self, spec: ModelSpec) -> EngineCodec:
        return LangidCodec()

    def size(self, spec: ModelSpec) -> int:
        return 2**25

    def precisions(self, spec: ModelSpec, device: str) -> tuple[str, ...]:
        return ()

    def load(self, spec: ModelSpec, codec: EngineCodec, room: Room) -> Model:
        try:
            labels = tuple(sorted(languages()))
        except ItemError as error:
            raise ModelFailed(f"model {spec.name!r}: {error.message}") from error

        def forward(batch: Sequence[Work]) -> list[Outcome]:
            return [_classified(each.encoded, labels) for each in batch]

        return BatchModel(forward, max_batch_tokens=BATCH_CHARACTERS, max_items=MOST_ITEMS)


ENGINE = LangidEngine


class LangidCodec:
    """The text side: any length is read."""

    kind: Kind = "encoder"
    heads: frozenset[type] = frozenset({Classify})
    has_chat_template = False
    languages: tuple[str, ...] = ()
    prompts: Mapping[str, Template] = {}
    in_force: Mapping[str, Any] = {"engine": "langid", "mode": "exact"}

    def encode(self, requests: Sequence[Request]) -> list[Encoded | Failed]:
        return [Encoded(request, len(_text(request))) for request in requests]

    def room(self, request: Request) -> int:
        return 2**31 - len(_text(request))

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [(at, at + 1) for at in range(len(text))]

    def language(self, code: str) -> str | None:
        return None


def _text(request: Request) -> str:
    assert isinstance(request, Classify)
    return request.text


def _classified(encoded: Encoded, labels: tuple[str, ...]) -> Classified:
    shares = dict(detect(_text(encoded.request)))
    logits = tuple(math.log(max(shares[label], LEAST)) for label in labels)
    return Classified(logits, labels, input_tokens=encoded.length)

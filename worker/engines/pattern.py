"""The engine of items whose languages no model of a pattern has: it refuses each, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.errors import ItemErrorCode, ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Failed, Generate, Kind, Request
from jobs.tasks.templates import Template
from worker.engines.base import Encoded, EngineCodec, Model, Room


class PatternEngine:
    """Implements the engine port as far as it is ever asked: no request comes past the codec."""

    name = "pattern"

    def codec(self, spec: ModelSpec) -> EngineCodec:
        return PatternCodec(spec)

    def size(self, spec: ModelSpec) -> int:
        return 0

    def precisions(self, spec: ModelSpec, device: str) -> tuple[str, ...]:
        return ()

    def load(self, spec: ModelSpec, codec: EngineCodec, room: Room) -> Model:
        raise ModelFailed(f"{spec.name!r} is a pattern: there is no model to load")


ENGINE = PatternEngine


class PatternCodec:
    """The text side: whatever is asked is refused."""

    kind: Kind = "seq2seq"
    heads: frozenset[type] = frozenset({Generate})
    has_chat_template = False
    languages: tuple[str, ...] = ()
    prompts: Mapping[str, Template] = {}
    in_force: Mapping[str, Any] = {}

    def __init__(self, spec: ModelSpec) -> None:
        self._why = f"no model {spec.name!r} for the languages of this item; {spec.note}"

    def encode(self, requests: Sequence[Request]) -> list[Encoded | Failed]:
        return [Failed(ItemErrorCode.UNSUPPORTED_LANGUAGE, self._why) for _ in requests]

    def room(self, request: Request) -> int:
        return 0

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [(at, at + 1) for at in range(len(text))]

    def language(self, code: str) -> str | None:
        return None

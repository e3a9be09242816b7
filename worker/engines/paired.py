"""An engine of two models: one judges whether a label fits a text (NLI), a sentence encoder tells which are worth it.
To everybody else they are one model."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.errors import ModelFailed
from jobs.models import ModelSpec, inspect
from jobs.tasks.base import Classify, Failed, Kind, Request, Similarity
from jobs.tasks.templates import Template
from worker.engines.base import Encoded, Engine, EngineCodec, Model, Room
from worker.engines.routes import RoutedModel
from worker.engines.torch import TorchEngine

NEEDED = "an NLI model and a sentence encoder go together"


class PairedEngine:
    """Implements the engine port with two models of the torch engine."""

    name = "paired"

    def __init__(self) -> None:
        self._inner: Engine = TorchEngine()

    def codec(self, spec: ModelSpec) -> EngineCodec:
        return PairedCodec(self._inner.codec(_judge(spec)), self._inner.codec(_encoder(spec)))

    def size(self, spec: ModelSpec) -> int:
        return self._inner.size(_judge(spec)) + self._inner.size(_encoder(spec))

    def precisions(self, spec: ModelSpec, device: str) -> Sequence[str]:
        return self._inner.precisions(_judge(spec), device)

    def load(self, spec: ModelSpec, codec: EngineCodec, room: Room) -> Model:
        assert isinstance(codec, PairedCodec)
        judge = self._inner.load(_judge(spec), codec.judge, room)
        try:
            return PairedModel(judge, self._inner.load(_encoder(spec), codec.encoder, room))
        except BaseException:
            judge.close()
            raise


ENGINE = PairedEngine


class PairedCodec:
    """The text sides of both; texts are cut on the judge's tokens."""

    kind: Kind = "encoder"
    has_chat_template = False
    languages: tuple[str, ...] = ()
    heads: frozenset[type] = frozenset({Classify, Similarity})

    def __init__(self, judge: EngineCodec, encoder: EngineCodec) -> None:
        for codec, head in ((judge, Classify), (encoder, Similarity)):
            if head not in codec.heads:
                raise ModelFailed(f"a model of a pair does not answer {head.__name__}: {NEEDED}")
        self.judge, self.encoder = judge, encoder
        self.prompts: Mapping[str, Template] = judge.prompts
        self.in_force: Mapping[str, Any] = judge.in_force

    def encode(self, requests: Sequence[Request]) -> list[Encoded | Failed]:
        return [self._of(request).encode([request])[0] for request in requests]

    def room(self, request: Request) -> int:
        return self._of(request).room(request)

    def spans(self, text: str) -> list[tuple[int, int]]:
        return self.judge.spans(text)

    def language(self, code: str) -> str | None:
        return None

    def _of(self, request: Request) -> EngineCodec:
        return self.encoder if isinstance(request, Similarity) else self.judge


class PairedModel(RoutedModel):
    """Each request goes to the model that answers it."""

    def __init__(self, judge: Model, encoder: Model) -> None:
        super().__init__(judge, encoder, takes=lambda encoded: not isinstance(encoded.request, Similarity))

    def stats(self) -> dict[str, Any]:
        memory = sum(model.stats().get("memory_bytes", 0) for model in (self.first, self.second))
        return {**super().stats(), "memory_bytes": memory}


def _judge(spec: ModelSpec) -> ModelSpec:
    return spec.model_copy(update={"engine": "torch", "encoder": None})


def _encoder(spec: ModelSpec) -> ModelSpec:
    if spec.encoder is None:
        raise ModelFailed(f"model {spec.name!r}: engine 'paired' needs 'encoder', the folder of a sentence encoder")
    found = inspect(spec.encoder)
    return found.model_copy(update={"dtype": spec.dtype, "device": spec.device})

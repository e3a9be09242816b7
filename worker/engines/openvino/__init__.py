"""Engine `openvino` (extra `textmill[openvino]`): encoders on CPUs in float32, bfloat16 and with int8 weights."""

from collections.abc import Sequence
from pathlib import Path

import openvino
import torch

from jobs.errors import ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Outcome
from worker.engines.base import EngineCodec, Model, Room, Work
from worker.engines.batch import BatchModel
from worker.engines.converted import converted
from worker.engines.openvino.conversion import convert, recipe
from worker.engines.openvino.reader import HINTS, MODEL, OpenVinoReader
from worker.engines.torch import loading
from worker.engines.torch.answering import ReaderNet
from worker.engines.torch.device import errors_mapped
from worker.engines.torch.encoder import EncoderCodec
from worker.engines.torch.sentences import sentences_of
from worker.packing import PADDED

BATCH_TOKENS = 512
"""Most padded tokens of a batch: bigger ones leave the cache and lose (512 to 4,096 were tried, 2 cores)."""
MOST_ITEMS = 1024
"""Requests of one batch, however short."""


class OpenVinoEngine:
    """Implements the engine port with OpenVINO."""

    name = "openvino"

    def __init__(self) -> None:
        self._folder = loading.Folders()

    def codec(self, spec: ModelSpec) -> EngineCodec:
        if spec.head == "generate":
            raise ModelFailed(f"model {spec.name!r}: engine 'openvino' runs encoders, not generating models")
        return _Text(spec, self._folder(spec))

    def size(self, spec: ModelSpec) -> int:
        return loading.bytes_of(sentences_of(self._folder(spec)).folder, "float32")

    def precisions(self, spec: ModelSpec, device: str) -> tuple[str, ...]:
        """What the model can be computed in here; nothing for a model this engine does not run."""
        return _supported() if device == "cpu" and spec.head != "generate" and spec.kind == "encoder" else ()

    def load(self, spec: ModelSpec, codec: EngineCodec, room: Room) -> Model:
        if not isinstance(codec, _Text):
            raise ModelFailed(f"engine {self.name!r} needs a codec of its own, not {type(codec).__name__}")
        if room.device != "cpu":
            raise ModelFailed(f"model {spec.name!r}: engine 'openvino' runs on 'cpu', not on {room.device!r}")
        dtype = spec.dtype or room.dtype
        if dtype not in _supported():
            known = ", ".join(_supported())
            raise ModelFailed(f"model {spec.name!r}: OpenVINO computes on this CPU in {known}, not in {dtype}")
        sources = [codec.folder, *([Path(spec.adapter)] if spec.adapter else [])]
        with loading.failures(spec), errors_mapped():
            folder = converted(room.cache, sources, recipe(spec, dtype), lambda to: convert(spec, codec, dtype, to))
            reader = OpenVinoReader(folder / MODEL, codec, dtype=dtype, threads=room.threads)
        return OpenVinoModel(reader, codec, folder, room)


ENGINE = OpenVinoEngine


class OpenVinoModel(BatchModel):
    """One loaded model behind the port."""

    def __init__(self, reader: OpenVinoReader, codec: EncoderCodec, folder: Path, room: Room) -> None:
        batch_tokens = min(room.max_batch_tokens, BATCH_TOKENS)
        super().__init__(self._on_device, max_batch_tokens=batch_tokens, max_items=MOST_ITEMS, packing=PADDED)
        self._net: ReaderNet | None = ReaderNet(codec, reader, packing=PADDED, batch_tokens=batch_tokens)
        self._stats["memory_bytes"] = (folder / MODEL).with_suffix(".bin").stat().st_size

    def close(self) -> None:
        self._net = None
        super().close()

    def _on_device(self, batch: Sequence[Work]) -> Sequence[Outcome]:
        if self._net is None:
            raise RuntimeError("the model is closed")
        with torch.inference_mode(), errors_mapped():
            return self._net.forward(batch)


class _Text(EncoderCodec):
    """The text side: that of the torch engine."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__(spec, folder)
        self.in_force = {**self.in_force, "engine": "openvino"}


def _supported() -> tuple[str, ...]:
    has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(dtype for dtype in HINTS if dtype != "bfloat16" or has_bf16)

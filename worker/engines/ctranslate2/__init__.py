"""Engine `ctranslate2` (extra `textmill[ctranslate2]`): encoder-decoder and causal models, float32 to int8.

What the library cannot do is refused, not approximated in silence: see `wishes.py`.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path

import ctranslate2

from jobs.errors import ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Outcome
from worker.engines.base import Encoded, EngineCodec, Model, OutOfMemory, Room, Work
from worker.engines.batch import BatchModel, kind_of
from worker.engines.converted import converted
from worker.engines.ctranslate2.codecs import CausalText, Seq2SeqText, Text
from worker.engines.ctranslate2.conversion import convert, recipe
from worker.engines.ctranslate2.nets import CausalNet, Net, Seq2SeqNet
from worker.engines.ctranslate2.wishes import looks_back
from worker.engines.torch import loading
from worker.engines.torch.device import errors_mapped
from worker.engines.torch.generation import Ask

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
"""Compute types by the name the registry has for them, with the bytes of a weight."""
CPU_BATCH_TOKENS = 2048
"""Most tokens of a batch on a CPU: with more, short rows pad to long ones and the cache overflows."""
MOST_ITEMS = 1024
"""Requests of one batch, however short."""


class CTranslate2Engine:
    """Implements the engine port with CTranslate2."""

    name = "ctranslate2"

    def __init__(self) -> None:
        self._folder = loading.Folders()

    def codec(self, spec: ModelSpec) -> EngineCodec:
        if spec.head != "generate":
            raise ModelFailed(f"model {spec.name!r}: engine 'ctranslate2' runs generating models, not encoders")
        folder = self._folder(spec)
        made = Seq2SeqText if loading.config_of(spec, folder).is_encoder_decoder else CausalText
        return made(spec, folder)

    def size(self, spec: ModelSpec) -> int:
        dtype = spec.dtype or "float32"
        return loading.bytes_of(self._folder(spec), "float32") * BYTES[dtype] // BYTES["float32"]

    def precisions(self, spec: ModelSpec, device: str) -> tuple[str, ...]:
        """What the model can be computed in here; nothing for a model this engine does not run."""
        if spec.head != "generate" or spec.kind not in ("causal", "seq2seq"):
            return ()
        return _supported(device)

    def load(self, spec: ModelSpec, codec: EngineCodec, room: Room) -> Model:
        if not isinstance(codec, Text):
            raise ModelFailed(f"engine {self.name!r} needs a codec of its own, not {type(codec).__name__}")
        dtype = spec.dtype or room.dtype
        _check_supported(spec, dtype, room.device)
        sources = [codec.folder, *([Path(spec.adapter)] if spec.adapter else [])]
        with loading.failures(spec), errors_mapped():
            folder = converted(room.cache, sources, recipe(dtype), lambda to: convert(spec, codec, dtype, to))
        try:
            with loading.failures(spec), errors_mapped():
                loaded = CTranslate2Model(_net(codec, folder, dtype, room), codec, folder, room)
        except OutOfMemory as error:
            raise ModelFailed(f"model {spec.name!r} does not fit the memory of {room.device}: {error}") from error
        return loaded


ENGINE = CTranslate2Engine


class CTranslate2Model(BatchModel):
    """One loaded model behind the port."""

    def __init__(self, net: Net, codec: Text, folder: Path, room: Room) -> None:
        super().__init__(
            self._on_device,
            max_batch_tokens=min(room.max_batch_tokens, CPU_BATCH_TOKENS)
            if room.device == "cpu"
            else room.max_batch_tokens,
            cost=lambda encoded: int(encoded.payload.cost()),
            group=lambda encoded: _alike(codec, encoded),
            max_items=MOST_ITEMS,
        )
        self._net: Net | None = net
        self._stats["memory_bytes"] = (folder / "model.bin").stat().st_size

    def close(self) -> None:
        self._net = None
        super().close()

    def _on_device(self, batch: Sequence[Work]) -> Sequence[Outcome]:
        if self._net is None:
            raise RuntimeError("the model is closed")
        with errors_mapped():
            return self._net(batch)


def _net(codec: Text, folder: Path, dtype: str, room: Room) -> Net:
    kind, _, index = room.device.partition(":")
    placed = {"device": kind, "device_index": int(index or 0), "compute_type": dtype, "intra_threads": room.threads}
    if isinstance(codec, Seq2SeqText):
        return Seq2SeqNet(codec, folder, **placed)
    return CausalNet(codec, folder, **placed)


def _alike(codec: Text, encoded: Encoded) -> Hashable:
    """Rows that one call of the library can take."""
    kind, ask = kind_of(encoded), encoded.payload
    if not isinstance(ask, Ask):
        return kind
    alike = (kind, ask.alike())
    if isinstance(codec, Seq2SeqText):
        return alike
    # Where the prompt counts for penalties, rows are of one length. A prompt of one token makes the library return
    # the others' prompts as if they were answers (4.8.5).
    return (*alike, len(ask.ids) if looks_back(codec.generation, ask) else len(ask.ids) == 1)


def _supported(device: str) -> tuple[str, ...]:
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda"):
        return ()
    found = ctranslate2.get_supported_compute_types(kind, int(index or 0))
    return tuple(dtype for dtype in BYTES if dtype in found)


def _check_supported(spec: ModelSpec, dtype: str, device: str) -> None:
    supported = _supported(device)
    if dtype not in supported:
        known = ", ".join(supported) or "nothing"
        raise ModelFailed(f"model {spec.name!r}: CTranslate2 computes on {device} in {known}, not in {dtype}")

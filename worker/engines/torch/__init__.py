"""The built-in engine: Transformers models on PyTorch, from safetensors."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers

from jobs.errors import ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Answer, Classify, Embed, FillMask, Generate, LabelTokens, Outcome, Request, Sampling
from worker.engines.base import Encoded, EngineCodec, Model, OutOfMemory, Room, Work
from worker.engines.batch import BatchModel, kind_of
from worker.engines.torch import loading
from worker.engines.torch.activations import absorb
from worker.engines.torch.causal import CausalCodec, CausalNet
from worker.engines.torch.causal_model import with_loop
from worker.engines.torch.device import device_of, dtype_of, errors_mapped, memory_of, precisions_of, reclaim
from worker.engines.torch.encoder import EncoderCodec
from worker.engines.torch.encoder_net import EncoderNet
from worker.engines.torch.generation import Ask
from worker.engines.torch.linear import quicken
from worker.engines.torch.sentences import sentences_of
from worker.engines.torch.seq2seq import Seq2SeqCodec, Seq2SeqNet
from worker.engines.torch.seq2seq_model import with_strands
from worker.engines.torch.siblings import fuse
from worker.packing import PADDED

log = logging.getLogger("textmill.worker")

LOOP_ROWS = (32, 128)
"""Rows of the products of a loop's passes: those that decode, and with pieces of prompts among them."""
MOST_ITEMS = {"cpu": 1024}
MOST_OTHERWISE = 16_384
"""Requests of one batch, however short; on other devices."""
LOOPED = ("cpu", "cuda")
"""Devices on which generation in a loop was tried; others keep plain `generate()`."""


class TorchEngine:
    """Implements the engine port with PyTorch."""

    name = "torch"

    def __init__(self) -> None:
        self._folder = loading.Folders()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()

    def codec(self, spec: ModelSpec) -> EngineCodec:
        folder = self._folder(spec)
        if spec.head != "generate":
            return EncoderCodec(spec, folder)
        made = Seq2SeqCodec if loading.config_of(spec, folder).is_encoder_decoder else CausalCodec
        return made(spec, folder)

    def size(self, spec: ModelSpec) -> int:
        folder = self._folder(spec)
        return loading.bytes_of(
            folder if spec.head == "generate" else sentences_of(folder).folder, spec.dtype or "float32"
        )

    def precisions(self, spec: ModelSpec, device: str) -> tuple[str, ...]:
        return precisions_of(device)

    def load(self, spec: ModelSpec, codec: EngineCodec, room: Room) -> Model:
        if not isinstance(codec, EncoderCodec | CausalCodec | Seq2SeqCodec):
            raise ModelFailed(f"engine {self.name!r} needs a codec of its own, not {type(codec).__name__}")
        torch.set_num_threads(room.threads)
        device = device_of(room.device)
        dtype = spec.dtype or room.dtype
        if dtype not in precisions_of(room.device):
            log.warning("model %s: %s has no instructions for %s, which is slow", spec.name, room.device, dtype)
        try:
            with loading.failures(spec), errors_mapped():
                model = loading.model_of(spec, codec.folder, codec.config, dtype=dtype, device=device)
                loaded = _loaded(model, codec, device, room)
        except OutOfMemory as error:
            raise ModelFailed(f"model {spec.name!r} does not fit the memory of {room.device}: {error}") from error
        return loaded


ENGINE = TorchEngine


def _loaded(model: Any, codec: EncoderCodec | CausalCodec | Seq2SeqCodec, device: torch.device, room: Room) -> Model:
    if isinstance(codec, EncoderCodec) or device.type not in LOOPED:
        loaded = TorchModel(model, codec, device, room)
        loaded.warm_up()
        return loaded
    if isinstance(codec, CausalCodec):
        fuse(model)
    quick = quicken(model, rows=LOOP_ROWS)
    absorb(model)
    plain = TorchModel(model, codec, device, room)
    plain.warm_up()
    if isinstance(codec, CausalCodec):
        return with_loop(model, codec, room, plain=plain, cost=_cost, exact=quick.exact)
    return with_strands(model, codec, room, plain=plain, cost=_cost, quick=quick)


class TorchModel(BatchModel):
    """One loaded model behind the port."""

    def __init__(
        self, model: Any, codec: EncoderCodec | CausalCodec | Seq2SeqCodec, device: torch.device, room: Room
    ) -> None:
        net = _net(model, codec, device, room.max_batch_tokens)
        self._net: EncoderNet | CausalNet | Seq2SeqNet | None = net
        super().__init__(
            self._on_device,
            max_batch_tokens=net.batch_tokens if isinstance(net, EncoderNet) else room.max_batch_tokens,
            cost=_cost,
            group=_alike,
            max_items=MOST_ITEMS.get(device.type, MOST_OTHERWISE),
            packing=net.packing if isinstance(net, EncoderNet) else PADDED,
            reclaim=lambda: reclaim(device),
        )
        self._codec = codec
        exact = isinstance(net, EncoderNet) and net.exact
        self._stats |= {
            "memory_bytes": memory_of(model),
            "mode": "exact" if exact else "close",
            "dtype": dtype_of(model),
        }

    def warm_up(self) -> None:
        """One small request of a kind the model answers, so that what cannot work shows before a job's items do."""
        asked = next(request for request in WARM_UP if type(request) in self._codec.heads)
        for encoded in self._codec.encode([_for_model(asked, self._codec)]):
            if isinstance(encoded, Encoded):
                self._on_device([Work("warm-up", encoded)])

    def close(self) -> None:
        self._net = None
        super().close()

    def _on_device(self, batch: Sequence[Work]) -> Sequence[Outcome]:
        if self._net is None:
            raise RuntimeError("the model is closed")
        with torch.inference_mode(), errors_mapped():
            return self._net.forward(batch)


WARM_UP: tuple[Request, ...] = (
    Classify("warm up"),
    LabelTokens("warm up"),
    Answer("warm", "up"),
    FillMask("warm up"),
    Embed("warm up"),
    Generate(prompt="warm up", sampling=Sampling(max_new_tokens=1)),
)


def _for_model(request: Request, codec: EncoderCodec | CausalCodec | Seq2SeqCodec) -> Request:
    if isinstance(request, FillMask):
        return replace(request, text=f"{request.text} {codec.tokenizer.mask_token}")
    if isinstance(request, Generate) and codec.kind == "seq2seq":
        return replace(request, prompt=None, source="warm up")
    return request


def _net(
    model: Any, codec: EncoderCodec | CausalCodec | Seq2SeqCodec, device: torch.device, budget: int
) -> EncoderNet | CausalNet | Seq2SeqNet:
    if isinstance(codec, EncoderCodec):
        return EncoderNet(model, codec, device, batch_tokens=budget)
    if isinstance(codec, CausalCodec):
        return CausalNet(model, codec, device)
    return Seq2SeqNet(model, codec, device)


def _cost(encoded: Encoded) -> int:
    return encoded.payload.cost() if hasattr(encoded.payload, "cost") else encoded.length


def _alike(encoded: Encoded) -> Hashable:
    kind, ask = kind_of(encoded), encoded.payload
    return (kind, ask.alike(), len(ask.ids) if ask.even else None) if isinstance(ask, Ask) else kind

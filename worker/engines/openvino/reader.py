"""Reads texts side by side through a compiled OpenVINO model."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import openvino
import torch

from worker.engines.torch.encoder import EncoderCodec
from worker.engines.torch.padded import Ids

MODEL = "model.xml"
"""The converted model's file; its weights lie beside it."""
HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""The precision OpenVINO computes in, by the registry's name; with int8 the weights alone are stored so."""


class OpenVinoReader:
    """A compiled model. What it returns is overwritten by the next pass."""

    def __init__(self, model: Path, codec: EncoderCodec, *, dtype: str, threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self._pass = openvino.Core().compile_model(str(model), "CPU", settings).create_infer_request()
        self._pad, self._has_types = codec.pad, codec.tokens.has_types

    def hidden(self, texts: Sequence[Ids]) -> list[torch.Tensor]:
        """Token vectors [tokens, width] of each text."""
        return [row[: len(text.ids)] for row, text in zip(self._run(texts), texts, strict=True)]

    def logits(self, texts: Sequence[Ids]) -> torch.Tensor:
        """What the model's head says of each text: [texts, labels]."""
        return self._run(texts)

    def logits_of_tokens(self, texts: Sequence[Ids]) -> list[torch.Tensor]:
        """What the model's head says of each token: [tokens, labels] of each text."""
        return self.hidden(texts)

    def logits_at(self, texts: Sequence[Ids], places: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """What the model's head says at some places of each text: [places, words]."""
        return [rows[list(some)] for rows, some in zip(self.hidden(texts), places, strict=True)]

    def _run(self, texts: Sequence[Ids]) -> torch.Tensor:
        # Every length is a shape of its own: rounding lengths up to 16 or 32 was no faster.
        width = max(len(text.ids) for text in texts)
        ids = numpy.full((len(texts), width), self._pad, dtype=numpy.int64)
        mask, types = numpy.zeros_like(ids), numpy.zeros_like(ids)
        for row, text in enumerate(texts):
            length = len(text.ids)
            ids[row, :length] = text.ids
            mask[row, :length] = 1
            if self._has_types:
                types[row, :length] = text.types
        given = [ids, mask, types] if self._has_types else [ids, mask]
        found = self._pass.infer(given, share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0])

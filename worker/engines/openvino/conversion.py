"""A model's safetensors into OpenVINO's format through a trace, and the proof that it still says the same."""

import random
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import openvino
import torch
import transformers
from openvino import opset13
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

from jobs.errors import ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Embed
from worker.engines.openvino.reader import MODEL, OpenVinoReader
from worker.engines.torch import loading
from worker.engines.torch.answering import answers
from worker.engines.torch.encoder import EncoderCodec
from worker.engines.torch.padded import Ids, PaddedReader, per_token

RECIPE = 1
"""Raised when models must be converted anew."""
TOLERANCE = 1e-3
"""Largest difference from the plain model's results, as a share of the largest of these."""
LENGTHS = (2, 19, 5, 300)
"""Of the texts on which the two are compared."""
SMALL = 4096
"""Weights with fewer numbers stay float32."""


def recipe(spec: ModelSpec, dtype: str) -> str:
    """Names all that a conversion depends on but the model itself."""
    stored = "int8" if dtype == "int8" else "float32"
    versions = f"{openvino.__version__} transformers {transformers.__version__}"
    return f"openvino {versions} {RECIPE} {spec.head} {stored}"


def convert(spec: ModelSpec, codec: EncoderCodec, dtype: str, to: Path) -> None:
    """Convert the model into the folder `to`. Raises ModelFailed for one that OpenVINO does not understand, or whose
    float32 form answers otherwise than the model itself."""
    model = loading.model_of(spec, codec.folder, codec.config, dtype="float32", device=torch.device("cpu"))
    model = model.get_encoder() if codec.config.is_encoder_decoder and spec.head == "embed" else model
    made = _traced(model, codec)
    with TemporaryDirectory(prefix="float32-", dir=to.parent) as scratch:
        exact = to if dtype != "int8" else Path(scratch)
        openvino.save_model(made, str(exact / MODEL), compress_to_fp16=False)
        _prove(spec, codec, model, exact / MODEL)
    if dtype == "int8":
        _store_weights_in_int8(made)
        openvino.save_model(made, str(to / MODEL), compress_to_fp16=False)


class _Plain(torch.nn.Module):
    """The model with tensors for arguments and one tensor as result, as a trace wants it."""

    def __init__(self, model: Any, *, embeds: bool) -> None:
        super().__init__()
        self.model, self.embeds = model, embeds

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        if self.embeds:
            return found.last_hidden_state
        return found.logits if hasattr(found, "logits") else per_token(found)


def _traced(model: Any, codec: EncoderCodec) -> Any:
    """The model as OpenVINO reads it. Not through `openvino.convert_model`, which reports its use to its maker."""
    ids = torch.ones(2, 9, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    example = {"input_ids": ids, "attention_mask": mask}
    example |= {"token_type_ids": torch.zeros_like(ids)} if codec.tokens.has_types else {}
    plain = _Plain(model, embeds=Embed in codec.heads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the trace takes for constant is found out by the proof
        decoder = TorchScriptPythonDecoder(plain, example_input=example)
        frontend = FrontEndManager().load_by_framework("pytorch")
        return frontend.convert(frontend.load(decoder))


def _prove(spec: ModelSpec, codec: EncoderCodec, model: Any, converted: Path) -> None:
    texts = [_text(codec, min(length, codec.limit)) for length in LENGTHS]
    plain = PaddedReader(model, pad=codec.pad, has_types=codec.tokens.has_types, device=torch.device("cpu"))
    with torch.inference_mode():
        wanted = answers(plain, codec, texts)
    found = answers(OpenVinoReader(converted, codec, dtype="float32", threads=1), codec, texts)
    for one, other in zip(wanted, found, strict=True):
        apart = float((one - other).abs().max())
        if not apart <= TOLERANCE * max(1.0, float(one.abs().max())):
            raise ModelFailed(
                f"model {spec.name!r}: OpenVINO {openvino.__version__} answers otherwise than the model itself "
                f"({apart:.2g} apart), so it is not used; register it for engine 'torch'"
            )


def _text(codec: EncoderCodec, length: int) -> Ids:
    """A text of so many tokens at most, the same in every process."""
    words, draw = codec.config.get_text_config().vocab_size, random.Random(length)
    inside = [draw.randrange(words) for _ in range(max(0, length - len(codec.framed([]).ids)))]
    return codec.framed([number for number in inside if number not in codec.tokens.control])


def _store_weights_in_int8(model: Any) -> None:
    """Weights of linear layers as int8 with a scale for each output; all else stays float32. More would need a sample
    of texts and the nncf package, which brings SciPy and scikit-learn along."""
    for operation in model.get_ordered_ops():
        if operation.get_type_name() != "MatMul":
            continue
        source = operation.input_value(1).get_node()
        if source.get_type_name() == "Constant" and source.data.ndim == 2 and source.data.size >= SMALL:
            outputs_first = operation.get_attributes()["transpose_b"]
            operation.input(1).replace_source_output(_in_int8(source.data, 1 if outputs_first else 0).output(0))


def _in_int8(weights: Any, axis: int) -> Any:
    """Int8 numbers and the scales they are multiplied by, taken over `axis`."""
    scales = numpy.maximum(numpy.abs(weights).max(axis=axis, keepdims=True), 1e-12) / 127
    numbers = opset13.constant(numpy.rint(weights / scales).astype(numpy.int8))
    return opset13.multiply(opset13.convert(numbers, "f32"), opset13.constant(scales.astype(numpy.float32)))

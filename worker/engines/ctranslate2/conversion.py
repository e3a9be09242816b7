"""A model's safetensors into CTranslate2's format, and the proof that it still says the same.

Tokens of the converted vocabulary are the model's ids written out: what goes in and comes back needs no table, and
tokenizers whose vocabulary has gaps, doubles or no unknown token convert like the others.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ctranslate2
import numpy
import torch
import transformers
from ctranslate2.converters import TransformersConverter

from jobs.errors import ModelFailed
from jobs.models import ModelSpec
from worker.engines.ctranslate2.codecs import Seq2SeqText, Text
from worker.engines.ctranslate2.wishes import tokens_of
from worker.engines.torch import loading

RECIPE = 1
"""Raised when models must be converted anew."""
TOLERANCE = 2e-3
"""Largest difference of log-probabilities from the plain model's, as a share of the largest of these."""
STEPS = 6
"""Tokens that are generated for the comparison."""
PAD = "<pad>"


def recipe(dtype: str) -> str:
    """Names all that a conversion depends on but the model itself."""
    return f"ctranslate2 {ctranslate2.__version__} transformers {transformers.__version__} {RECIPE} {dtype}"


def convert(spec: ModelSpec, codec: Text, dtype: str, to: Path) -> None:
    """Convert the model into the folder `to`. Raises ModelFailed for one that the library does not know, or whose
    converted float32 form answers otherwise than the model itself."""
    with TemporaryDirectory(prefix="float32-", dir=to.parent) as scratch:
        exact = to if dtype == "float32" else Path(scratch)
        plain = _Conversion(spec, codec).into(exact, "float32")
        _prove(spec, codec, exact, plain)
    if dtype != "float32":
        _Conversion(spec, codec).into(to, dtype)


class _Numbered:
    """Stands in for the tokenizer, whose vocabulary is all that the converter wants of it."""

    chat_template = None
    special_tokens_map: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, tokenizer: Any, words: int, *, last: str | None) -> None:
        self._names = [*map(str, range(words - 1)), last or str(words - 1)]
        for kind in ("bos", "eos", "pad", "unk"):
            number = getattr(tokenizer, f"{kind}_token_id", None)
            setattr(self, f"{kind}_token_id", number)
            setattr(self, f"{kind}_token", self._names[0 if number is None or number >= words else number])

    def get_vocab(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._names)}

    def convert_ids_to_tokens(self, number: int) -> str:
        return self._names[number]


class _Conversion(TransformersConverter):  # type: ignore[misc]
    """The library's converter on a model that is loaded by our rules: safetensors only, no remote code."""

    def __init__(self, spec: ModelSpec, codec: Text) -> None:
        super().__init__(str(codec.folder))
        self._spec, self._codec = spec, codec
        self._plain: list[torch.Tensor] = []

    def into(self, folder: Path, quantization: str) -> list[torch.Tensor]:
        """Write the model into the folder; what the plain model says of the rows it will be compared by."""
        self.convert(str(folder), quantization=quantization, force=True)
        _without_start(folder / "config.json")
        return self._plain

    def load_model(self, model_class: Any, model_name_or_path: str, **kwargs: Any) -> Any:
        device = torch.device("cpu")
        model = loading.model_of(self._spec, self._codec.folder, self._codec.config, dtype="float32", device=device)
        self._words = int(model.get_output_embeddings().weight.shape[0])
        if model.config.is_encoder_decoder:
            _say_where_norms_are(model)
        self._plain = _plain(model, self._codec)  # now: some loaders take the model apart
        return model

    def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **kwargs: Any) -> _Numbered:
        # Marian's loader drops the padding token, which must be the last one, by its name.
        last = PAD if self._codec.config.model_type == "marian" else None
        return _Numbered(self._codec.tokenizer, self._words, last=last)


def _say_where_norms_are(model: Any) -> None:
    """What the loaders of the BART family ask of the configuration, where Transformers 5 no longer has it."""
    encoder = model.get_encoder()
    model.config.normalize_before = hasattr(encoder, "layer_norm")
    model.config.normalize_embedding = hasattr(encoder, "layernorm_embedding")


def _without_start(config: Path) -> None:
    """The decoder's first token comes with each row: a model may have one for each language."""
    said = json.loads(config.read_text(encoding="utf-8"))
    if "decoder_start_token" in said:
        config.write_text(json.dumps({**said, "decoder_start_token": None}), encoding="utf-8")


# ----- the proof -----------------------------------------------------------------------------------------


def _rows(codec: Text) -> list[list[int]]:
    """Ids of very different lengths, from all over the vocabulary."""
    words = codec.config.get_text_config().vocab_size - 1
    lengths = [length for length in (3, 11, 40) if length + STEPS < codec.limit] or [1]
    return [[(at * 7919 + 13) % words for at in range(length)] for length in lengths]


def _answers(codec: Text) -> list[int]:
    """What a decoder has written, by which the two are compared."""
    words = codec.config.get_text_config().vocab_size - 1
    return [(at * 6007 + 17) % words for at in range(STEPS)]


def _plain(model: Any, codec: Text) -> list[torch.Tensor]:
    """The plain model's logits [tokens, words] for each row."""
    with torch.inference_mode():
        if not isinstance(codec, Seq2SeqText):
            return [model(torch.tensor([row])).logits[0] for row in _rows(codec)]
        start = torch.tensor([[codec.generation.decoder_start_token_id, *_answers(codec)[:-1]]])
        return [model(torch.tensor([row]), decoder_input_ids=start).logits[0] for row in _rows(codec)]


def _prove(spec: ModelSpec, codec: Text, folder: Path, plain: Sequence[torch.Tensor]) -> None:
    said = _translated(codec, folder) if isinstance(codec, Seq2SeqText) else _continued(codec, folder)
    for expected, found in zip(plain, said, strict=True):
        wanted = expected[:, : found.shape[1]].log_softmax(-1)
        apart = float((found.log_softmax(-1) - wanted).abs().max())
        if not apart <= TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise ModelFailed(
                f"model {spec.name!r}: CTranslate2 {ctranslate2.__version__} answers otherwise than the model itself "
                f"(log-probabilities {apart:.2g} apart), so it is not used; register it for engine 'torch'"
            )


def _continued(codec: Text, folder: Path) -> list[torch.Tensor]:
    model = ctranslate2.Generator(str(folder), compute_type="float32")
    return [torch.tensor(numpy.array(model.forward_batch([row])))[0] for row in _rows(codec)]


def _translated(codec: Text, folder: Path) -> list[torch.Tensor]:
    """Logits of each step while the library is made to write what the plain model was told it had written."""
    model = ctranslate2.Translator(str(folder), compute_type="float32")
    prefix = tokens_of([codec.generation.decoder_start_token_id, *_answers(codec)])
    results = model.translate_batch(
        [tokens_of(row) for row in _rows(codec)],
        [prefix] * len(_rows(codec)),
        beam_size=1,
        max_decoding_length=STEPS,
        min_decoding_length=0,
        return_logits_vocab=True,
    )
    return [torch.stack([torch.tensor(numpy.array(step)) for step in result.logits[0]]) for result in results]

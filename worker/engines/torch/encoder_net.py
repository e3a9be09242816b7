"""The built-in way of reading texts once: packed where that is proven, padded elsewhere, in passes of the best size."""

import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from jobs.errors import ModelFailed
from jobs.tasks.base import Embed
from worker.engines.base import OutOfMemory
from worker.engines.torch.activations import absorb
from worker.engines.torch.answering import Reader, ReaderNet, answers
from worker.engines.torch.device import errors_mapped, has_runs
from worker.engines.torch.encoder import EncoderCodec
from worker.engines.torch.limits import first_position
from worker.engines.torch.linear import quicken
from worker.engines.torch.packed import PackedReader
from worker.engines.torch.padded import Ids, PaddedReader
from worker.engines.torch.siblings import fuse
from worker.packing import END_TO_END, EQUAL, PADDED, Packing

log = logging.getLogger("textmill.worker")

STEPS = (512, 1024, 2048, 4096)
"""Tokens of a pass on a CPU that are tried: more leave its cache, fewer leave its cores idle."""
WIDE_STEPS = (4096, 16_384, 65_536, 262_144)
"""On other devices, which wait for the next call while a pass is small."""
PAIRED_TOKENS = 1024
"""Most tokens of a pass of a model whose positions are pairs of tokens."""
STEP_S = 1.0
"""A pass that takes longer is not made longer still: it would not be faster by much, and cancel has to wait for it."""
FASTER = 1.05
"""What a longer pass must gain to be preferred."""
SAMPLE = 48
"""Tokens of a text in these trials."""
SKEWED = (2, 19, 5, 300)
"""Lengths of the texts on which the ways of reading are compared; the last reaches beyond a sliding window."""
CLOSE = {torch.float32: 1e-4}
"""Largest difference allowed between a text's results in company and alone, for results of about 1."""
CLOSE_OTHERWISE = 5e-2


class EncoderNet(ReaderNet):
    """A loaded encoder. `batch_tokens` is what a pass takes: the fastest measured, and at most what was asked."""

    def __init__(self, model: Any, codec: EncoderCodec, device: torch.device, *, batch_tokens: int) -> None:
        self._model = model.get_encoder() if codec.config.is_encoder_decoder and Embed in codec.heads else model
        self._codec, self._type = codec, codec.config.model_type
        reader, packing, self.exact = self._fastest(device)
        super().__init__(codec, reader, packing=packing, batch_tokens=batch_tokens)
        steps = STEPS if device.type == "cpu" else WIDE_STEPS
        self.batch_tokens = self._best_step(steps, min(batch_tokens, self._most_tokens(steps)))

    # ----- how texts are read -----

    def _fastest(self, device: torch.device) -> tuple[Reader, Packing, bool]:
        """End to end where that is proven to give what each text alone gives, else padded, else texts of one length;
        whether results are exact, too."""
        padded = PaddedReader(self._model, pad=self._codec.pad, has_types=self._codec.tokens.has_types, device=device)
        texts = [self._random(min(length, self._codec.limit)) for length in SKEWED]
        with torch.inference_mode():
            wanted = [self._answers(padded, [text])[0] for text in texts]
            plain = self._side_by_side(padded, texts, wanted)
            fuse(self._model)
            if device.type != "cpu" and (self._has_pairs or not has_runs(device, wanted[0].dtype)):
                return padded, plain, False
            exact = quicken(self._model, rows=(1024,)).exact
            absorb(self._model)
            try:
                packed = self._proven(texts, wanted, device)
            except ModelFailed as reason:
                log.info("texts are padded, because of this architecture (%s): %s", self._type, reason)
                return padded, plain, False
            alone = self._answers(packed, texts[1:2])[0]
            return packed, END_TO_END, exact and torch.equal(alone, self._answers(packed, texts)[1])

    def _side_by_side(self, padded: PaddedReader, texts: Sequence[Ids], wanted: Sequence[torch.Tensor]) -> Packing:
        """Some architectures take padding for text (ConvBERT convolves over it)."""
        if _close(self._answers(padded, texts), wanted):
            return PADDED
        log.info("only texts of one length share a pass, because this architecture (%s) reads padding", self._type)
        return EQUAL

    def _proven(self, texts: Sequence[Ids], wanted: Sequence[torch.Tensor], device: torch.device) -> PackedReader:
        codec = self._codec
        packed = PackedReader(
            self._model,
            first_position=first_position(codec.config, codec.tokenizer),
            has_types=codec.tokens.has_types,
            device=device,
        )
        try:
            self._prove(packed, texts, wanted)
        except Exception as error:
            packed.close()
            raise (
                error if isinstance(error, ModelFailed) else ModelFailed(f"{type(error).__name__}: {error}")
            ) from error
        return packed

    def _prove(self, packed: PackedReader, texts: Sequence[Ids], wanted: Sequence[torch.Tensor]) -> None:
        """Raise ModelFailed unless it asks our attention in every layer and gives what each text alone gave."""
        found = self._answers(packed, texts)
        layers = self._codec.config.get_text_config().num_hidden_layers
        if packed.calls != layers:
            raise ModelFailed(f"its {layers} layers asked for packed attention {packed.calls} times")
        if not _close(found, wanted):
            raise ModelFailed("packed texts are answered otherwise than single ones")

    def _answers(self, reader: Reader, texts: Sequence[Ids]) -> list[torch.Tensor]:
        return answers(reader, self._codec, texts)

    @property
    def _has_pairs(self) -> bool:
        """Whether positions are told as a bias for each pair of tokens (T5)."""
        return hasattr(self._codec.config, "relative_attention_num_buckets")

    def _most_tokens(self, steps: Sequence[int]) -> int:
        """Biases for each pair of tokens must not fill the memory."""
        return PAIRED_TOKENS if self._has_pairs and self.packing is END_TO_END else steps[-1]

    def _best_step(self, steps: Sequence[int], most: int) -> int:
        """The number of tokens a pass takes at which most tokens are read in a second."""
        best, best_rate = min(most, steps[0]), 0.0
        with torch.inference_mode(), suppress(OutOfMemory), errors_mapped():
            for step in (each for each in steps if each <= most):
                seconds = min(self._timed(step) for _ in range(2))
                if step / seconds > best_rate * FASTER:
                    best, best_rate = step, step / seconds
                if seconds > STEP_S:
                    break
        return best

    def _timed(self, tokens: int) -> float:
        length = min(SAMPLE, self._codec.limit)
        texts = [self._random(length)] * max(1, tokens // length)
        start = time.perf_counter()
        self._answers(self._reader, texts)[-1].cpu()
        return time.perf_counter() - start

    def _random(self, length: int) -> Ids:
        """A text of so many tokens, the same in every process."""
        words = self._codec.config.get_text_config().vocab_size
        draw = random.Random(length)
        ids = self._codec.framed([])
        inside = [draw.randrange(words) for _ in range(max(0, length - len(ids.ids)))]
        return self._codec.framed([number for number in inside if number not in self._codec.tokens.control])


def _close(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> bool:
    return all(one.shape == other.shape and _apart(one, other) <= 1 for one, other in zip(wanted, found, strict=True))


def _apart(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """The largest difference, by the one that is allowed."""
    limit = CLOSE.get(wanted.dtype, CLOSE_OTHERWISE) * max(1.0, float(wanted.abs().max()))
    return float((wanted - found).abs().max()) / limit

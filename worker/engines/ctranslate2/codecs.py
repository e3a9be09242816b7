"""The text side: that of the torch engine, refusing what CTranslate2 cannot honour."""

from pathlib import Path
from typing import Any

from jobs.errors import ItemErrorCode
from jobs.models import ModelSpec
from jobs.tasks.base import Failed, Generate, Request
from worker.engines.base import Encoded
from worker.engines.ctranslate2.wishes import check_settings, refusal
from worker.engines.torch.causal import CausalCodec
from worker.engines.torch.seq2seq import Seq2SeqCodec


class Seq2SeqText(Seq2SeqCodec):
    """The text side of an encoder-decoder model."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__(spec, folder)
        check_settings(spec, self.generation)
        self.in_force = {**self.in_force, "engine": "ctranslate2"}

    def _encode(self, request: Any) -> Encoded | Failed:
        return _refused(self.generation, request) or super()._encode(request)


class CausalText(CausalCodec):
    """The text side of a decoder-only model."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__(spec, folder)
        check_settings(spec, self.generation)
        self.in_force = {**self.in_force, "engine": "ctranslate2"}

    def _encode(self, request: Any) -> Encoded | Failed:
        return _refused(self.generation, request) or super()._encode(request)


Text = Seq2SeqText | CausalText


def _refused(base: Any, request: Request) -> Failed | None:
    reason = refusal(base, request) if isinstance(request, Generate) else None
    return Failed(ItemErrorCode.INVALID_ITEM, reason) if reason else None

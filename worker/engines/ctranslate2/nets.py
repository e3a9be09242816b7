"""Batches of requests through the library's calls."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy

from jobs.tasks.base import Outcome, Score, Scored
from worker.engines.base import Work
from worker.engines.ctranslate2.codecs import CausalText, Seq2SeqText
from worker.engines.ctranslate2.wishes import looks_back, options, tokens_of
from worker.engines.torch.answers import Row, end_tokens, generated, has_stopped, read_behind, row_of
from worker.engines.torch.causal import ToScore
from worker.engines.torch.generation import Ask
from worker.packing import pack

SCORED_NUMBERS = 2**24
"""Log-probabilities that one pass of scoring may hold: rows times tokens times words."""

Net = Callable[[Sequence[Work]], list[Outcome]]


class Seq2SeqNet:
    """Runs batches of alike generations of an encoder-decoder model."""

    def __init__(self, codec: Seq2SeqText, folder: Path, **placed: Any) -> None:
        self._codec = codec
        self._model = ctranslate2.Translator(str(folder), **placed)
        self._words = codec.config.get_text_config().vocab_size - (codec.config.model_type == "marian")
        self._ends = end_tokens(codec.generation)

    def __call__(self, batch: Sequence[Work]) -> list[Outcome]:
        asks: list[Ask] = [item.encoded.payload for item in batch]
        wishes, base = asks[0], self._codec.generation
        # At the greatest length Transformers writes the end itself; what stands before it is the same.
        forced = base.forced_eos_token_id is not None
        most = max(1, wishes.most - forced)
        given = options(base, wishes, words=self._words)
        results = self._model.translate_batch(
            [tokens_of(each.ids) for each in asks],
            [self._start(each) for each in asks],
            max_input_length=0,
            max_decoding_length=most,
            min_decoding_length=min(wishes.least, most),
            callback=stopper(self._codec.tokens.decode, wishes, given["beam_size"]),
            **given,
        )
        return [
            generated(item, [self._row(tokens, most if forced else None) for tokens in result.hypotheses], self._text)
            for item, result in zip(batch, results, strict=True)
        ]

    def _start(self, ask: Ask) -> list[str]:
        """The decoder's first token, and the one it is made to write first."""
        base = self._codec.generation
        if self._codec.target_as == "decoder_start_token_id":
            return tokens_of([base.decoder_start_token_id if ask.target is None else ask.target])
        first = base.forced_bos_token_id if ask.target is None else ask.target
        if self._codec.target_as is None:
            first = base.forced_bos_token_id
        # Marian starts from a zero embedding, whatever the token, and its own start is not in the vocabulary.
        start = min(base.decoder_start_token_id, self._words - 1)
        return tokens_of([start] if first is None else [start, first])

    def _row(self, tokens: Sequence[str], forced_at: int | None) -> Row:
        row = row_of([int(token) for token in tokens], self._ends)
        if row.ended or len(row.ids) != forced_at:
            return row
        return Row(row.ids, row.tokens + 1, True)

    def _text(self, ask: Ask, row: Row) -> str:
        return self._codec.tokens.decode(row.ids)


class CausalNet:
    """Runs batches of a decoder-only model: of generations that are alike, or of continuations to score."""

    def __init__(self, codec: CausalText, folder: Path, **placed: Any) -> None:
        self._codec = codec
        self._model = ctranslate2.Generator(str(folder), **placed)
        self._words = codec.config.get_text_config().vocab_size
        self._bos = int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["bos_token"])
        self._ends = end_tokens(codec.generation)

    def __call__(self, batch: Sequence[Work]) -> list[Outcome]:
        if isinstance(batch[0].encoded.request, Score):
            return self._scores(batch)
        asks: list[Ask] = [item.encoded.payload for item in batch]
        wishes, base = asks[0], self._codec.generation
        given = options(base, wishes, words=self._words)
        # Only tokens that the library writes itself count for its penalties: then the prompt is written too, and its
        # rows are all of one length (`alike`).
        written = looks_back(base, wishes)
        before = len(wishes.ids) - 1 if written else 0
        results = self._model.generate_batch(
            [tokens_of(each.ids) for each in asks],
            include_prompt_in_result=written,
            max_length=before + wishes.most,
            min_length=before + min(wishes.least, wishes.most),
            callback=stopper(self._codec.tokens.decode, wishes, given["beam_size"], skip=before),
            **given,
        )
        return [
            generated(item, [self._row(item, ids, written) for ids in result.sequences_ids], self._text)
            for item, result in zip(batch, results, strict=True)
        ]

    def _row(self, item: Work, ids: Sequence[int], written: bool) -> Row:
        """What stands behind the prompt; the library leaves a first token out that begins every text."""
        prompt = item.encoded.payload.ids
        after = len(prompt) - (prompt[0] == self._bos) if written else 0
        return row_of(ids[after:], self._ends)

    def _text(self, ask: Ask, row: Row) -> str:
        return read_behind(self._codec.tokens.decode, ask.ids, row.ids)

    def _scores(self, batch: Sequence[Work]) -> list[Outcome]:
        asked: list[ToScore] = [item.encoded.payload for item in batch]
        wanted: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for each in asked:
            for row, continuation in zip(each.rows(), each.continuations, strict=True):
                wanted.setdefault(row, []).append(continuation)
        sums = self._sums(wanted)
        return [
            Scored(
                tuple(
                    sums[row, continuation] for row, continuation in zip(each.rows(), each.continuations, strict=True)
                ),
                tuple(map(len, each.continuations)),
                input_tokens=item.encoded.length,
            )
            for each, item in zip(asked, batch, strict=True)
        ]

    def _sums(
        self, wanted: dict[tuple[int, ...], list[tuple[int, ...]]]
    ) -> dict[tuple[tuple[int, ...], tuple[int, ...]], float]:
        """For each row that is read, the log-probability of each continuation that ends behind it."""
        rows, found = list(wanted), {}
        for part in pack(list(map(len, rows)), max(1, SCORED_NUMBERS // self._words)):
            logprobs = self._logprobs([rows[at] for at in part])
            for row, numbers in zip((rows[at] for at in part), logprobs, strict=True):
                for continuation in wanted[row]:
                    last = numbers[len(row) - len(continuation) : len(row)]
                    found[row, continuation] = float(last[range(len(continuation)), continuation].sum(dtype=float))
        return found

    def _logprobs(self, rows: Sequence[tuple[int, ...]]) -> Any:
        """Log-probabilities [rows, tokens, words] of what follows each token."""
        view = self._model.forward_batch([list(row) for row in rows], return_log_probs=True)
        view = view.to(ctranslate2.DataType.float32).to_device(ctranslate2.Device.cpu)
        return numpy.asarray(view)


def stopper(
    decode: Callable[[Sequence[int]], str], ask: Ask, beams: int, *, skip: int = 0
) -> Callable[[Any], bool] | None:
    """Ends a row when one of its stop strings appears; the library calls it for every token, but not with beams.
    `skip`: steps in which the prompt is written."""
    if not ask.stop or beams > 1:
        return None
    written: dict[tuple[int, int], list[int]] = {}

    def stops(result: Any) -> bool:
        if result.step < skip:
            return False
        ids = written.setdefault((result.batch_id, result.hypothesis_id), [])
        ids.append(result.token_id)
        return has_stopped(decode, ids, ask.stop)

    return stops

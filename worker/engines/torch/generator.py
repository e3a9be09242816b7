"""One call of `generate()` for a batch of rows that are alike, and its output as one outcome per request."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import transformers

from jobs.errors import ItemErrorCode
from jobs.tasks.base import Failed, Generated, Outcome, Sample
from worker.engines.base import Work
from worker.engines.torch.drawing import Draw, NanWatch, Stops, uniform
from worker.engines.torch.generation import Ask, Plan, plan

PLANS = 256
"""Configurations that are kept: the requests of a job mostly share one."""


class Row(NamedTuple):
    """One generated row: its ids without padding and end, the tokens the model made, and whether it ended itself."""

    ids: list[int]
    tokens: int
    ended: bool


class Generator:
    """Calls `generate()` with the model's configuration in full, per-row draws and stop strings."""

    def __init__(
        self, model: Any, base: Any, decode: Callable[[Sequence[int]], str], *, target_as: str | None = None
    ) -> None:
        """`target_as` names the setting that takes the token of a target language."""
        self._model, self._base, self._decode, self._target_as = model, base, decode, target_as
        # What is in force is given in full with every call; `generate()` would fill gaps from here.
        model.generation_config = transformers.GenerationConfig()
        self._plans: dict[Hashable, Plan] = {}
        ends = base.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def outcomes(
        self, batch: Sequence[Work], given: dict[str, torch.Tensor], *, start: int, text: Callable[[Ask, Row], str]
    ) -> list[Outcome]:
        """An outcome per work. `given` has a row for each; what is generated begins at column `start`; `text` reads
        it."""
        asks: list[Ask] = [item.encoded.payload for item in batch]
        watch = NanWatch()
        rows = self._generate(batch, given, self._plan(asks[0]), watch, start)
        each = len(rows) // len(batch)
        broken = watch.broken(len(batch))
        return [
            self._outcome(item, rows[at * each : (at + 1) * each], text) if not broken[at] else _nan(item)
            for at, item in enumerate(batch)
        ]

    def _plan(self, ask: Ask) -> Plan:
        alike = ask.alike()
        if alike not in self._plans:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            made = plan(self._base, ask)
            if self._target_as and ask.target is not None:
                setattr(made.config, self._target_as, ask.target)
            self._plans[alike] = made
        return self._plans[alike]

    def _generate(
        self, batch: Sequence[Work], given: dict[str, torch.Tensor], plan: Plan, watch: NanWatch, start: int
    ) -> list[Row]:
        ask: Ask = batch[0].encoded.payload
        processors: list[Any] = [watch]
        if plan.drawn is not None:
            given = {name: values.repeat_interleave(ask.n, 0) for name, values in given.items()}
            processors.append(
                Draw(plan.drawn, [(_seed(item), item.seq, at) for item in batch for at in range(ask.n)], start)
            )
        criteria = [Stops(self._decode, ask.stop, start)] if ask.stop else []
        with _seeded(plan, batch):
            made = self._model.generate(
                **given,
                generation_config=plan.config,
                logits_processor=transformers.LogitsProcessorList(processors),
                stopping_criteria=transformers.StoppingCriteriaList(criteria),
            )
        return [self._row(ids[start:]) for ids in made.tolist()]

    def _row(self, ids: list[int]) -> Row:
        end = next((at for at, number in enumerate(ids) if number in self._ends), None)
        if end is not None:
            return Row(ids[:end], end + 1, True)
        while ids and ids[-1] == self._base.pad_token_id:
            ids.pop()
        return Row(ids, len(ids), False)

    def _outcome(self, item: Work, rows: list[Row], text: Callable[[Ask, Row], str]) -> Outcome:
        ask: Ask = item.encoded.payload
        found = [_sample(text(ask, row), row, ask.stop) for row in rows]
        written = sum(row.tokens for row in rows)
        # Without draws or beams every sample is the same text.
        return Generated(tuple(found * (ask.n // len(found))), input_tokens=item.encoded.length, output_tokens=written)


def _sample(text: str, row: Row, stop: tuple[str, ...]) -> Sample:
    ends = [text.index(each) for each in stop if each in text]
    if ends:
        return Sample(text[: min(ends)], "stop")
    return Sample(text, "stop" if row.ended else "length")


def _seed(item: Work) -> int | None:
    request: Any = item.encoded.request
    seed: int | None = request.seed
    return seed


def _nan(item: Work) -> Failed:
    return Failed(ItemErrorCode.MODEL_ERROR, "the model returned NaN", input_tokens=item.encoded.length)


@contextmanager
def _seeded(plan: Plan, batch: Sequence[Work]) -> Iterator[None]:
    """Beams that draw use the library's global generator: seeded for the one request of such a batch."""
    if not plan.config.do_sample:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(uniform(_seed(batch[0]), batch[0].seq, 0, 0) * 2**53))
        yield

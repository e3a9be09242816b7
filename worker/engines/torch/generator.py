"""One call of `generate()` for a batch of rows that are alike, and its output as one outcome per request."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers

from jobs.tasks.base import Outcome
from worker.engines.base import Work
from worker.engines.torch.answers import Row, end_tokens, generated, not_a_number, row_of, seed_of
from worker.engines.torch.drawing import uniform
from worker.engines.torch.generation import Ask, Plan, plan
from worker.engines.torch.processors import Draw, NanWatch, Stops

PLANS = 256
"""Configurations that are kept: the requests of a job mostly share one."""


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
        self._ends = end_tokens(base)

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
            generated(item, rows[at * each : (at + 1) * each], text) if not broken[at] else not_a_number(item)
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
                Draw(plan.drawn, [(seed_of(item), item.seq, at) for item in batch for at in range(ask.n)], start)
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
        row = row_of(ids, self._ends)
        if row.ended:
            return row
        while row.ids and row.ids[-1] == self._base.pad_token_id:
            row.ids.pop()
        return row._replace(tokens=len(row.ids))


@contextmanager
def _seeded(plan: Plan, batch: Sequence[Work]) -> Iterator[None]:
    """Beams that draw use the library's global generator: seeded for the one request of such a batch."""
    if not plan.config.do_sample:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(uniform(seed_of(batch[0]), batch[0].seq, 0, 0) * 2**53))
        yield

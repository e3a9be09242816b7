"""Encoder-decoder generation as a loop: items come in when rows are free and leave when they are written."""

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.tasks.base import Outcome
from worker.engines.base import Encoded, Key, Work
from worker.engines.loop import Starting
from worker.engines.torch.answers import Decode, generated, has_stopped, not_a_number, row_of, seed_of
from worker.engines.torch.beams import Search, Single
from worker.engines.torch.choosing import Strand, take
from worker.engines.torch.device import errors_mapped
from worker.engines.torch.generation import Ask, plan
from worker.engines.torch.linear import FLOOR
from worker.engines.torch.rules import Rules
from worker.engines.torch.strands import Bundle, Strands, bytes_of, shape_of
from worker.engines.torch.wiring import Wiring

ROWS = 64
"""Rows that are decoded together: products gain little beyond, and the last rows of a job are alone for longer."""
REFILL = 8
"""One in so many rows has to be free before others come in: reading one source at a time wastes the encoder."""
PLANS = 1024
"""Configurations that are kept: the requests of a job mostly share one."""


@dataclass(eq=False)
class _Item:
    """One request that is being written."""

    work: Work
    bundle: Bundle
    strands: list[Strand]
    bytes: int

    @property
    def ask(self) -> Ask:
        ask: Ask = self.work.encoded.payload
        return ask


class Seq2SeqLoop:
    """Implements `worker.engines.loop.Loop`."""

    def __init__(
        self,
        wiring: Wiring,
        base: Any,
        decode: Decode,
        *,
        target_as: str | None,
        source_tokens: int,
        memory: int,
        rows: int = ROWS,
        known: dict[str, Any] | None = None,
    ) -> None:
        """`base` is the model's own GenerationConfig, `target_as` the setting that takes the token of a target
        language; `memory` bytes are for what the rows have read and written; `known` goes with the figures."""
        self._wiring, self._base, self._decode, self._target_as = wiring, base, decode, target_as
        self._shape, self._strands = shape_of(wiring), Strands(wiring, memory)
        self._most_rows, self._most_tokens, self._memory = rows, source_tokens, memory
        self._shift = 0
        self._items: dict[Key, _Item] = {}
        self._by_writing: dict[int, tuple[_Item, int]] = {}
        self._rules: dict[Hashable, tuple[Any, Rules]] = {}
        self._more, self._known = False, known or {}
        self._stats = {"tokens": 0, "padded_tokens": 0, "decode_rows": 0, "decode_slots": 0, "shared_tokens": 0}

    def refusal(self, encoded: Encoded) -> str | None:
        bytes_needed = self._bytes(encoded.payload)
        if bytes_needed <= self._memory:
            return None
        return f"out of memory: {bytes_needed} bytes of keys and values where {self._memory} fit"

    def admit(self, waiting: Sequence[Work], starting: Starting) -> int:
        fitting = self._fitting(waiting)
        if fitting:
            starting(fitting)
            with torch.inference_mode(), errors_mapped():
                self._start(fitting)
        self._more = len(waiting) > len(fitting)
        return len(fitting)

    def advance(self) -> list[tuple[Key, Outcome]]:
        if not self._items:
            return []
        with torch.inference_mode(), errors_mapped():
            logits = self._strands.step().float()
            strands = self._in_order()
            fine = take(logits, strands)
            self._count(len(logits))
            return self._left(strands, fine)

    def running(self) -> list[Work]:
        return [item.work for item in self._items.values()]

    @torch.inference_mode()
    def drop(self, keys: Collection[Key]) -> None:
        for key in keys:
            if key in self._items:
                item = self._items.pop(key)
                self._strands.drop(item.bundle)
                for strand in item.strands:
                    self._by_writing.pop(id(strand.writing), None)

    def shrink(self) -> bool:
        self._strands.trim()
        if self._rows == 1:
            return False
        self._shift += 1
        return True

    def grow(self) -> None:
        self._shift = max(0, self._shift - 1)

    def stats(self) -> dict[str, Any]:
        return {**self._stats, **self._known, "budget": self._rows}

    def close(self) -> None:
        self._items, self._by_writing = {}, {}
        self._strands.close()
        self._wiring.release()

    def takes(self, encoded: Encoded) -> bool:
        """Whether a request can be written here: beams that draw, and those that a string may stop, cannot."""
        ask: Ask = encoded.payload
        return not ask.alone and not (ask.stop and (self._rules_of(ask)[0].num_beams or 1) > 1)

    # ----- coming in -----

    @property
    def _rows(self) -> int:
        return max(1, self._most_rows >> self._shift)

    def _fitting(self, waiting: Sequence[Work]) -> list[Work]:
        """The first ones that there is room for; one at least where nothing else runs."""
        rows = self._rows - sum(item.ask.rows for item in self._items.values())
        if self._items and rows < self._rows / REFILL:
            return []
        tokens = max(1, self._most_tokens >> self._shift)
        memory = self._memory - sum(item.bytes for item in self._items.values())
        fitting: list[Work] = []
        for work in waiting:
            ask: Ask = work.encoded.payload
            rows, tokens, memory = rows - ask.rows, tokens - len(ask.ids), memory - self._bytes(ask)
            if (self._items or fitting) and min(rows, tokens, memory) < 0:
                break
            fitting.append(work)
        return fitting

    def _bytes(self, ask: Ask) -> int:
        return bytes_of(self._shape, ask.rows, len(ask.ids), ask.most)

    def _start(self, works: Sequence[Work]) -> None:
        items = [self._item(work) for work in works]
        for item in items:  # so that what goes wrong below concerns them all
            self._items[item.work.key] = item
        hidden = self._strands.read([item.ask.ids for item in items])
        self._strands.begin([item.bundle for item in items], hidden)
        for item in items:
            self._by_writing |= {id(strand.writing): (item, at) for at, strand in enumerate(item.strands)}
        self._stats["tokens"] += sum(len(item.ask.ids) for item in items)
        self._stats["padded_tokens"] += sum(len(item.ask.ids) for item in items)

    def _item(self, work: Work) -> _Item:
        ask: Ask = work.encoded.payload
        config, rules = self._rules_of(ask)
        start = config.decoder_start_token_id
        written: list[Search | Single]
        if (config.num_beams or 1) > 1:
            written = [Search(config, start=start, most=ask.most, ends=rules.ends)]
        else:
            written = [Single(start=start, most=ask.most, ends=rules.ends, sample=at) for at in range(ask.rows)]
        strands = [Strand(each, rules, seed_of(work), work.seq) for each in written]
        return _Item(work, self._strands.bundle(written), strands, self._bytes(ask))

    def _rules_of(self, ask: Ask) -> tuple[Any, Rules]:
        alike = ask.alike()
        if alike not in self._rules:
            if len(self._rules) >= PLANS:
                self._rules.clear()
            made = plan(self._base, ask)
            config = made.config if made.drawn is None else made.drawn
            if self._target_as and ask.target is not None:
                setattr(config, self._target_as, ask.target)
            self._rules[alike] = config, Rules(config, self._wiring.device, draws=made.drawn is not None)
        return self._rules[alike]

    # ----- going out -----

    def _in_order(self) -> list[Strand]:
        owners = (self._by_writing[id(writing)] for writing in self._strands.strands())
        return [item.strands[at] for item, at in owners]

    def _count(self, rows: int) -> None:
        self._stats["tokens"] += rows
        self._stats["padded_tokens"] += max(rows, FLOOR)
        if self._more:
            self._stats["decode_rows"] += rows
            self._stats["decode_slots"] += max(rows, self._rows)

    def _left(self, strands: Sequence[Strand], fine: Sequence[bool]) -> list[tuple[Key, Outcome]]:
        """The outcomes of items that have ended, which leave, as single strands do. They leave when all outcomes are
        made: if one could not be made, all are tried again."""
        owners = [self._by_writing[id(strand.writing)] for strand in strands]
        broken = {item.work.key: item for (item, _), sound in zip(owners, fine, strict=True) if not sound}
        ended = [
            (item, at, strand)
            for (item, at), strand in zip(owners, strands, strict=True)
            if item.work.key not in broken and self._is_done(item.ask, strand.writing)
        ]
        going = Counter(item.work.key for item, _, _ in ended)
        whole = {item.work.key: item for item, _, _ in ended if sum(item.bundle.live) == going[item.work.key]}
        found: list[tuple[Key, Outcome]] = [(key, not_a_number(item.work)) for key, item in broken.items()]
        found += [(key, self._outcome(item)) for key, item in whole.items()]
        for item, at, strand in ended:
            self._strands.end(item.bundle, at)
            del self._by_writing[id(strand.writing)]
        self.drop([key for key, _ in found])
        return found

    def _is_done(self, ask: Ask, writing: Search | Single) -> bool:
        return writing.done or (bool(ask.stop) and has_stopped(self._decode, writing.ids[0][1:], ask.stop))

    def _outcome(self, item: _Item) -> Outcome:
        written = [strand.writing for strand in item.strands]
        ids = [each.ids for writing in written for each in writing.hypotheses(item.ask.n)]
        rows = [row_of(each, item.strands[0].rules.ends) for each in ids]
        return generated(item.work, rows, lambda ask, row: self._decode(row.ids))

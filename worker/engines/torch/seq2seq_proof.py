"""The proof at load that an encoder-decoder model says in the loop what it says when it is left alone."""

import random
from collections.abc import Sequence

import torch

from worker.engines.torch.device import errors_mapped
from worker.engines.torch.strands import Strands
from worker.engines.torch.unfit import Unfit, explained
from worker.engines.torch.wiring import Wiring

TOLERANCE = 1e-4
"""Largest difference from the plain model's logits, for logits of about 1."""
SOURCES = (5, 37, 1, 18, 70)
"""Source tokens of each item of the proof, where the model takes as many; each is started a step after the last."""
TARGETS = (9, 20, 4, 17, 6)
PROOF_BYTES = 2**26
"""What these may take beyond what they need."""
TWINS = 3
"""Which of them is written by two beams that change places at every step."""


def prove(wiring: Wiring, *, words: int, limit: int, pad: int) -> bool:
    """Whether logits have the same bits in every company. Raises Unfit where they are not the plain model's, or where
    a neighbour changes them. `pad` is the one token that no text has."""
    sources, targets = _drawn(words, limit, pad, seed=1)
    others, _ = _drawn(words, limit, pad, seed=2)
    with explained(), torch.inference_mode(), errors_mapped():
        plain = [wiring.plain(*pair) for pair in zip(sources, targets, strict=True)]
        found = _written(wiring, sources, targets)
        beside_others = _written(wiring, [sources[0], *others[1:]], targets)[0]
        alone = _written(wiring, sources[:1], targets[:1])[0]
    for one, other in [*zip(plain, found, strict=True), (found[0], beside_others), (found[0], alone)]:
        if not _near(one, other):
            raise Unfit("its logits are others than the plain model's, or change with a neighbour")
    return torch.equal(found[0], beside_others) and torch.equal(found[0], alone)


class _Dictated:
    """A strand that writes what it is told, by one row or by two that change places."""

    def __init__(self, ids: Sequence[int], rows: int) -> None:
        self._ids, self._rows, self.written = ids, rows, 0
        self.tokens = [ids[0]] * rows
        self.parents: list[int] | None = None
        self.logits: list[torch.Tensor] = []

    @property
    def row(self) -> int:
        """The row that writes what was told; the other one writes something else."""
        return self.written % self._rows

    def go_on(self) -> bool:
        """Whether there is more to write."""
        self.written += 1
        if self.written == len(self._ids):
            return False
        before, now = (self.written - 1) % self._rows, self.row
        self.tokens = [self._ids[0]] * self._rows
        self.tokens[now] = self._ids[self.written]
        self.parents = [before if row == now else now for row in range(self._rows)]
        return True


def _drawn(words: int, limit: int, pad: int, *, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    chance = random.Random(seed)
    known = [number for number in range(words) if number != pad]

    def texts(lengths: Sequence[int]) -> list[list[int]]:
        return [chance.choices(known, k=min(each, limit)) for each in lengths]

    return texts(SOURCES), texts(TARGETS)


def _written(wiring: Wiring, sources: list[list[int]], targets: list[list[int]]) -> list[torch.Tensor]:
    """Logits [tokens, words] of each item, all of them written together."""
    strands = Strands(wiring, PROOF_BYTES)
    hidden = strands.read(sources)
    _asked(wiring, wiring.source_layers)
    items = [_Dictated(target, 1 + (at == TWINS)) for at, target in enumerate(targets)]
    bundles = [strands.bundle([item]) for item in items]
    waiting = list(zip(bundles, hidden, strict=True))
    of = dict(zip(map(id, items), bundles, strict=True))
    while waiting or strands.strands():
        if waiting:
            bundle, source = waiting.pop(0)
            strands.begin([bundle], [source])
        logits, first = strands.step(), 0
        _asked(wiring, 2 * wiring.layers)
        for strand in strands.strands():
            assert isinstance(strand, _Dictated)
            strand.logits.append(logits[first + strand.row])
            first += len(strand.tokens)
            if not strand.go_on():
                strands.end(of[id(strand)], 0)
    return [torch.stack(item.logits) for item in items]


def _asked(wiring: Wiring, expected: int) -> None:
    if wiring.calls != expected:
        raise Unfit(f"attention was asked {wiring.calls} times by {expected} layers")


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    bound = TOLERANCE if one.dtype == torch.float32 else 5e-2
    return bool((one - other).abs().max() <= bound * max(1.0, float(one.abs().max())))

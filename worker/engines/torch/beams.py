"""Beam search of one item as Transformers does it (`GenerationMixin._beam_search`, 5.23), one step at a time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

OUT = -1e9
"""Added to the score of what must not go on; where beams begin that have no text of their own yet."""


class Candidate(NamedTuple):
    score: float
    """Sum of the log-probabilities, this token's included."""
    beam: int
    token: int


class Hypothesis(NamedTuple):
    score: float
    """The sum after the length penalty."""
    ids: list[int]
    """Generated tokens, without the start token."""


class Search:
    """The beams of one item, and what they have finished so far."""

    def __init__(self, config: Any, *, start: int, most: int, ends: frozenset[int]) -> None:
        self.beams: int = config.num_beams
        self.keep = max(2, 1 + len(ends)) * self.beams
        """Candidates that a step looks at: enough that as many can go on as there are beams."""
        self._ends, self._most = ends, most
        self._penalty = 1.0 if config.length_penalty is None else float(config.length_penalty)
        self._early: bool | str = config.early_stopping or False
        self.tokens, self.written = [start] * self.beams, 0
        self.parents: list[int] | None = None
        self.scores = [0.0] + [OUT] * (self.beams - 1)
        self.ids = [[start] for _ in range(self.beams)]
        self.finished: list[Hypothesis] = []
        self.done = False

    def take(self, candidates: Sequence[Candidate]) -> None:
        """The `keep` best continuations, the best first."""
        length = self.written + 1
        ended = [length >= self._most or each.token in self._ends for each in candidates]
        best = zip(candidates[: self.beams], ended, strict=False)
        self._finish([each for each, end in best if end], length)
        ranked = [each._replace(score=each.score + OUT * end) for each, end in zip(candidates, ended, strict=True)]
        self._go_on(sorted(ranked, key=lambda each: -each.score)[: self.beams])
        full = len(self.finished) == self.beams
        self.done = all(ended) or (full and self._early is True) or not self._can_improve(full)

    def hypotheses(self, n: int) -> list[Hypothesis]:
        """The `n` best texts, n being at most the number of beams; a search that ended with fewer repeats its last."""
        return [*self.finished, *self.finished[-1:] * n][:n]

    def _finish(self, ended: list[Candidate], length: int) -> None:
        """Only the best `beams` candidates may finish: the others are there to go on."""
        made = [
            Hypothesis(each.score / length**self._penalty, [*self.ids[each.beam][1:], each.token]) for each in ended
        ]
        self.finished = sorted([*self.finished, *made], key=lambda each: -each.score)[: self.beams]

    def _go_on(self, chosen: list[Candidate]) -> None:
        self.ids = [[*self.ids[each.beam], each.token] for each in chosen]
        self.parents, self.tokens = [each.beam for each in chosen], [each.token for each in chosen]
        self.scores = [each.score for each in chosen]
        self.written += 1

    def _can_improve(self, full: bool) -> bool:
        """Whether the best beam may still beat the worst that finished, judged by the length so far or, where longer
        texts are favoured and nothing else is to stop the search, by the greatest length."""
        length = self._most if self._early == "never" and self._penalty > 0 else self.written
        worst = self.finished[-1].score if full else OUT
        return bool(self.scores[0] / length**self._penalty > worst)


class Single:
    """One row that takes one token at a time: the likeliest, or one that was drawn."""

    def __init__(self, *, start: int, most: int, ends: frozenset[int], sample: int) -> None:
        self._ends, self._most = ends, most
        self.sample = sample
        self.tokens, self.written = [start], 0
        self.parents: list[int] | None = None
        self.ids = [[start]]
        self.done = False

    def take(self, token: int) -> None:
        self.ids[0].append(token)
        self.tokens = [token]
        self.written += 1
        self.done = token in self._ends or self.written >= self._most

    def hypotheses(self, n: int) -> list[Hypothesis]:
        """Its one text, whatever `n`."""
        return [Hypothesis(0.0, self.ids[0][1:])]

"""Requests at work in the causal loop: what each reads next, and what it makes of the logits that come back."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from jobs.tasks.base import Outcome, Scored
from worker.engines.base import Work
from worker.engines.torch.answers import Decode, generated, has_stopped, read_behind, row_of, seed_of
from worker.engines.torch.causal import ToScore
from worker.engines.torch.generation import Ask
from worker.engines.torch.kv import Cabinet, Place, capacity
from worker.engines.torch.passes import Reading
from worker.engines.torch.prefixes import names_of, spans
from worker.engines.torch.rules import Line, Lot, Rules

BRANCH_TOKENS = 128
"""Tokens of continuations that one item reads at a time."""


class Prompt:
    """The part of a request that is read before anything is asked, in pieces that it may share with others."""

    def __init__(self, ids: Sequence[int], place: Place, names: Sequence[bytes]) -> None:
        self.ids, self.place, self.names = ids, place, names
        self.read = 0
        self._pieces = list(spans(0, len(ids)))

    @property
    def done(self) -> bool:
        return self.read == len(self.ids)

    def next(self) -> tuple[int, int, bytes | None]:
        """Start, end and, for a whole piece, name of what comes next."""
        at = next(at for at, (start, _) in enumerate(self._pieces) if start == self.read)
        return *self._pieces[at], self.names[at] if at < len(self.names) else None

    def reading(self, start: int, end: int) -> Reading:
        """That piece, which counts as read from now on."""
        self.read, last = end, end == len(self.ids)
        return Reading(self.place, self.ids[start:end], start, [end - start - 1] if last else [])


class Job(Protocol):
    """A request that has begun."""

    item: Work
    prompt: Prompt

    def begin(self, logits: torch.Tensor) -> None:
        """What follows the prompt: logits [words]."""
        ...

    def outcome(self) -> Outcome | None:
        """The answer, when there is one."""
        ...

    def places(self) -> list[Place]:
        """All that it occupies now."""
        ...


class Text:
    """One text that is being written."""

    def __init__(self, job: "Writing", sample: int, place: Place) -> None:
        self.job, self.place = job, place
        self.ids = list(job.prompt.ids)
        self.made: list[int] = []
        self.ended = False
        self.lot = Lot(seed_of(job.item), job.item.seq, sample)

    def line(self) -> Line:
        return Line(self.job.rules, len(self.job.prompt.ids), len(self.made), self.ids)

    def reading(self) -> Reading:
        """The token that was written last; the place has to `reach` it."""
        return Reading(self.place, self.ids[-1:], len(self.ids) - 1, [0])

    def take(self, token: int) -> None:
        """Write it down; a text that has ended frees its place."""
        self.ids.append(token)
        self.made.append(token)
        self.ended = token in self.job.rules.ends or len(self.made) >= self.job.rules.most or self.job.stops(self.made)
        if self.ended:
            self.place.leave()


class Writing:
    """A generation: one prompt, and a text for each sample that is drawn."""

    def __init__(self, item: Work, rules: Rules, cabinet: Cabinet, decode: Decode) -> None:
        self.item, self.rules = item, rules
        self.ask: Ask = item.encoded.payload
        self._cabinet, self._decode = cabinet, decode
        self.prompt = Prompt(self.ask.ids, Place(cabinet, len(self.ask.ids) + 1), names_of(self.ask.ids))
        self.texts: list[Text] = []

    @staticmethod
    def tokens(ask: Ask) -> int:
        """Most that it ever occupies."""
        return ask.rows * capacity(len(ask.ids) + ask.most)

    def begin(self, logits: torch.Tensor) -> None:
        places = [self.prompt.place]
        for _ in range(1, self.ask.rows):
            place = Place(self._cabinet, len(self.ask.ids) + 1)
            place.copy(self.prompt.place, len(self.ask.ids))
            places.append(place)
        self.texts = [Text(self, sample, place) for sample, place in enumerate(places)]

    def stops(self, made: Sequence[int]) -> bool:
        return bool(self.ask.stop) and has_stopped(self._decode, made, self.ask.stop)

    def outcome(self) -> Outcome | None:
        if not self.texts or not all(text.ended for text in self.texts):
            return None
        rows = [row_of(text.made, self.rules.ends) for text in self.texts]
        return generated(self.item, rows, lambda ask, row: read_behind(self._decode, ask.ids, row.ids))

    def places(self) -> list[Place]:
        return [text.place for text in self.texts if not text.ended] if self.texts else [self.prompt.place]


class Scoring:
    """Likelihoods of continuations: the first token's from the prompt, the others' from branches behind it, several of
    which are read at once."""

    def __init__(self, item: Work, cabinet: Cabinet) -> None:
        self.item = item
        self._asked: ToScore = item.encoded.payload
        ids = self._asked.prompt
        self.prompt = Prompt(ids, Place(cabinet, len(ids) + 1), names_of(ids))
        self._left = [each for each in dict.fromkeys(self._asked.continuations) if len(each) > 1]
        self._now: list[tuple[int, ...]] = []
        self._sums: dict[tuple[int, ...], float] = {}

    @staticmethod
    def tokens(asked: ToScore) -> int:
        """Most that it ever occupies."""
        widest = max([BRANCH_TOKENS, *map(len, asked.continuations)])
        return capacity(len(asked.prompt) + min(widest, sum(map(len, asked.continuations))))

    def begin(self, logits: torch.Tensor) -> None:
        logprobs = logits.float().log_softmax(-1)
        firsts = logprobs[[each[0] for each in self._asked.continuations]].tolist()
        self._sums = dict(zip(self._asked.continuations, firsts, strict=True))

    def reading(self) -> Reading:
        """The next continuations, side by side."""
        self._now = list(_first_ones(self._left))
        start = len(self.prompt.ids)
        read = [each[:-1] for each in self._now]
        self.prompt.place.reach(start + sum(map(len, read)))
        return Reading(
            self.prompt.place,
            [number for each in read for number in each],
            start,
            range(sum(map(len, read))),
            [start + at for each in read for at in range(len(each))],
            [branch for branch, each in enumerate(read) for _ in each],
        )

    @property
    def asked_now(self) -> int:
        """Tokens of the continuations that are being read."""
        return sum(len(each) - 1 for each in self._now)

    def take(self, logits: torch.Tensor) -> None:
        """Logits [tokens, words] of what was read."""
        wanted = torch.tensor([number for each in self._now for number in each[1:]], device=logits.device)
        found = iter(logits.float().log_softmax(-1).gather(1, wanted[:, None])[:, 0].tolist())
        for each in self._now:
            self._sums[each] += sum(next(found) for _ in each[1:])
        self._left = self._left[len(self._now) :]

    def outcome(self) -> Outcome | None:
        if self._left or not self.prompt.done:
            return None
        sums = tuple(self._sums[each] for each in self._asked.continuations)
        return Scored(sums, tuple(map(len, self._asked.continuations)), input_tokens=self.item.encoded.length)

    def places(self) -> list[Place]:
        return [self.prompt.place]


def _first_ones(continuations: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """As many as are read at a time: the same for the same request, whatever its company."""
    tokens = 0
    for each in continuations:
        tokens += len(each) - 1
        if tokens > BRANCH_TOKENS and tokens > len(each) - 1:
            return
        yield each

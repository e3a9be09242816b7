"""Requests at work in the causal loop: what each reads next, and what it makes of the logits that come back."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch

from jobs.tasks.base import Outcome, Scored
from worker.engines.base import Work
from worker.engines.torch.answers import generated, has_stopped, read_behind, row_of, seed_of
from worker.engines.torch.causal import CausalCodec, ToScore
from worker.engines.torch.generation import Ask
from worker.engines.torch.passes import Reading, room_for
from worker.engines.torch.prefixes import spans
from worker.engines.torch.rules import Line, Lot, Rules
from worker.engines.torch.store import Spot, Store

BRANCH_TOKENS = 128
"""Tokens of continuations that one item reads at a time."""


class Prompt:
    """The part of a request that is read before anything is asked, in pieces that it may share with others."""

    def __init__(self, ids: Sequence[int], names: Sequence[bytes], store: Store) -> None:
        self.ids, self.names = ids, names
        self.place: Spot = store.place()
        self.place.reach(room_for(len(ids) + 1))
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


class Needs(NamedTuple):
    """What a request occupies at most."""

    rows: int
    tokens: int
    """Of keys and values."""


class Job(Protocol):
    """A request that has begun."""

    item: Work
    prompt: Prompt
    needs: Needs

    def begin(self, logits: torch.Tensor) -> None:
        """What follows the prompt: logits [words]."""
        ...

    def outcome(self) -> Outcome | None:
        """The answer, when there is one."""
        ...

    def places(self) -> list[Spot]:
        """All that it ever had; those that were left are nowhere."""
        ...


class Text:
    """One text that is being written."""

    def __init__(self, job: "Writing", sample: int, place: Spot) -> None:
        self.job, self.place = job, place
        self.follower = job.follow() if job.follow else None
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
        if self.follower is not None:
            self.follower.take(token)
        self.ended = token in self.job.rules.ends or len(self.made) >= self.job.rules.most or self.job.stops(self.made)
        if self.ended:
            self.place.leave()


class Writing:
    """A generation: one prompt, and a text for each sample that is drawn, so many of them at once as `needs` has rows.
    The last text takes over the prompt's place, which the others copied."""

    def __init__(
        self, item: Work, needs: Needs, names: Sequence[bytes], rules: Rules, store: Store, codec: CausalCodec
    ) -> None:
        self.item, self.needs, self.rules = item, needs, rules
        self.ask: Ask = item.encoded.payload
        self._store, self._decode = store, codec.tokens.decode
        grammar = self.ask.grammar
        self.follow = None if grammar is None else partial(codec.grammars.follow, grammar)
        """Begins to follow the grammar that its texts keep to, if there is one."""
        self.prompt = Prompt(self.ask.ids, names, store)
        self.texts: list[Text] = []
        self._begun = False
        self.first: torch.Tensor | None = None
        """Logits [words] of every text's first token, once the prompt is read; kept for texts that have to wait."""

    @staticmethod
    def needs_of(ask: Ask, *, rows: int, tokens: int) -> Needs:
        """What it occupies within these bounds; more tokens than there are where it fits no way."""
        each = room_for(len(ask.ids) + ask.most).length
        if ask.rows == 1 or ask.rows <= min(rows, tokens // each):
            return Needs(ask.rows, ask.rows * each)
        some = max(1, min(rows, tokens // each - 1))
        return Needs(some, (some + 1) * each)

    def begin(self, logits: torch.Tensor) -> None:
        self._begun = True
        self.first = logits.clone() if self.ask.rows > self.needs.rows else None

    def more(self) -> list[Text]:
        """Texts that begin now, as far as there are rows for them."""
        if not self._begun or len(self.texts) == self.ask.rows:
            return []
        begun, writing = len(self.texts), sum(not text.ended for text in self.texts)
        for sample in range(begun, min(self.ask.rows, begun + self.needs.rows - writing)):
            self._start(sample)
        return self.texts[begun:]

    def _start(self, sample: int) -> None:
        if sample == self.ask.rows - 1:
            self.texts.append(Text(self, sample, self.prompt.place))
            return
        place = self._store.place()
        place.reach(room_for(len(self.ask.ids) + 1))
        self.texts.append(Text(self, sample, place))
        place.copy(self.prompt.place, len(self.ask.ids))

    def stops(self, made: Sequence[int]) -> bool:
        return bool(self.ask.stop) and has_stopped(self._decode, made, self.ask.stop, prompt=self.ask.ids)

    def outcome(self) -> Outcome | None:
        if len(self.texts) < self.ask.rows or not all(text.ended for text in self.texts):
            return None
        rows = [row_of(text.made, self.rules.ends) for text in self.texts]
        return generated(self.item, rows, lambda ask, row: read_behind(self._decode, ask.ids, row.ids))

    def places(self) -> list[Spot]:
        return [self.prompt.place, *(text.place for text in self.texts)]


class Scoring:
    """Likelihoods of continuations: the first token's from the prompt, the others' from branches behind it, several of
    which are read at once."""

    def __init__(self, item: Work, needs: Needs, names: Sequence[bytes], store: Store) -> None:
        self.item, self.needs = item, needs
        self._asked: ToScore = item.encoded.payload
        self.prompt = Prompt(self._asked.prompt, names, store)
        self._left = [each for each in dict.fromkeys(self._asked.continuations) if len(each) > 1]
        self._now: list[tuple[int, ...]] = []
        self._sums: dict[tuple[int, ...], float] = {}

    @staticmethod
    def needs_of(asked: ToScore) -> Needs:
        """What it occupies."""
        widest = max([BRANCH_TOKENS, *map(len, asked.continuations)])
        return Needs(1, room_for(len(asked.prompt) + min(widest, sum(map(len, asked.continuations)))).length)

    def begin(self, logits: torch.Tensor) -> None:
        logprobs = logits.float().log_softmax(-1)
        firsts = logprobs[[each[0] for each in self._asked.continuations]].tolist()
        self._sums = dict(zip(self._asked.continuations, firsts, strict=True))

    def reading(self) -> Reading:
        """The next continuations, side by side."""
        self._now = list(_first_ones(self._left))
        start = len(self.prompt.ids)
        read = [each[:-1] for each in self._now]
        self.prompt.place.reach(room_for(start + sum(map(len, read))))
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

    def places(self) -> list[Spot]:
        return [self.prompt.place]


def _first_ones(continuations: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """As many as are read at a time: the same for the same request, whatever its company."""
    tokens = 0
    for each in continuations:
        tokens += len(each) - 1
        if tokens > BRANCH_TOKENS and tokens > len(each) - 1:
            return
        yield each

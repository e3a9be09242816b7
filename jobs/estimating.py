"""What an input would be as a job, before anything is stored or run: counts, tokens, long texts, duplicates."""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import orjson

from jobs.blocks import costs_of, cut
from jobs.intake import Run
from jobs.models import ModelSpec
from jobs.schemas import Bin, LongTexts, TokenCounts
from jobs.tasks import AnyTask
from jobs.tasks.windows import MAX_OVERLAP, OVERLAP
from jobs.tokens import input_limit, tokens_of

NOT_TEXT = frozenset({"custom_id", "params"})
PARTS = 256
_WORD = 2**64 - 1


class Survey:
    """Takes the items of an input, one run after the other, in memory that grows by 8 bytes an item."""

    def __init__(self, task: AnyTask, params: Any, spec: ModelSpec) -> None:
        self._fields = [name for name in task.input.model_fields if name not in NOT_TEXT]
        self._tokens, self._limit = tokens_of(spec), input_limit(spec, params)
        self._long_text = "error" if task.shorten is None else str(getattr(params, "long_text", "split"))
        self._lengths: Counter[int] = Counter()
        """Items by their tokens."""
        self._long: Counter[int] = Counter()
        """Requests that are longer than the model reads, by their tokens."""
        self._long_items = 0
        self._seen = Seen()
        self._answers = 0
        self.items = 0
        self.cost = 0
        """Estimated tokens, as the queue weighs them."""
        self.chunks = 0

    def add(self, run: Run) -> None:
        """Take the items of one block."""
        items = run.items
        costs = costs_of(items.lines, items.allowances)
        self.items += len(costs)
        self.cost += sum(costs)
        self.chunks += len(cut(run.seq_lo, costs, items.models))
        self._answers += sum(items.allowances)
        asked = [self._asked(line) for line in items.lines]
        counts = iter(self._tokens.of([text for texts in asked for text in texts]))
        for texts in asked:
            self._count([next(counts) for _ in texts])
            self._seen.add("\n".join(texts))

    @property
    def duplicates(self) -> int:
        """Items whose text another item has, too, but for the first of each."""
        return self._seen.again()

    def tokens(self) -> TokenCounts:
        """What the items count."""
        by_length = sorted(self._lengths)
        upto = list(accumulate(self._lengths[length] for length in by_length))

        def at(share: float) -> int:
            return next((length for length, n in zip(by_length, upto, strict=True) if n >= share * self.items), 0)

        bins: Counter[int] = Counter()
        for length in by_length:
            bins[1 << max(length - 1, 0).bit_length()] += self._lengths[length]
        return TokenCounts(
            counted_by=self._tokens.by,
            total=sum(length * n for length, n in self._lengths.items()),
            answers=self._answers,
            shortest=at(0),
            median=at(0.5),
            p90=at(0.9),
            longest=at(1),
            histogram=tuple(Bin(up_to=edge, items=bins[edge]) for edge in sorted(bins)),
        )

    def long_texts(self) -> LongTexts | None:
        """What is too long for the model; None: its limit is not known."""
        if self._limit is None:
            return None
        cut_off = sum((length - self._limit) * n for length, n in self._long.items())
        windows = sum(windows_of(length, self._limit) * n for length, n in self._long.items())
        return LongTexts(
            limit=self._limit,
            long_text=self._long_text,
            items=self._long_items,
            tokens_lost=cut_off if self._long_text == "truncate" else 0,
            windows=windows if self._long_text == "split" else 0,
        )

    def _count(self, lengths: Sequence[int]) -> None:
        self._lengths[sum(lengths)] += 1
        if self._limit is not None and max(lengths, default=0) > self._limit:
            self._long_items += 1
            self._long.update(length for length in lengths if length > self._limit)

    def _asked(self, line: bytes) -> list[str]:
        """The texts that the model would be asked with: one, or with a list of texts each of them beside the others."""
        item = orjson.loads(line)
        given = [item[name] for name in self._fields if item.get(name) is not None]
        lists = [value for value in given if isinstance(value, list) and all(isinstance(each, str) for each in value)]
        beside = "\n".join(text for value in given if value not in lists for text in _texts(value))
        return [f"{beside}\n{text}" for text in lists[0]] if lists and lists[0] else [beside]


class Seen:
    """Counts texts that were there before, by their hashes."""

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(PARTS)]

    def add(self, text: str) -> None:
        """Take one more."""
        number = hash(text) & _WORD
        self._parts[number % PARTS].append(number)

    def again(self) -> int:
        """How many were none of the first of their kind."""
        return sum(len(part) - len(set(part)) for part in self._parts)


def windows_of(length: int, limit: int) -> int:
    """About how many windows a text of so many tokens is read in."""
    overlap = min(limit // OVERLAP, MAX_OVERLAP)
    return 1 if length <= limit else math.ceil((length - overlap) / max(limit - overlap, 1))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)

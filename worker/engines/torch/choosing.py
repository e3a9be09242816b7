"""From the logits of many rows to what each strand takes next: single rows a token, searches their candidates."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import torch

from worker.engines.torch.beams import Candidate, Search, Single
from worker.engines.torch.best import best
from worker.engines.torch.rules import Line, Lot, Rules, chosen, rule

Each = TypeVar("Each")

CACHED_ROWS = 8
"""Rows of a large vocabulary that a core's cache holds."""


class Strand(NamedTuple):
    """A strand with what decides about its next tokens."""

    writing: Search | Single
    rules: Rules
    seed: int | None
    seq: int

    def lines(self) -> list[Line]:
        """One for each of its rows."""
        looked = self.rules.looks_back
        return [Line(self.rules, 1, self.writing.written, ids if looked else ()) for ids in self.writing.ids]

    def lot(self) -> Lot:
        assert isinstance(self.writing, Single)
        return Lot(self.seed, self.seq, self.writing.sample)


def take(logits: torch.Tensor, strands: Sequence[Strand]) -> list[bool]:
    """Each strand goes a step further by its rows of `logits` [rows, words], which are used up; for each, whether its
    logits were numbers: one for which they were not stays where it was."""
    fine: list[bool] = []
    first = 0
    for run in _runs(strands, _together):
        rows = sum(len(strand.writing.tokens) for strand in run)
        fine += _step_of(run[0])(logits[first : first + rows], run)
        first += rows
    return fine


def _together(strand: Strand) -> Hashable:
    """Neighbours of which this is the same are looked at in one go."""
    if isinstance(strand.writing, Search):
        return strand.writing.beams, strand.writing.keep
    return id(strand.rules) if strand.rules.warpers is not None else None


def _step_of(strand: Strand) -> Callable[[torch.Tensor, list[Strand]], list[bool]]:
    if isinstance(strand.writing, Search):
        return _search
    return _likeliest if strand.rules.warpers is None else _draw


def _search(scores: torch.Tensor, strands: list[Strand]) -> list[bool]:
    """Log-probabilities, but never written down as such: rules that only ban tokens hold for logits as well."""
    searches: list[Any] = [strand.writing for strand in strands]
    top, rest = _normalizers(scores, searches[0].beams)
    lines = [line for strand in strands for line in strand.lines()]
    exact = [at for at, line in enumerate(lines) if not line.rules.only_bans(line)]
    if exact:
        where = torch.tensor(exact, device=scores.device)
        scores[where] = (scores[where] - top[where, None]) - rest[where, None]
        top[where] = rest[where] = 0
    rule(scores, lines)
    keep = searches[0].keep
    values, tokens = best(scores, keep)
    so_far = torch.tensor([score for search in searches for score in search.scores], device=scores.device)
    sums = ((values - top[:, None]) - rest[:, None] + so_far[:, None]).view(len(searches), -1)
    found, at = sums.topk(keep)
    columns = values.shape[1]
    words = tokens.view(len(searches), -1).gather(1, at)
    fine: list[bool] = (~found.isnan().any(-1)).tolist()
    rows = zip(searches, fine, found.tolist(), (at // columns).tolist(), words.tolist(), strict=True)
    for search, sound, *candidates in rows:
        if sound:
            search.take([Candidate(*each) for each in zip(*candidates, strict=True)])
    return fine


def _normalizers(scores: torch.Tensor, beams: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a log-probability is less than its logit, in two parts [rows] to be taken off one after the other: the
    largest logit is exact so.

    A few rows at a time, which stay in the cache; never one alone, which torch would sum in another order (2.13).
    """
    tops, rests = list[torch.Tensor](), list[torch.Tensor]()
    for rows in scores.split_with_sizes(_portions(len(scores), beams * max(1, CACHED_ROWS // beams))):
        tops.append(rows.amax(-1))
        rests.append((rows - tops[-1][:, None]).exp_().sum(-1).log_())
    return torch.cat(tops), torch.cat(rests)


def _portions(rows: int, most: int) -> list[int]:
    return [min(most, rows - start) for start in range(0, rows, most)]


def _likeliest(scores: torch.Tensor, strands: list[Strand]) -> list[bool]:
    rule(scores, [line for strand in strands for line in strand.lines()])
    values, tokens = best(scores, 1)
    fine: list[bool] = (~values[:, 0].isnan()).tolist()
    _write(strands, tokens[:, 0].tolist(), fine)
    return fine


def _draw(scores: torch.Tensor, strands: list[Strand]) -> list[bool]:
    lines = [line for strand in strands for line in strand.lines()]
    fine: list[bool] = (~scores.isnan().any(-1)).tolist()
    rule(scores, lines)
    _write(strands, chosen(scores, lines, [strand.lot() for strand in strands]), fine)
    return fine


def _write(strands: list[Strand], tokens: list[int], fine: list[bool]) -> None:
    for strand, token, sound in zip(strands, tokens, fine, strict=True):
        if sound:
            assert isinstance(strand.writing, Single)
            strand.writing.take(token)


def _runs(things: Sequence[Each], key: Callable[[Each], Hashable]) -> Iterator[list[Each]]:
    return (list(run) for _, run in groupby(things, key))

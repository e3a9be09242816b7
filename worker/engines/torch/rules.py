"""A GenerationConfig as rules for rows of scores: which tokens may follow, and which one does.

Each rule gives what Transformers' own processor gives (`GenerationMixin._get_logits_processor`, 5.23), but for rows
of different lengths, positions and configurations in one tensor, and no row's result depends on another.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch

from worker.engines.torch.answers import end_tokens
from worker.engines.torch.drawing import drawn, uniform, warped, warpers_of

UNSUPPORTED: dict[str, Callable[[Any], bool]] = {
    "assistant_early_exit": bool,
    "constraints": bool,
    "diversity_penalty": bool,
    "dola_layers": bool,
    "encoder_no_repeat_ngram_size": bool,
    "encoder_repetition_penalty": lambda value: value not in (None, 1.0),
    "exponential_decay_length_penalty": bool,
    "force_words_ids": bool,
    "guidance_scale": lambda value: value not in (None, 1.0),
    "max_time": bool,
    "num_beam_groups": lambda value: (value or 1) > 1,
    "penalty_alpha": bool,
    "prompt_lookup_num_tokens": bool,
    "remove_invalid_values": bool,
    "sequence_bias": bool,
    "token_healing": bool,
    "watermarking_config": bool,
}
"""Settings that only `generate()` knows, and when they are in use."""


def supported(config: Any) -> str | None:
    """Why a configuration has to go through `generate()`; None: these rules give the same."""
    for name, in_use in UNSUPPORTED.items():
        if in_use(getattr(config, name, None)):
            return name
    if any(len(word) > 1 for word in config.bad_words_ids or ()):
        return "bad_words_ids of several tokens"
    return "beams that draw" if config.do_sample and (config.num_beams or 1) > 1 else None


class Line(NamedTuple):
    """What belongs to one row of scores."""

    rules: "Rules"
    start: int
    """Tokens before the first generated one: the prompt's, or 1 for a decoder's start token."""
    position: int
    """Tokens generated so far."""
    ids: Sequence[int] = ()
    """All that the decoder has read, start and prompt included; only asked for where `rules.looks_back`."""


class Lot(NamedTuple):
    """What a row's draws depend on."""

    seed: int | None
    seq: int
    sample: int


class Rules:
    """The rules of one `supported` configuration, as `generation.plan` makes it: lengths are of new tokens."""

    def __init__(self, config: Any, device: torch.device, *, draws: bool) -> None:
        """`draws`: whether tokens are drawn, rather than the likeliest ones taken."""
        self.ends = end_tokens(config)
        self.most: int = config.max_new_tokens
        self.warpers = warpers_of(config) if draws else None
        self.looks_back = bool(config.no_repeat_ngram_size) or config.repetition_penalty not in (None, 1.0)
        self._penalty: float | None = config.repetition_penalty if config.repetition_penalty != 1.0 else None
        self._ngram: int = config.no_repeat_ngram_size or 0
        self._least: int = config.min_new_tokens or 0
        self._first: int | None = config.forced_bos_token_id
        self._renormalize = bool(config.renormalize_logits) and not draws

        def tokens(numbers: Sequence[int] | int | None) -> torch.Tensor | None:
            some = [numbers] if isinstance(numbers, int) else numbers
            return torch.tensor(sorted(some), device=device) if some else None

        self.end_tokens = tokens(list(self.ends))
        self._last = tokens(config.forced_eos_token_id)
        self._bad = tokens([word[0] for word in config.bad_words_ids or () if word[0] not in self.ends])
        self._suppressed = tokens(config.suppress_tokens)
        self._begin = tokens(config.begin_suppress_tokens)
        rules = (self._last, self._bad, self._suppressed, self._begin, self._first)
        self.only_least = not (self.looks_back or self._renormalize) and all(rule is None for rule in rules)
        """Whether they say nothing but that a text may not end too early."""

    def idle(self, line: Line) -> bool:
        """Whether the scores of this row stay as they are."""
        return self.only_least and line.position >= self._least

    def only_bans(self, line: Line) -> bool:
        """Whether a row's scores stay as they are but for those of banned tokens."""
        if self._penalty is not None or self._renormalize:
            return False
        first = self._first is not None and line.start + line.position == 1
        return not first and (self._last is None or line.position != self.most - 1)

    def apply(self, scores: torch.Tensor, lines: Sequence[Line]) -> torch.Tensor:
        """The scores [rows, words], changed in place to what these rules leave; all lines are of these rules."""
        ids = _padded([line.ids for line in lines], scores.device) if self.looks_back else None
        if ids is not None and self._penalty is not None:
            _penalize(scores, ids, self._penalty)
        if ids is not None and self._ngram:
            _ban_repeats(scores, ids, [len(line.ids) for line in lines], self._ngram)
        self._ban(scores, self._bad, None)
        self._ban(scores, self.end_tokens, [line.position < self._least for line in lines])
        if self._first is not None:
            _force(scores, self._first, [line.start + line.position == 1 for line in lines])
        if self._last is not None:
            _force(scores, self._last, [line.position == self.most - 1 for line in lines])
        self._ban(scores, self._suppressed, None)
        self._ban(scores, self._begin, [line.position == self._begins(line) for line in lines])
        return scores.copy_(scores.log_softmax(-1)) if self._renormalize else scores

    def _begins(self, line: Line) -> int:
        return 1 if line.start == 1 and self._first is not None else 0

    def _ban(self, scores: torch.Tensor, tokens: torch.Tensor | None, where: list[bool] | None) -> None:
        if tokens is None or (where is not None and not any(where)):
            return
        if where is None or all(where):
            scores[:, tokens] = -torch.inf
        else:
            scores[_rows(where, scores.device)[:, None], tokens] = -torch.inf


def ruled(scores: torch.Tensor, lines: Sequence[Line]) -> torch.Tensor:
    """The scores [rows, words] after each row's own rules. Scores are logits, or a beam search's log-probabilities."""
    if all(line.rules.idle(line) for line in lines):
        return scores
    made = scores.clone()
    rule(made, lines)
    return made


def rule(scores: torch.Tensor, lines: Sequence[Line]) -> None:
    """The same in place. Rows that may only not end yet are banned from it together, whatever their rules: a GPU waits
    for each call."""
    unended: dict[frozenset[int], list[int]] = {}
    groups: dict[int, list[int]] = {}
    for at, line in enumerate(lines):
        if not line.rules.idle(line):
            if line.rules.only_least:
                unended.setdefault(line.rules.ends, []).append(at)
            else:
                groups.setdefault(id(line.rules), []).append(at)
    for rows in unended.values():
        tokens = lines[rows[0]].rules.end_tokens
        if tokens is not None:
            scores[torch.tensor(rows, device=scores.device)[:, None], tokens] = -torch.inf
    for rows in groups.values():
        of_group = [lines[at] for at in rows]
        if rows == list(range(rows[0], rows[0] + len(rows))):
            of_group[0].rules.apply(scores[rows[0] : rows[0] + len(rows)], of_group)
        else:
            where = torch.tensor(rows, device=scores.device)
            scores[where] = of_group[0].rules.apply(scores[where], of_group)


def chosen(scores: torch.Tensor, lines: Sequence[Line], lots: Sequence[Lot]) -> list[int]:
    """Each row's next token, from scores [rows, words] that went through the rules: drawn, or the likeliest."""
    tokens: list[int] = scores.argmax(-1).tolist()
    groups: dict[Hashable, list[int]] = {}
    for at, line in enumerate(lines):
        if line.rules.warpers is not None:
            groups.setdefault(id(line.rules), []).append(at)
    for rows in groups.values():
        left = warped(lines[rows[0]].rules.warpers or (), scores[torch.tensor(rows, device=scores.device)])
        numbers = [uniform(*lots[at], lines[at].position) for at in rows]
        for at, token in zip(rows, drawn(left, numbers).tolist(), strict=True):
            tokens[at] = token
    return tokens


def _rows(where: Sequence[bool], device: torch.device) -> torch.Tensor:
    return torch.tensor([at for at, yes in enumerate(where) if yes], device=device)


def _padded(ids: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Ids [rows, longest], -1 behind the end."""
    rows = torch.full((len(ids), max(map(len, ids))), -1)
    for at, each in enumerate(ids):
        rows[at, : len(each)] = torch.tensor(each)
    return rows.to(device)


def _penalize(scores: torch.Tensor, ids: torch.Tensor, penalty: float) -> None:
    read = torch.where(ids < 0, ids[:, :1], ids)  # padding repeats a token: penalized once all the same
    seen = scores.gather(1, read)
    scores.scatter_(1, read, torch.where(seen < 0, seen * penalty, seen / penalty))


def _ban_repeats(scores: torch.Tensor, ids: torch.Tensor, lengths: list[int], size: int) -> None:
    """Ban what would repeat a run of `size` tokens: what followed earlier where the row's last ones stand."""
    if ids.shape[1] < size:
        return
    runs = ids.unfold(1, size, 1)
    ends = torch.tensor(lengths, device=ids.device)[:, None] + torch.arange(1 - size, 0, device=ids.device)
    now = ids.gather(1, ends.clamp(min=0))
    same = (runs[..., :-1] == now[:, None]).all(-1) & (runs[..., -1] >= 0)
    row, place = same.nonzero(as_tuple=True)
    scores[row, runs[row, place, -1]] = -torch.inf


def _force(scores: torch.Tensor, tokens: torch.Tensor | int, where: list[bool]) -> None:
    """Leave only these tokens possible."""
    for at in (at for at, yes in enumerate(where) if yes):
        scores[at] = -torch.inf
        scores[at, tokens] = 0.0

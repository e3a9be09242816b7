"""The causal loop: rows that decode and prompts in pieces share each pass of the plain model."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy
import torch

from jobs.errors import ItemError
from jobs.tasks.base import Generate, Outcome, Score
from worker.engines.base import Encoded, Key, Work
from worker.engines.loop import Starting
from worker.engines.torch.answers import not_a_number
from worker.engines.torch.causal import CausalCodec
from worker.engines.torch.device import errors_mapped
from worker.engines.torch.generation import Ask, plan
from worker.engines.torch.generator import PLANS
from worker.engines.torch.passes import Packed, Reading, room_for
from worker.engines.torch.prefixes import COARSE, Piece, Prefixes, names_of
from worker.engines.torch.rows import Job, Needs, Scoring, Text, Writing
from worker.engines.torch.rules import Rules, chosen, ruled, supported
from worker.engines.torch.shelves import Shape
from worker.engines.torch.store import Store

SLOTS = 32
"""Rows that decode at a time on a CPU: with more, a pass takes longer and gains nothing."""
PASS_TOKENS = 256
"""Prompt tokens of one pass, so that those who decode do not wait long."""
SIGHT = 64
"""Waiting requests whose prompts are looked at for what they share."""


class Passes(Protocol):
    """A model as the loop runs it."""

    shape: Shape
    takes_branches: bool
    """Whether several continuations of a prompt can be read in one row."""

    def store(self, most_bytes: int) -> Any:
        """A `Store` for keys and values that its passes read and write."""
        ...

    def packed(self, singles: Sequence[Reading], chunks: Sequence[Reading], pad: int) -> Packed:
        """The pass that reads all of these, whose logits come back in this order. Singles are of one token each, and
        sorted by their places' `order`."""
        ...

    def __call__(self, made: Packed) -> torch.Tensor:
        """Logits [kept tokens, words]."""
        ...


class _Piece(NamedTuple):
    """A piece of a prompt that a pass reads."""

    job: Job
    name: bytes | None
    reading: Reading


class CausalLoop:
    """Generations and likelihoods of a decoder-only model, through one kind of pass."""

    def __init__(
        self,
        passes: Passes,
        codec: CausalCodec,
        *,
        cache_bytes: int,
        prefix_bytes: int,
        known: Mapping[str, Any],
        slots: int = SLOTS,
        refill: int = 1,
        pass_tokens: int = PASS_TOKENS,
    ) -> None:
        """`cache_bytes`: most that keys and values of rows take; `prefix_bytes`: those of what prompts have in common;
        `refill`: how many of the slots have to be free before others come in beside those that run; `known`: what
        `stats` says besides the loop's own counters."""
        self._passes: Passes | None = passes
        self._codec, self._device, self._takes_branches = codec, passes.shape.device, passes.takes_branches
        self._store: Store = passes.store(cache_bytes)
        self._prefixes, self._most_tokens = Prefixes(prefix_bytes), self._store.capacity
        self._most_slots, self._most_pass = slots, max(COARSE, pass_tokens)
        self._slots, self._pass = self._most_slots, self._most_pass
        self._jobs: dict[Key, Job] = {}
        self._ended: set[Key] = set()
        """Those of which something has ended since outcomes were made last."""
        self._in_sight: dict[Key, tuple[bytes, ...]] = {}
        """The pieces of the prompts that are counted as seen."""
        self._rules: dict[Any, Rules | None] = {}
        self._known = dict(known)
        self._refill, self._more = refill, False
        self._stats = {"tokens": 0, "padded_tokens": 0, "decode_rows": 0, "decode_slots": 0, "shared_tokens": 0}

    def takes(self, encoded: Encoded) -> bool:
        """Whether it can answer this request; what it cannot goes through `generate()`."""
        if isinstance(encoded.request, Score):
            return self._takes_branches or len(set(encoded.payload.rows())) <= 1
        return isinstance(encoded.request, Generate) and self._rules_of(encoded.payload) is not None

    # ----- what LoopModel asks -----

    def refusal(self, encoded: Encoded) -> str | None:
        tokens = self._needs(encoded, rows=1).tokens
        if tokens <= self._most_tokens:
            return None
        return f"out of memory: {tokens} tokens of keys and values where {self._most_tokens} fit"

    def admit(self, waiting: Sequence[Work], starting: Starting) -> int:
        started = 0
        taken = [job.needs for job in self._jobs.values()]
        rows, tokens = sum(each.rows for each in taken), sum(each.tokens for each in taken)
        enough = not rows or self._slots - rows >= min(self._refill, self._slots // 2)
        with torch.inference_mode(), errors_mapped():
            for item in waiting if enough else ():
                needs = self._needs(item.encoded, rows=self._slots)
                rows, tokens = rows + needs.rows, tokens + needs.tokens
                if (self._jobs and rows > self._slots) or tokens > self._most_tokens:
                    break
                self._jobs[item.key] = self._begun(item, needs)
                started += 1
        for item in waiting[started : started + SIGHT]:
            self._notice(item)
        self._more = started < len(waiting)
        return started

    def advance(self) -> list[tuple[Key, Outcome]]:
        with torch.inference_mode(), errors_mapped():
            return self._advanced()

    @torch.inference_mode()
    def drop(self, keys: Collection[Key]) -> None:
        for key in self._jobs.keys() & set(keys):
            self._leave(self._jobs[key])
        for key in self._in_sight.keys() & set(keys):  # it may come again, and is not two then
            self._prefixes.forget(self._in_sight.pop(key))

    def _advanced(self) -> list[tuple[Key, Outcome]]:
        known: list[tuple[Any, int, Piece]] = []
        texts, branches, pieces = self._texts(), self._branches(), list(self._pieces(known))
        self._store.put(known)
        if not texts and not branches and not pieces:
            return []
        chunks = [*(job.reading() for job in branches), *(piece.reading for piece in pieces)]
        if self._passes is None:
            raise RuntimeError("the model is closed")
        made = self._passes.packed([text.reading() for text in texts], chunks, self._codec.pad)
        self._count(made, len(texts))
        logits = self._passes(made)
        for piece in pieces:
            self._keep(piece)
        return self._finished(self._answered(texts, branches, pieces, logits))

    def running(self) -> list[Work]:
        return [job.item for job in self._jobs.values()]

    def shrink(self) -> bool:
        self._prefixes.clear()
        self._store.trim()
        before = self._slots, self._pass
        self._slots, self._pass = max(1, self._slots // 2), max(COARSE, self._pass // 2)
        return before != (self._slots, self._pass)

    def grow(self) -> None:
        self._slots = min(self._most_slots, self._slots * 2)
        self._pass = min(self._most_pass, self._pass * 2)

    def stats(self) -> dict[str, Any]:
        return {**self._known, **self._stats, "budget": self._pass}

    def close(self) -> None:
        self.drop(list(self._jobs))
        self._store.clear()
        self._prefixes.clear()
        self._passes = None

    # ----- beginning -----

    def _needs(self, encoded: Encoded, *, rows: int) -> Needs:
        """What a request occupies that may have so many rows."""
        if isinstance(encoded.request, Score):
            return Scoring.needs_of(encoded.payload)
        return Writing.needs_of(encoded.payload, rows=rows, tokens=self._most_tokens)

    def _begun(self, item: Work, needs: Needs) -> Job:
        names = self._notice(item)
        if isinstance(item.encoded.request, Score):
            return Scoring(item, needs, names, self._store)
        rules = self._rules_of(item.encoded.payload)
        if rules is None:
            raise ValueError("a generation that only generate() knows")
        return Writing(item, needs, names, rules, self._store, self._codec)

    def _rules_of(self, ask: Ask) -> Rules | None:
        alike = ask.alike()
        if alike not in self._rules:
            if len(self._rules) >= PLANS:
                self._rules.clear()
            self._rules[alike] = self._compiled(ask)
        return self._rules[alike]

    def _compiled(self, ask: Ask) -> Rules | None:
        try:
            made = plan(self._codec.generation, ask)
            config = made.drawn or made.config
            if supported(config) or (config.num_beams or 1) > 1:
                return None
            return Rules(config, self._device, draws=made.drawn is not None)
        except (ValueError, TypeError, ItemError):
            return None  # generate() says better what is wrong with it

    def _notice(self, item: Work) -> tuple[bytes, ...]:
        """The names of its prompt's pieces, counted as seen once."""
        if item.key not in self._in_sight:
            self._in_sight[item.key] = names_of(_prompt(item.encoded))
            self._prefixes.notice(self._in_sight[item.key])
        return self._in_sight[item.key]

    # ----- one pass -----

    def _texts(self) -> list[Text]:
        """Those that are being written, as they lie side by side."""
        jobs = [job for job in self._jobs.values() if isinstance(job, Writing)]
        texts = [text for job in jobs for text in job.texts if not text.ended]
        for text in texts:
            if len(text.ids) > text.place.length:
                text.place.reach(room_for(len(text.ids)))
        return sorted(texts, key=lambda text: text.place.order)

    def _branches(self) -> list[Scoring]:
        return [job for job in self._jobs.values() if isinstance(job, Scoring) and job.prompt.done]

    def _pieces(self, known: list[tuple[Any, int, Piece]]) -> Iterator[_Piece]:
        """Pieces of prompts, first come first served. Who needs one that another reads in this pass waits for it; those
        that were read before are added to what is `known`, with the place they go to."""
        left = self._pass
        being_read: set[bytes] = set()
        for job in self._jobs.values():
            while not job.prompt.done:
                start, end, name = job.prompt.next()
                if name is not None and self._reused(job, start, end, name, known):
                    continue
                if name in being_read:
                    break
                if end - start > left:
                    return
                left -= end - start
                if name is not None and self._prefixes.shared(name):
                    being_read.add(name)
                yield _Piece(job, name, job.prompt.reading(start, end))

    def _reused(self, job: Job, start: int, end: int, name: bytes, known: list[tuple[Any, int, Piece]]) -> bool:
        """Whether the piece was read before, and need not be read again."""
        kept = self._prefixes.get(name)
        if kept is not None:
            known.append((job.prompt.place, start, kept))
            job.prompt.read = end
            self._stats["shared_tokens"] += end - start
        return kept is not None

    def _keep(self, piece: _Piece) -> None:
        """What was read, where others have it too."""
        job, name, reading = piece
        if name is not None and self._prefixes.shared(name):
            keys, values = job.prompt.place.piece(reading.start, reading.length)
            self._prefixes.keep(name, Piece(keys.clone(), values.clone()))

    def _answered(
        self, texts: Sequence[Text], branches: Sequence[Scoring], pieces: Sequence[_Piece], logits: torch.Tensor
    ) -> set[Key]:
        """Hand each its logits [rows, words]; the keys of those for whom they are no numbers."""
        broken = logits.sum(-1).isnan().tolist()
        lost: set[Key] = {text.job.item.key for text, bad in zip(texts, broken, strict=False) if bad}
        ready = [(text, at) for at, text in enumerate(texts)]
        at = len(texts)
        for scoring in branches:
            end = at + scoring.asked_now
            lost |= {scoring.item.key} if any(broken[at:end]) else set()
            scoring.take(logits[at:end])
            at = end
        for job in (job for job, _, reading in pieces if reading.wanted):
            if broken[at]:
                lost.add(job.item.key)
            else:
                job.begin(logits[at])
                ready += [(text, at) for text in (job.more() if isinstance(job, Writing) else [])]
            at += 1
        self._write([(text, row) for text, row in ready if text.job.item.key not in lost], logits)
        self._go_on(lost)
        self._ended |= lost | {key for key, job in self._jobs.items() if isinstance(job, Scoring)}
        return lost

    def _go_on(self, lost: set[Key]) -> None:
        """Where texts have ended and a request wants more of them, others begin."""
        for job in [self._jobs[key] for key in self._ended - lost]:
            while isinstance(job, Writing) and (more := job.more()):
                assert job.first is not None
                self._write([(text, 0) for text in more], job.first[None])

    def _write(self, texts: Sequence[tuple[Text, int]], logits: torch.Tensor) -> None:
        """The next token of each text, from its row of the logits."""
        if not texts:
            return
        rows = [row for _, row in texts]
        scores = logits if rows == list(range(len(logits))) else logits[torch.tensor(rows, device=logits.device)]
        lines = [text.line() for text, _ in texts]
        kept = _held(ruled(scores.float(), lines), [text for text, _ in texts])
        tokens = chosen(kept, lines, [text.lot for text, _ in texts])
        for (text, _), token in zip(texts, tokens, strict=True):
            text.take(token)
            if text.ended:
                self._ended.add(text.job.item.key)

    def _finished(self, lost: set[Key]) -> list[tuple[Key, Outcome]]:
        jobs = [(key, job) for key, job in self._jobs.items() if key in self._ended]
        outcomes = [(key, not_a_number(job.item) if key in lost else job.outcome()) for key, job in jobs]
        done = [(key, outcome) for key, outcome in outcomes if outcome is not None]
        self._ended.clear()  # only now: if one of the outcomes could not be made, all are tried again
        for key, _ in done:
            self._leave(self._jobs[key])
            del self._in_sight[key]
        return done

    def _leave(self, job: Job) -> None:
        for place in job.places():
            place.leave()
        del self._jobs[job.item.key]
        self._ended.discard(job.item.key)

    def _count(self, made: Packed, texts: int) -> None:
        self._stats["tokens"] += made.tokens
        self._stats["padded_tokens"] += made.ids.shape[1]
        self._stats["decode_rows"] += texts
        self._stats["decode_slots"] += max(texts, self._slots) if self._more else texts


def _held(scores: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
    """The scores [texts, words] with only those words left by which a text keeps to its grammar, if it has one."""
    followers = [(at, text.follower) for at, text in enumerate(texts) if text.follower is not None]
    if not followers:
        return scores
    where = torch.tensor([at for at, _ in followers], device=scores.device)
    allowed = torch.from_numpy(numpy.stack([follower.allowed() for _, follower in followers])).to(scores.device)
    return scores.index_put((where,), scores[where].masked_fill(~allowed, -torch.inf))


def _prompt(encoded: Encoded) -> list[int]:
    ids: list[int] = encoded.payload.prompt if isinstance(encoded.request, Score) else encoded.payload.ids
    return ids

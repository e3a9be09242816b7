"""A chunk this worker holds, and what has become of its items so far."""

import math
import time
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Protocol

import orjson

from jobs.errors import ItemError, ItemErrorCode
from jobs.store.values import Claim, ResultRow
from jobs.tasks.base import (
    Answer,
    Answered,
    Asked,
    Classified,
    Classify,
    Compared,
    Embed,
    Embedded,
    Failed,
    Filled,
    FillMask,
    Generate,
    Generated,
    Labelled,
    LabelTokens,
    More,
    Outcome,
    Request,
    Score,
    Scored,
    Similarity,
    Task,
)
from jobs.tracing import trace_id
from worker.engines.base import EngineCodec, Work

FENCE = 0.8
"""Share of the lease after which a worker that could not renew it gives the chunk up by itself."""
MESSAGE_CHARS = 2000
_FIELDS = attrgetter("__dict__")
"""An output as JSON wants it. Its numbers were checked by its task; pydantic's own way takes twice as long."""


Fate = tuple[str, str | None, bytes | None, str | None, str | None, int, int, int, int]
"""A result row's fields from `status` to `windows`: all but what tells equal items apart."""
Question = tuple[str, bytes]
"""A fingerprint, and within what it is unique: a job's id or a tenant."""


class Equals(Protocol):
    """Whoever watches over items that wait for equal ones (`worker.once`)."""

    def concluded(self, held: "Held", index: int, fate: Fate) -> None: ...

    def forget(self, held: "Held") -> None: ...


Key = tuple["Held", int, int]
"""Names one request among all in flight: chunk, index of the item within it, index of the request within the item's."""


def _beside(output: Any) -> str | None:
    """What is stored as JSON beside a vector."""
    return None if output.beside is None else orjson.dumps(output.beside).decode()


def about(claim: Claim) -> dict[str, Any]:
    """What a message of the log says of a chunk beside its text."""
    told = {"job": claim.job_id, "chunk": claim.chunk_id, "attempt": claim.attempt, "model": claim.model}
    return told | trace_id(claim.traceparent)


class Held:
    """One claimed chunk. The reader fills it, then the writer alone answers its items."""

    __slots__ = (
        *("asked", "claim", "claimed_at", "codec", "custom_ids", "fence_at", "gone", "items", "kept", "left"),
        *("overrides", "params", "rows", "rows_since", "seqs", "task", "_parts", "_spent", "_vectors"),
        *("sent", "answered", "in_force", "have", "equals", "leads", "waits"),
    )

    def __init__(self, claim: Claim, fence_at: float) -> None:
        self.claim, self.fence_at = claim, fence_at
        self.claimed_at = datetime.now(UTC)
        self.task: Task[Any, Any, Any]
        self.params: Any
        self.codec: EngineCodec
        self.seqs: list[int] = []
        self.items: list[Any] = []
        self.asked: list[Asked | None] = []
        """None: the item has its row."""
        self.overrides: dict[int, Any] = {}
        """Params of the items that bring their own."""
        self.kept: list[str | None] | None = None
        self.left = claim.seq_hi - claim.seq_lo
        """Items without a row: all of them until the chunk is prepared, so that none counts as done by mistake."""
        self.rows: list[ResultRow] = []
        """Not saved yet."""
        self.rows_since = math.inf
        self.have: Collection[int] = frozenset()
        """Items that had a result before this claim."""
        self.sent = 0
        """Requests the model was given (counted by the device loop)."""
        self.answered = 0
        """Outcomes that came back (counted by the writer)."""
        self.in_force: Mapping[str, Any] | None = None
        """What the job runs with, to be recorded with this chunk."""
        self.gone = False
        """Lost, cancelled, fenced or given back: nothing of it is written any more."""
        self.equals: Equals | None = None
        self.leads: dict[int, Question] = {}
        """Items that equal ones wait for, or may come to."""
        self.waits: list[tuple[int, Question]] = []
        """Items that are not asked, while the chunk is being prepared."""
        self._parts: dict[int, list[Outcome | None]] = {}
        self._spent: dict[int, tuple[int, int]] = {}

    def asks(self, task: Task[Any, Any, Any], params: Any, codec: EngineCodec) -> None:
        """What its items are asked, and how."""
        self.task, self.params, self.codec = task, params, codec
        self._vectors = hasattr(task.output, "vector")

    def answer(self, index: int, part: int, outcome: Outcome) -> Sequence[Work]:
        """Take one outcome; work for a further round, if the task wants one."""
        asked = self.asked[index]
        if asked is None:
            return ()
        requests = asked.requests
        if type(outcome) is not Failed and not _FITS[type(requests[part])](requests[part], outcome):
            outcome = _misfit(requests[part], outcome)
        if len(requests) == 1:
            return self._conclude(index, asked, (outcome,))
        parts = self._parts.setdefault(index, [None] * len(requests))
        parts[part] = outcome
        if None in parts:
            return ()
        return self._conclude(index, asked, [each for each in self._parts.pop(index) if each is not None])

    def take(self, index: int, fate: Fate) -> None:
        """This item's result is that of an equal one."""
        self._row(index, fate)

    def fail(self, index: int, code: ItemErrorCode, message: str, *, tokens_in: int = 0) -> None:
        """This item's result is an error."""
        spent = self._spent.pop(index, (0, 0))
        asked = self.asked[index]
        truncated, windows = (asked.truncated_tokens, max(1, len(asked.weights))) if asked else (0, 1)
        tokens = (tokens_in + spent[0], spent[1])
        self._row(index, ("error", None, None, code.value, clean(message), *tokens, truncated, windows))

    def start_over(self) -> None:
        """Forget what was prepared: no item has a row, none can be asked."""
        self.forsake()
        claim = self.claim
        self.seqs = [seq for seq in range(claim.seq_lo, claim.seq_hi) if seq not in self.have]
        self.left = len(self.seqs)
        self.items, self.asked = [None] * self.left, [Asked([]) for _ in self.seqs]
        self.take_rows()

    def forsake(self) -> None:
        """Nothing is to wait for its items any more."""
        if self.equals is not None:
            self.equals.forget(self)

    def fail_rest(self, code: ItemErrorCode, message: str) -> None:
        """Every item without a row gets this error."""
        for index, asked in enumerate(self.asked):
            if asked is not None:
                self.fail(index, code, message)

    def keys(self) -> list[Key]:
        """Of every request that may still be in the model."""
        return [
            (self, index, part)
            for index, asked in enumerate(self.asked)
            if asked is not None
            for part in range(len(asked.requests))
        ]

    @property
    def done(self) -> bool:
        return self.left == 0

    def params_of(self, index: int) -> Any:
        return self.overrides.get(index, self.params) if self.overrides else self.params

    def take_rows(self) -> list[ResultRow]:
        """The unsaved rows, which are the caller's from here on."""
        rows, self.rows, self.rows_since = self.rows, [], math.inf
        return rows

    def _conclude(self, index: int, asked: Asked, outcomes: Sequence[Outcome]) -> Sequence[Work]:
        for outcome in outcomes:
            if type(outcome) is Failed:
                self.fail(index, outcome.code, outcome.message, tokens_in=_tokens(outcomes)[0])
                return ()
        try:
            output = self.task.postprocess(self.items[index], asked, outcomes, self.params_of(index))
            if isinstance(output, More):
                return self._again(index, asked, outcomes, output)
            if self._vectors:
                text, vector = _beside(output), output.vector
            else:
                text, vector = orjson.dumps(output, default=_FIELDS).decode(), None
        except ItemError as error:
            self.fail(index, error.code, error.message)
            return ()
        except Exception as error:
            self.fail(index, ItemErrorCode.MODEL_ERROR, f"postprocess: {type(error).__name__}: {error}")
            return ()
        tokens = (outcome.input_tokens, outcome.output_tokens)
        if len(outcomes) > 1 or self._spent:
            before, now = self._spent.pop(index, (0, 0)), _tokens(outcomes)
            tokens = (before[0] + now[0], before[1] + now[1])
        self._row(index, ("ok", text, vector, None, None, *tokens, asked.truncated_tokens, len(asked.weights) or 1))
        return ()

    def _row(self, index: int, fate: Fate) -> None:
        seq, item = self.seqs[index], self.items[index]
        custom_id = (item.custom_id if item is not None else None) or str(seq)
        if not self.rows:
            self.rows_since = time.monotonic()
        kept = self.kept[index] if self.kept else None
        self.rows.append(tuple.__new__(ResultRow, (seq, custom_id, *fate, kept)))
        self.asked[index] = None
        self.left -= 1
        if self.leads and self.equals is not None:
            self.equals.concluded(self, index, fate)

    def _again(self, index: int, asked: Asked, outcomes: Sequence[Outcome], more: More) -> Sequence[Work]:
        """A further round: what was spent so far is kept, the new requests are encoded here."""
        spent, now = self._spent.get(index, (0, 0)), _tokens(outcomes)
        self._spent[index] = (spent[0] + now[0], spent[1] + now[1])
        encoded = self.codec.encode(more.requests)
        refused = next((each for each in encoded if isinstance(each, Failed)), None)
        if refused is not None or not encoded:
            code, text = (refused.code, refused.message) if refused else (ItemErrorCode.MODEL_ERROR, "an empty round")
            self.fail(index, code, text)
            return ()
        self.asked[index] = Asked(more.requests, asked.weights, asked.truncated_tokens, more.state)
        seq = self.seqs[index]
        return [
            Work((self, index, part), each, seq) for part, each in enumerate(encoded) if not isinstance(each, Failed)
        ]


def spoilt(rows: Sequence[ResultRow], reason: str) -> list[ResultRow]:
    """The rows as errors in plain words, for a database that refuses them as they are."""
    error = ("error", None, None, ItemErrorCode.CHUNK_ERROR.value, clean(reason), 0, 0, 0, 1, None)
    return [ResultRow(row.seq, str(row.seq), *error) for row in rows]


def clean(message: str) -> str:
    """An error text as a database can keep it: no NUL, no surrogates, not endless."""
    return message[:MESSAGE_CHARS].replace("\0", "\\0").encode("utf-8", "replace").decode()


def _tokens(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    return sum([each.input_tokens for each in outcomes]), sum([each.output_tokens for each in outcomes])


def _misfit(request: Request, outcome: Outcome) -> Failed:
    """Stands for an outcome that is none of this request: a wrong row is worse than none."""
    kind = type(request).__name__
    if type(outcome) not in _KINDS:
        return Failed(ItemErrorCode.MODEL_ERROR, f"the model answered {kind} with {type(outcome).__name__}")
    text = f"the model answered {kind} with {type(outcome).__name__}: too few, too many or not finite numbers"
    return Failed(ItemErrorCode.MODEL_ERROR, text, input_tokens=outcome.input_tokens)


def _finite(numbers: Sequence[float], expected: int) -> bool:
    return len(numbers) == expected and math.isfinite(sum(numbers))


_KINDS = frozenset({Classified, Labelled, Answered, Filled, Embedded, Compared, Scored, Generated})
_FITS: dict[type, Callable[[Any, Any], bool]] = {
    Classify: lambda asked, got: type(got) is Classified and _finite(got.logits, len(got.labels)),
    LabelTokens: lambda asked, got: (
        type(got) is Labelled and _finite(array("f", got.logits), len(got.spans) * len(got.labels))
    ),
    Answer: lambda asked, got: (
        type(got) is Answered
        and _finite(array("f", got.logits), 2 + 2 * len(got.spans))
        and len(got.words) == len(got.spans)
    ),
    FillMask: lambda asked, got: (
        type(got) is Filled and math.isfinite(sum(each.score for mask in got.masks for each in mask))
    ),
    Embed: lambda asked, got: type(got) is Embedded and math.isfinite(sum(array("f", got.vector))),
    Similarity: lambda asked, got: type(got) is Compared and _finite(got.similarities, len(asked.candidates)),
    Score: lambda asked, got: type(got) is Scored and _finite(got.logprobs, len(asked.continuations)),
    Generate: lambda asked, got: type(got) is Generated and len(got.samples) == asked.n,
}

"""Turns a claimed chunk's stored lines into requests for the model: read, preprocess, encode."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.patterns import Pattern
from jobs.store.encoding import custom_id, kept, parse_block
from jobs.store.values import Claim
from jobs.tasks import explain, merge, resolve, task_adapter, validate_params
from jobs.tasks.base import Asked, Failed, Task
from worker.engines.base import Encoded, Work
from worker.held import Held

log = logging.getLogger("textmill.worker")

BLOCKS_KEPT = 16
"""Blocks whose lines stay in memory: a block is cut into several chunks, which are claimed one after the other."""
JOBS_KEPT = 256

AnyTask = Task[Any, Any, Any]


class Lines:
    """The lines of the blocks used last."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, list[bytes] | tuple[str, bytes]] = OrderedDict()

    def missing(self, claims: Iterable[Claim]) -> list[int]:
        """Blocks of these claims that must be read from the store."""
        return sorted({claim.block_id for claim in claims} - self._blocks.keys())

    def add(self, blocks: Mapping[int, tuple[str, bytes]]) -> None:
        """Keep these blocks as they are stored; `trim` afterwards."""
        self._blocks.update(blocks)

    def of(self, claim: Claim) -> list[bytes]:
        """The lines of a claim's items. Raises KeyError when its block is not there, and what reading it raises."""
        block = self._blocks[claim.block_id]
        if isinstance(block, tuple):
            block = self._blocks[claim.block_id] = parse_block(*block)
        self._blocks.move_to_end(claim.block_id)
        return block[claim.seq_lo - claim.block_lo : claim.seq_hi - claim.block_lo]

    def trim(self) -> None:
        """Forget the blocks that were used longest ago."""
        while len(self._blocks) > BLOCKS_KEPT:
            self._blocks.popitem(last=False)


class Plans:
    """What the jobs used last ask: their task and checked params."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, str], tuple[AnyTask, Any]] = OrderedDict()

    def of(self, claim: Claim) -> tuple[AnyTask, Any]:
        """Raises UnknownTask or InvalidParams when this version cannot run the job."""
        key = (claim.job_id, claim.model)
        plan = self._plans.get(key)
        if plan is None:
            task, params = resolve(claim.task, claim.params)
            if claim.model != claim.named:  # its languages are those in the name
                params = {**Pattern(claim.named, [claim.model]).values(claim.model), **_given(params)}
            plan = self._plans[key] = (task, validate_params(task, params))
            if len(self._plans) > JOBS_KEPT:
                self._plans.popitem(last=False)
        return plan


class Unreadable(NamedTuple):
    """Stands for an item that is none of the task's."""

    custom_id: str
    why: str


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


_UNASKED = Asked([])


Sift = Callable[[Sequence[int]], Sequence[int]]
"""Of the items that were made requests, those that must be asked."""


def ask(held: Held, indexes: Sequence[int], sift: Sift | None = None) -> list[Work]:
    """The requests of these items of a chunk that was read. Items that cannot be asked get their error rows here."""
    preprocess, codec, params, asked = held.task.preprocess, held.codec, held.params, held.asked
    for index in indexes:
        item = held.items[index]
        try:
            if type(item) is Unreadable:
                raise ItemError(ItemErrorCode.INVALID_ITEM, item.why)
            own = params if item.params is None else _own_params(held, index, item)
            asked[index] = preprocess(item, own, codec)
        except Exception as error:
            _refuse(held, index, error)
    return encoded(held, indexes if sift is None else sift(indexes))


def read(held: Held, lines: Sequence[bytes], have: Collection[int]) -> None:
    """Fill the chunk with its items, without those that have a result already."""
    claim = held.claim
    if len(lines) != claim.seq_hi - claim.seq_lo:
        raise RuntimeError(f"block {claim.block_id} has {len(lines)} of the items {claim.seq_lo} to {claim.seq_hi}")
    seqs: Sequence[int] = range(claim.seq_lo, claim.seq_hi)
    if have:
        seqs = [seq for seq in seqs if seq not in have]
        lines = [lines[seq - claim.seq_lo] for seq in seqs]
    held.seqs = list(seqs)
    held.items = _items(held.task, held.seqs, lines)
    held.asked = [_UNASKED] * len(held.items)
    held.left = len(held.items)
    if claim.keep:
        held.kept = [kept(line, claim.keep) for line in lines]


def _items(task: AnyTask, seqs: Sequence[int], lines: Sequence[bytes]) -> list[Any]:
    adapter = task_adapter(task)
    try:
        return adapter.validate_json(b"[" + b",".join(lines) + b"]")
    except ValidationError:
        return [_item(task, seq, line) for seq, line in zip(seqs, lines, strict=True)]


def _item(task: AnyTask, seq: int, line: bytes) -> Any:
    try:
        return task.input.model_validate_json(line)
    except ValidationError as error:
        return Unreadable(custom_id(seq, line), "; ".join(explain(error)))


def _own_params(held: Held, index: int, item: Any) -> Any:
    own = held.overrides[index] = merge(held.params, item.params)
    return own


def _refuse(held: Held, index: int, error: Exception) -> None:
    held.asked[index] = Asked([])
    if isinstance(error, ItemError):
        held.fail(index, error.code, error.message)
    elif isinstance(error, InvalidParams):
        held.fail(index, ItemErrorCode.INVALID_ITEM, str(error))
    else:
        log.warning("preprocess of %s failed", held.task.name, exc_info=error)
        held.fail(index, ItemErrorCode.INVALID_ITEM, f"preprocess: {type(error).__name__}: {error}")


def encoded(held: Held, indexes: Sequence[int]) -> list[Work]:
    """The requests of items that were asked, as the model takes them; others are shortened, or fail their items."""
    open_ = [index for index in indexes if held.asked[index] is not None]
    batches = [held.asked[index].requests for index in open_]  # type: ignore[union-attr]
    requests = [request for batch in batches for request in batch]
    taken = held.codec.encode(requests)
    if len(taken) != len(requests):
        raise RuntimeError(f"the codec gave {len(taken)} answers to {len(requests)} requests")
    seqs = held.seqs
    if len(requests) == len(open_) and Failed not in set(map(type, taken)):
        return [Work((held, index, 0), each, seqs[index]) for index, each in zip(open_, taken, strict=True)]  # type: ignore[arg-type]
    works: list[Work] = []
    at = 0
    for index, batch in zip(open_, batches, strict=True):
        works += _works(held, index, taken[at : at + len(batch)])
        at += len(batch)
    return works


def _works(held: Held, index: int, encoded: Sequence[Encoded | Failed]) -> list[Work]:
    refused = next((each for each in encoded if isinstance(each, Failed)), None)
    if refused is not None and refused.code is ItemErrorCode.TOO_LONG:
        try:
            encoded = _shortened(held, index) or encoded
        except ItemError as error:
            # Why the text cannot be cut to fit is only half of it: the refusal has the numbers.
            told = f"{error.message}: {refused.message}" if error.code is refused.code else error.message
            _refuse(held, index, ItemError(error.code, told))
            return []
        except Exception as error:
            _refuse(held, index, error)
            return []
        refused = next((each for each in encoded if isinstance(each, Failed)), None)
    if refused is not None or not encoded:
        code, text = (refused.code, refused.message) if refused else (ItemErrorCode.INVALID_ITEM, "nothing to ask")
        held.fail(index, code, text, tokens_in=refused.input_tokens if refused else 0)
        return []
    seq = held.seqs[index]
    return [Work((held, index, part), each, seq) for part, each in enumerate(encoded) if not isinstance(each, Failed)]


def _shortened(held: Held, index: int) -> Sequence[Encoded | Failed] | None:
    """The item asked in a way that fits; None when the task or the caller wants it refused."""
    params = held.params_of(index)
    if held.task.shorten is None or getattr(params, "long_text", "split") == "error":
        return None
    asked = held.asked[index] = held.task.shorten(held.items[index], params, held.codec)
    return held.codec.encode(asked.requests)

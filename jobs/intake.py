"""Items on their way in: lines -> checked -> blocks and chunks -> the store; streaming, and safe to begin again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple, Protocol

from jobs.blocks import build_block, costs_of
from jobs.checking import Checked, Checker
from jobs.corpus import Line, Source
from jobs.duplicates import Clash, CustomIds
from jobs.errors import EmptyInput, InvalidInput, InvalidItems, InvalidState, Problem
from jobs.incremental import Unseen
from jobs.patterns import Pattern
from jobs.refusals import Refusals, shortened
from jobs.schemas import JobSpec
from jobs.settings import Settings
from jobs.store.values import NewBlock, Pick
from jobs.strata import Strata
from jobs.tasks import AnyTask

__all__ = ["Intake", "Loaded", "OnInvalid", "load"]

BLOCK_ITEMS = 1000
BLOCK_BYTES = 2**20
"""A block is closed at this many lines or bytes; every resumed load must cut alike."""
APPEND_BLOCKS = 32
APPEND_BYTES = 4 * 2**20
"""Blocks of one transaction: enough to make its cost small, little enough to hold."""

NO_ITEMS = Checked([], [], [], [], [], [])
OnInvalid = Literal["reject", "skip"]


class Appendable(Protocol):
    """What the intake asks of `store.jobs`."""

    def loaded(self, job_id: str) -> list[tuple[int, int, bytes]]: ...

    def append(self, job_id: str, blocks: Sequence[NewBlock]) -> object: ...


class Stored(Protocol):
    @property
    def jobs(self) -> Appendable: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of an input."""

    n_items: int
    problems: tuple[Problem, ...] = ()
    """The first 1,000 lines that were skipped."""
    skipped: int = 0
    report: str | None = None
    """A file that lists all skipped lines."""
    never_seen: tuple[str, ...] = ()
    """Fields to keep that no item has."""
    unchanged: int = 0
    """Items left out of an incremental job, which have an ok result."""
    vanished: int = 0
    """Items that an incremental job's input does not have any more."""


class Run(NamedTuple):
    """Consecutive items that become one block."""

    seq_lo: int
    items: Checked


class Intake:
    """Reads one input once. `begin` may be called before the job exists; `load` then stores the items."""

    def __init__(
        self,
        task: AnyTask,
        spec: JobSpec,
        source: Source,
        *,
        settings: Settings,
        on_invalid: OnInvalid = "reject",
        pattern: Pattern | None = None,
        unseen: Unseen | None = None,
    ) -> None:
        """`pattern`: the models that the job's name stands for. `unseen`: only its items are taken. Raises
        InvalidParams where the pattern needs more params."""
        self._source, self._reject = source, on_invalid == "reject"
        self._most_items, self._most_bytes = settings.max_job_items, settings.max_job_bytes
        self._unseen = unseen
        fingerprints = unseen.fingerprints if unseen is not None else None
        self._checker = Checker(task, spec, settings.max_text_chars, pattern, fingerprints)
        self._ids = CustomIds()
        self._strata = Strata(spec.canary) if spec.canary is not None else None
        self._refusals = Refusals(settings.home / "reports")
        self._runs = self._read()
        self._ahead: list[Run] = []

    def begin(self) -> tuple[NewBlock, ...]:
        """Read the first items, so that a wrong input costs no job; all of them in one block, if no more follow and
        none go ahead of the others.

        Raises InvalidInput, InvalidItems, and NothingNew when all of them were seen before.
        """
        self._ahead = list(islice(self._runs, 2))
        if self._refusals.total and self._reject:
            self._refuse()
        if not self._ahead:
            if self._unseen is not None and self._unseen.unchanged:
                raise self._unseen.nothing_new()
            raise self._nothing()
        whole = len(self._ahead) == 1 and self._strata is None
        return (self._block(self._ahead[0]),) if whole else ()

    def survey(self) -> Iterator[Run]:
        """All the items there are, whatever is wrong with the other lines, to be looked at and not stored."""
        return self._runs

    @property
    def refusals(self) -> Refusals:
        """What was wrong with the lines so far."""
        return self._refusals

    def load(self, store: Stored, job_id: str, *, resumed: bool = True) -> Loaded:
        """Store the items in the job; blocks that are there already are left alone. Not `resumed`: the job is new.

        Raises InvalidItems when lines are refused, and InvalidState when the job holds other items.
        """
        if not self._ahead:
            self.begin()
        there = {seq_lo: digest for seq_lo, _, digest in (store.jobs.loaded(job_id) if resumed else ())}
        count = 0
        batch: list[NewBlock] = []
        for run in self._all_runs():
            count = run.seq_lo + len(run.items.lines)
            block = self._block(run)
            if _is_there(block, there):
                continue
            batch.append(block)
            if len(batch) >= APPEND_BLOCKS or sum(len(each.data) for each in batch) >= APPEND_BYTES:
                store.jobs.append(job_id, batch)
                batch = []
        if batch:
            store.jobs.append(job_id, batch)
        if max(there, default=-1) >= count:
            raise InvalidState(f"{job_id} was begun with more items than this input has ({count:,})")
        return self.loaded(job_id, count)

    def loaded(self, job_id: str, count: int) -> Loaded:
        """What became of the input, now that `count` items of it are stored in the job."""
        self._refusals.settle(job_id)
        report = str(self._refusals.report) if self._refusals.report else None
        never = tuple(self._checker.never_seen)
        unchanged, vanished = (0, 0) if self._unseen is None else (self._unseen.unchanged, self._unseen.finish())
        first = tuple(self._refusals.first)
        return Loaded(count, first, self._refusals.total, report, never, unchanged, vanished)

    def picks(self) -> list[Pick]:
        """The items of the job's canary, once all are stored; none, if it has no canary."""
        return self._strata.picks() if self._strata is not None else []

    def close(self) -> None:
        """Free what it holds; it is not used afterwards."""
        self._refusals.close()
        self._ids.close()

    def _all_runs(self) -> Iterator[Run]:
        """The runs read ahead, then the others. Ends in InvalidItems at the first refused line, once all are listed."""
        yield from self._ahead
        for run in self._runs:
            if self._refusals.total and self._reject:
                break
            yield run
        if self._refusals.total and self._reject:
            self._refuse()

    def _refuse(self) -> None:
        """Read on to the end only to list what else is wrong."""
        for _ in self._runs:
            pass
        raise self._refusals.error()

    def _read(self) -> Iterator[Run]:
        seq = size = 0
        for items in self._wanted():
            size += sum(map(len, items.lines))
            if seq + len(items.lines) > self._most_items:
                raise InvalidInput(f"the input has more than {self._most_items:,} items (setting max_job_items)")
            if size > self._most_bytes:
                raise InvalidInput(f"the input has more than {self._most_bytes:,} bytes (setting max_job_bytes)")
            if items.lines:
                if self._strata is not None:
                    self._strata.add(seq, costs_of(items.lines, items.allowances))
                yield Run(seq, items)
            seq += len(items.lines)

    def _wanted(self) -> Iterator[Checked]:
        """The items that are run, a block at a time."""
        if self._unseen is None:
            yield from self._taken()
            return
        left, place = NO_ITEMS, 0
        for items in self._taken():
            left = left.with_(self._unseen.new(place, items))
            place += len(items.lines)
            if len(left.lines) >= BLOCK_ITEMS or sum(map(len, left.lines)) >= BLOCK_BYTES:
                yield left
                left = NO_ITEMS
        yield left

    def _taken(self) -> Iterator[Checked]:
        """All items of the input, as they were read."""
        seq = 0
        for batch in _batches(self._source):
            items = self._accepted(seq, batch)
            yield items
            seq += len(items.lines)

    def _block(self, run: Run) -> NewBlock:
        block = build_block(run.seq_lo, run.items.lines, run.items.allowances, run.items.models)
        return block if self._unseen is None else block._replace(seen=self._unseen.sightings(run.seq_lo, run.items))

    def _accepted(self, seq: int, batch: list[Line]) -> Checked:
        items, problems = self._checker.check(batch)
        clashes = self._ids.take(seq, items.ids, items.numbers)
        if clashes:
            problems += [self._doubled(items, clash) for clash in clashes]
            items = items.without({clash.at for clash in clashes})
        for problem in sorted(problems, key=lambda each: each.line):
            file, line = self._source.locate(problem.line)
            self._refusals.add(Problem(line, problem.code, shortened(problem.message), file))
        return items

    def _doubled(self, items: Checked, clash: Clash) -> Problem:
        """Raises InvalidInput for an item that brings no id: leaving it out would give its name to the next."""
        number = items.numbers[clash.at]
        if items.ids[clash.at] is None:
            raise InvalidInput(
                f"{self._where(number)}: the item has no custom_id and is called {clash.name!r} by its position, "
                f"as {self._where(clash.line)} is; give every item a custom_id, or none"
            )
        by = f"at {self._where(clash.line)}" if clash.line else f"of item {clash.name}, which has none of its own"
        return Problem(number, "duplicate_id", f"custom_id {clash.name!r} is already the id {by}")

    def _where(self, number: int) -> str:
        file, line = self._source.locate(number)
        return f"{file}:{line}" if file else f"line {line}"

    def _nothing(self) -> InvalidInput:
        if not self._refusals.total:
            return EmptyInput("the input is empty: it has no items")
        error: InvalidItems = self._refusals.error()
        return InvalidInput(f"the input has no items that could be run: {error}")


def load(
    store: Stored,
    job_id: str,
    task: AnyTask,
    spec: JobSpec,
    source: Source,
    *,
    settings: Settings,
    on_invalid: OnInvalid = "reject",
) -> Loaded:
    """Store a source's items in a job that is loading; see `Intake`."""
    intake = Intake(task, spec, source, settings=settings, on_invalid=on_invalid)
    try:
        return intake.load(store, job_id)
    finally:
        intake.close()


def _batches(source: Source) -> Iterator[list[Line]]:
    """Lines in batches of a block's size; one batch, one block."""
    batch: list[Line] = []
    size = 0
    for number, line in source:
        batch.append((number, line))
        if isinstance(line, bytes):
            size += len(line)
        if size >= BLOCK_BYTES or len(batch) == BLOCK_ITEMS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _is_there(block: NewBlock, there: dict[int, bytes]) -> bool:
    """Raises InvalidState when the job holds something else in this place."""
    digest = there.get(block.seq_lo)
    if digest is not None and digest != block.sha256:
        raise InvalidState(f"the job was begun with other items: from item {block.seq_lo:,} on they differ")
    return digest is not None

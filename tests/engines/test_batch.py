"""BatchModel: look-ahead, packing, halving, budgets that shrink and recover; over forwards made for each case."""

import gc
import weakref
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from jobs.errors import DeviceLost
from jobs.tasks.base import Classified, Classify, Embed, Embedded, Failed, Outcome
from worker.engines import batch as batch_module
from worker.engines.base import Encoded, OutOfMemory, Work
from worker.engines.batch import PATIENCE, BatchModel


def works(*lengths: int, start: int = 0) -> list[Work]:
    return [Work(start + at, Encoded(Classify(f"text {start + at}"), length)) for at, length in enumerate(lengths)]


def answer(item: Work) -> Outcome:
    return Classified((float(item.key),), ("label",), input_tokens=item.encoded.length)  # type: ignore[arg-type]


class Recorder:
    """A forward that remembers its batches; `trouble` may raise for one."""

    def __init__(self, trouble: Callable[[Sequence[Work]], None] = lambda batch: None) -> None:
        self.batches: list[list[Any]] = []
        self._trouble = trouble

    def __call__(self, batch: Sequence[Work]) -> list[Outcome]:
        self.batches.append([item.key for item in batch])
        self._trouble(batch)
        return [answer(item) for item in batch]


def memory_for(tokens: int) -> Callable[[Sequence[Work]], None]:
    def check(batch: Sequence[Work]) -> None:
        if max(item.encoded.length for item in batch) * len(batch) > tokens:
            raise OutOfMemory("too many")

    return check


def drain(model: BatchModel) -> dict[Any, Outcome]:
    found: dict[Any, Outcome] = {}
    for _ in range(10_000):
        if not model.pending():
            return found
        for key, outcome in model.step():
            assert key not in found
            found[key] = outcome
    raise AssertionError("the model never finishes")


def test_batches_stay_within_the_budget_and_put_like_lengths_together() -> None:
    forward = Recorder()
    model = BatchModel(forward, max_batch_tokens=20)

    model.add(works(2, 10, 2, 9, 2, 2))
    found = drain(model)

    assert found.keys() == set(range(6))
    assert forward.batches == [[1, 3], [0, 2, 4, 5]]


def test_each_batch_is_told_before_it_runs() -> None:
    told: list[list[Any]] = []
    forward = Recorder(lambda batch: told.append([item.key for item in batch]))
    model = BatchModel(forward, max_batch_tokens=20)
    model.before_batch(lambda keys: told.append(["before", *keys]))

    model.add(works(2, 10, 2, 9, 2, 2))
    drain(model)

    assert told == [["before", 1, 3], [1, 3], ["before", 0, 2, 4, 5], [0, 2, 4, 5]]


def test_different_kinds_of_request_never_share_a_batch() -> None:
    forward = Recorder()
    model = BatchModel(forward, max_batch_tokens=100)

    model.add([Work(0, Encoded(Classify("a"), 1)), Work(1, Encoded(Embed("b"), 1)), Work(2, Encoded(Classify("c"), 1))])
    drain(model)

    assert sorted(map(sorted, forward.batches)) == [[0, 2], [1]]


def test_it_wants_work_until_its_look_ahead_is_full() -> None:
    model = BatchModel(Recorder(), max_batch_tokens=10)
    wanted = model.wants()

    model.add(works(wanted - 1))
    almost = model.wants()
    model.add(works(5, start=1))

    assert (wanted > 100, almost, model.wants()) == (True, 1, 0)
    drain(model)
    assert model.wants() == wanted


def test_a_step_ends_after_a_while_and_goes_on_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "STEP_S", 0.0)
    model = BatchModel(Recorder(), max_batch_tokens=4)

    model.add(works(4, 4, 4))

    assert [len(model.step()) for _ in range(4)] == [1, 1, 1, 0]


def test_cancelled_keys_never_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "STEP_S", 0.0)
    model = BatchModel(Recorder(), max_batch_tokens=8)
    model.add(works(4, 4, 4, 4, 4, 4))
    first = dict(model.step())
    model.add(works(4, 4, start=6))

    model.cancel([2, 4, 6, "unknown", *first])

    assert set(drain(model)) == {0, 1, 2, 3, 4, 5, 6, 7} - {2, 4, 6} - set(first)
    assert model.wants() == 8 * batch_module.LOOKAHEAD_BATCHES


def test_out_of_memory_halves_until_it_fits_and_is_remembered() -> None:
    forward = Recorder(memory_for(40))
    model = BatchModel(forward, max_batch_tokens=160)

    model.add(works(*[10] * 16))
    found = drain(model)
    failures = model.stats()["out_of_memory"]
    model.add(works(*[10] * 16, start=16))
    found |= drain(model)

    assert all(isinstance(outcome, Classified) for outcome in found.values())
    assert (len(found), failures) == (32, 2)
    assert model.stats()["out_of_memory"] == failures
    assert model.stats()["budget"] == 40


def test_a_shrunk_budget_grows_back_when_memory_is_there_again() -> None:
    limit = [10]
    model = BatchModel(Recorder(lambda batch: memory_for(limit[0])(batch)), max_batch_tokens=80)
    model.add(works(*[10] * 8))
    drain(model)
    assert model.stats()["budget"] == 10

    limit[0] = 1000
    for at in range(40 * PATIENCE):
        model.add(works(10, start=100 + at))
        drain(model)

    assert model.stats()["budget"] == 80


def test_only_a_true_giant_fails_of_memory_and_its_neighbours_keep_their_budget() -> None:
    def trouble(batch: Sequence[Work]) -> None:
        if any(item.key == 3 for item in batch):
            raise OutOfMemory("the giant")

    model = BatchModel(Recorder(trouble), max_batch_tokens=40)
    model.add(works(10, 10, 10, 10, 10, 10, 10, 10))
    found = drain(model)

    failed = {key for key, outcome in found.items() if isinstance(outcome, Failed)}
    assert failed == {3}
    assert found[3].code == "too_long"  # type: ignore[union-attr]
    assert "out of memory" in found[3].message  # type: ignore[union-attr]
    assert model.stats()["budget"] >= 20


def test_a_lone_item_is_tried_again_before_memory_is_blamed_on_it() -> None:
    attempts: list[int] = []

    def trouble(batch: Sequence[Work]) -> None:
        attempts.append(len(batch))
        if len(attempts) == 1:
            raise OutOfMemory("a neighbour held it")

    model = BatchModel(Recorder(trouble), max_batch_tokens=40)
    model.add(works(10))

    assert drain(model) == {0: answer(works(10)[0])}
    assert attempts == [1, 1]


def test_a_lone_item_that_waits_for_its_second_try_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "STEP_S", 0.0)
    model = BatchModel(Recorder(memory_for(5)), max_batch_tokens=40)
    model.add(works(10))
    assert model.step() == []

    model.cancel([0])

    assert (model.pending(), model.step(), model.wants()) == (0, [], 40 * batch_module.LOOKAHEAD_BATCHES)


@pytest.mark.parametrize("culprits", [{0}, {7}, {3}, {0, 1, 5}, set(range(8))])
def test_a_culprit_fails_alone_and_costs_its_neighbours_nothing(culprits: set[int]) -> None:
    def trouble(batch: Sequence[Work]) -> None:
        if culprits & {item.key for item in batch}:
            raise ValueError("told to")

    model = BatchModel(Recorder(trouble), max_batch_tokens=1000)
    model.add(works(*[5] * 8))
    found = drain(model)

    assert {key for key, outcome in found.items() if isinstance(outcome, Failed)} == culprits
    assert all(found[key].message == "ValueError: told to" for key in culprits)  # type: ignore[union-attr]
    assert all(found[item.key] == answer(item) for item in works(*[5] * 8) if item.key not in culprits)


def test_too_few_outcomes_never_shift_rows() -> None:
    def forward(batch: Sequence[Work]) -> list[Outcome]:
        return [answer(item) for item in batch if item.key != 2]

    model = BatchModel(forward, max_batch_tokens=1000)
    model.add(works(*[5] * 4))
    found = drain(model)

    assert isinstance(found[2], Failed)
    assert [found[key] for key in (0, 1, 3)] == [answer(item) for item in works(5, 5, 5, 5) if item.key != 2]


def test_something_that_is_no_outcome_fails_the_item_it_stands_for() -> None:
    def forward(batch: Sequence[Work]) -> list[Any]:
        return ["nonsense" if item.key == 1 else answer(item) for item in batch]

    model = BatchModel(forward, max_batch_tokens=1000)
    model.add(works(5, 5, 5))
    found = drain(model)

    assert [type(found[key]) for key in range(3)] == [Classified, Failed, Classified]


def test_nan_fails_its_item_only() -> None:
    nan = float("nan")
    outcomes: list[Outcome] = [Classified((1.0, 2.0), ("a", "b")), Classified((nan, 2.0), ("a", "b"), input_tokens=9)]
    model = BatchModel(lambda batch: outcomes, max_batch_tokens=1000)
    model.add(works(5, 5))
    found = drain(model)

    assert found[0] == outcomes[0]
    assert isinstance(found[1], Failed)
    assert (found[1].message, found[1].input_tokens) == ("the model returned NaN", 9)


def test_nan_is_found_in_stored_vectors() -> None:
    vector = Embedded(b"\x00\x00\xc0\x7f" + b"\x00" * 4)
    model = BatchModel(lambda batch: [vector], max_batch_tokens=1000)
    model.add(works(5))

    assert isinstance(drain(model)[0], Failed)


def test_a_lost_device_is_raised() -> None:
    def forward(batch: Sequence[Work]) -> list[Outcome]:
        raise DeviceLost("gone")

    model = BatchModel(forward, max_batch_tokens=1000)
    model.add(works(5))

    with pytest.raises(DeviceLost, match="gone"):
        model.step()


def test_what_a_failed_batch_held_is_freed_before_the_next_one_runs() -> None:
    class Tensor:
        pass

    alive: list[weakref.ref[Tensor]] = []
    left: list[int] = []

    def forward(batch: Sequence[Work]) -> list[Outcome]:
        left.append(sum(reference() is not None for reference in alive))
        held = Tensor()
        alive.append(weakref.ref(held))
        if len(batch) > 1:
            try:
                raise RuntimeError("CUDA out of memory")
            except RuntimeError as error:
                raise OutOfMemory("no room") from error
        return [answer(item) for item in batch]

    gc.disable()
    try:
        model = BatchModel(forward, max_batch_tokens=40)
        model.add(works(10, 10, 10, 10))
        drain(model)
    finally:
        gc.enable()

    assert left == [0] * len(left)


def test_the_counters_add_up() -> None:
    model = BatchModel(Recorder(), max_batch_tokens=20)
    model.add(works(10, 8, 3))
    drain(model)

    stats = model.stats()
    assert (stats["items"], stats["tokens"], stats["padded_tokens"], stats["batches"]) == (3, 21, 23, 2)


def test_closing_frees_the_memory_and_forgets_the_work() -> None:
    freed: list[bool] = []
    model = BatchModel(Recorder(), max_batch_tokens=20, reclaim=lambda: freed.append(True))
    model.add(works(5))

    model.close()

    assert (model.pending(), freed) == (0, [True])


def test_a_budget_that_was_too_large_is_remembered_for_longer_each_time() -> None:
    forward = Recorder(memory_for(4))
    model = BatchModel(forward, max_batch_tokens=8)

    for start in range(0, 1000, 8):
        model.add(works(*[1] * 8, start=start))
        assert len(drain(model)) == 8

    tried = [at for at, batch in enumerate(forward.batches) if len(batch) > 4]
    gaps = [after - before - 1 for before, after in pairwise(tried)]
    assert gaps[:2] == [2 * PATIENCE, 4 * PATIENCE]

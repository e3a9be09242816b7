"""LoopModel: refill, exactly one outcome a key, blame and memory; over loops made for each case, without torch."""

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

import pytest

from jobs.errors import DeviceLost
from jobs.tasks.base import Failed, Generate, Generated, Outcome, Sample
from worker.engines import loop as loop_module
from worker.engines.base import Encoded, Key, OutOfMemory, Work
from worker.engines.loop import PATIENCE, LoopModel, Starting

SLOTS, HUGE = 8, 1000


class Counting:
    """A loop in which an item of length n takes n passes; `trouble` may raise for the rows of a pass."""

    def __init__(self, trouble: Callable[[Sequence[Work]], None] = lambda rows: None) -> None:
        self.slots, self.passes, self.closed = SLOTS, [], False  # type: ignore[var-annotated]
        self._rows: dict[Key, tuple[Work, int]] = {}
        self._trouble = trouble

    def refusal(self, encoded: Encoded) -> str | None:
        return None if encoded.length < HUGE else "far too long"

    def admit(self, waiting: Sequence[Work], starting: Starting) -> int:
        started = waiting[: max(0, self.slots - len(self._rows))]
        self._rows |= {item.key: (item, item.encoded.length) for item in started}
        return len(started)

    def advance(self) -> list[tuple[Key, Outcome]]:
        self.passes.append(list(self._rows))
        self._trouble(self.running())
        self._rows = {key: (item, left - 1) for key, (item, left) in self._rows.items()}
        done = [item for item, left in self._rows.values() if not left]
        self.drop([item.key for item in done])
        return [(item.key, answer(item)) for item in done]

    def running(self) -> list[Work]:
        return [item for item, _ in self._rows.values()]

    def drop(self, keys: Collection[Key]) -> None:
        self._rows = {key: row for key, row in self._rows.items() if key not in keys}

    def shrink(self) -> bool:
        self.slots, before = max(1, self.slots // 2), self.slots
        return self.slots < before

    def grow(self) -> None:
        self.slots *= 2

    def stats(self) -> dict[str, Any]:
        return {"budget": self.slots}

    def close(self) -> None:
        self.closed = True


def works(*lengths: int, start: int = 0) -> list[Work]:
    return [Work(start + at, Encoded(Generate(prompt="text"), length)) for at, length in enumerate(lengths)]


def answer(item: Work) -> Outcome:
    return Generated((Sample(f"text {item.key}", "stop"),), input_tokens=item.encoded.length)


def drain(model: LoopModel) -> dict[Any, Outcome]:
    found: dict[Any, Outcome] = {}
    for _ in range(10_000):
        if not model.pending():
            return found
        for key, outcome in model.step():
            assert key not in found
            found[key] = outcome
    raise AssertionError("the model never finishes")


def failed(found: dict[Any, Outcome]) -> dict[Any, str]:
    return {key: outcome.code for key, outcome in found.items() if isinstance(outcome, Failed)}


def raises_for(keys: Collection[Key], error: Exception, beside: int = 0) -> Callable[[Sequence[Work]], None]:
    def trouble(rows: Sequence[Work]) -> None:
        if len(rows) > beside and any(item.key in keys for item in rows):
            raise error

    return trouble


@pytest.fixture
def one_pass_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "STEP_S", 0.0)


def test_a_row_that_is_done_is_replaced_at_once() -> None:
    loop = Counting()
    model = LoopModel(loop, max_batch_tokens=100)
    chance = [1, 5, 2, 9, 1, 1, 3, 2] * 10

    model.add(works(*chance))
    found = drain(model)

    assert found.keys() == set(range(80))
    while_work_remained = loop.passes[: next(at for at, rows in enumerate(loop.passes) if 79 in rows)]
    assert len(while_work_remained) > 20
    assert {len(rows) for rows in while_work_remained} == {SLOTS}


def test_who_runs_is_told_before_each_pass_that_others_run_in() -> None:
    told: list[set[Key]] = []

    def check(rows: Sequence[Work]) -> None:
        assert {item.key for item in rows} == told[-1]

    loop = Counting(check)
    model = LoopModel(loop, max_batch_tokens=100)
    model.before_batch(lambda keys: told.append(set(keys)))

    model.add(works(*[1, 5, 2, 9, 1, 1, 3, 2] * 4))
    drain(model)

    assert failed(drain(model)) == {}
    assert model.stats()["failed"] == 0
    assert 1 < len(told) < len(loop.passes) + 2
    assert len({frozenset(some) for some in told}) > 4


def test_every_outcome_belongs_to_its_key() -> None:
    model = LoopModel(Counting(), max_batch_tokens=100)

    model.add(works(3, 1, 2))
    found = drain(model)

    assert found == {item.key: answer(item) for item in works(3, 1, 2)}


def test_it_wants_work_until_its_look_ahead_is_full() -> None:
    model = LoopModel(Counting(), max_batch_tokens=10)
    wanted = model.wants()

    model.add(works(wanted - 1))
    almost = model.wants()
    model.add(works(5, start=1))

    assert (wanted > 100, almost, model.wants()) == (True, 1, 0)


def test_a_step_ends_after_a_while_and_goes_on_in_the_next(one_pass_a_step: None) -> None:
    model = LoopModel(Counting(), max_batch_tokens=100)

    model.add(works(3, 1))

    assert [[key for key, _ in model.step()] for _ in range(4)] == [[1], [], [0], []]


def test_cancelled_keys_never_come_back_and_free_their_rows(one_pass_a_step: None) -> None:
    loop = Counting()
    model = LoopModel(loop, max_batch_tokens=100)
    model.add(works(*[3] * 12))
    model.step()

    model.cancel([0, 1, 10, "unknown"])
    model.step()

    assert set(loop.passes[1]) == {2, 3, 4, 5, 6, 7, 8, 9}
    assert drain(model).keys() == set(range(2, 12)) - {10}


def test_memory_that_is_short_costs_rows_and_no_item() -> None:
    loop = Counting(lambda rows: raises_for(range(99), OutOfMemory("full"), beside=2)(rows))
    model = LoopModel(loop, max_batch_tokens=100)

    model.add(works(*[2] * 20))
    found = drain(model)
    failures = model.stats()["out_of_memory"]
    model.add(works(*[2] * 20, start=20))
    found |= drain(model)

    assert (len(found), failed(found), loop.slots) == (40, {}, 2)
    assert failures == model.stats()["out_of_memory"] == 2


def test_a_loop_that_shrank_grows_back_when_memory_is_there_again() -> None:
    short = [True]
    loop = Counting(lambda rows: raises_for(range(99), OutOfMemory("full"), beside=1)(rows) if short[0] else None)
    model = LoopModel(loop, max_batch_tokens=100)
    model.add(works(*[2] * 5))
    drain(model)
    shrunk = loop.slots

    short[0] = False
    model.add(works(*[10] * 1000, start=100))
    drain(model)

    assert (shrunk, loop.slots) == (1, SLOTS)


def test_an_item_that_does_not_fit_alone_is_too_long_and_its_neighbours_get_their_rows_back() -> None:
    loop = Counting(raises_for({3}, OutOfMemory("the giant")))
    model = LoopModel(loop, max_batch_tokens=100)

    model.add(works(*[4] * 30))
    found = drain(model)

    assert (len(found), failed(found)) == (30, {3: "too_long"})
    assert loop.slots == SLOTS


def test_an_item_alone_gets_a_second_chance_after_the_others() -> None:
    tries = [0]

    def trouble(rows: Sequence[Work]) -> None:
        if [item.key for item in rows] == [3] and not tries[0]:
            tries[0] = 1
            raise OutOfMemory("a neighbour on the device")
        raises_for({3}, OutOfMemory("the giant"), beside=1)(rows)

    model = LoopModel(Counting(trouble), max_batch_tokens=100)
    model.add(works(*[4] * 10))

    assert failed(drain(model)) == {}


@pytest.mark.parametrize("culprits", [{0}, {5}, {29}, {2, 3, 17}, set(range(30))])
def test_culprits_fail_alone(culprits: set[int]) -> None:
    model = LoopModel(Counting(raises_for(culprits, ValueError("told to"))), max_batch_tokens=100)

    model.add(works(*[1, 4, 2] * 10))
    found = drain(model)

    assert found.keys() == set(range(30))
    assert failed(found) == dict.fromkeys(culprits, "model_error")
    assert all("told to" in found[key].message for key in culprits)  # type: ignore[union-attr]


def test_an_item_that_cannot_even_start_fails_alone() -> None:
    class Picky(Counting):
        def admit(self, waiting: Sequence[Work], starting: Starting) -> int:
            taken = super().admit(waiting[:1], starting)
            if taken and waiting[0].key in (2, 4):
                self.drop([waiting[0].key])
                raise ValueError("no")
            return taken

    model = LoopModel(Picky(), max_batch_tokens=100)
    model.add(works(1, 1, 1, 1, 1, 1))

    assert failed(drain(model)) == {2: "model_error", 4: "model_error"}


def test_what_can_never_fit_is_refused_alone_and_stops_nobody() -> None:
    loop = Counting()
    model = LoopModel(loop, max_batch_tokens=100)
    model.add(works(3, HUGE, 2, HUGE))

    model.cancel([3])
    found = drain(model)

    assert failed(found) == {1: "too_long"}
    assert found.keys() == {0, 1, 2}
    assert loop.passes == [[0, 2], [0, 2], [0]]


def test_nothing_is_remembered_of_what_was_cancelled(one_pass_a_step: None) -> None:
    model = LoopModel(Counting(raises_for({0}, OutOfMemory("full"))), max_batch_tokens=100)
    model.add(works(2))
    while not model._spared:
        model.step()

    model.cancel([0])

    assert not model._spared


def test_only_a_lost_device_is_raised() -> None:
    model = LoopModel(Counting(raises_for({3}, DeviceLost("gone"))), max_batch_tokens=100)
    model.add(works(*[1] * 5))

    with pytest.raises(DeviceLost):
        drain(model)


def test_cancelling_suspects_leaves_the_others(one_pass_a_step: None) -> None:
    model = LoopModel(Counting(raises_for({1}, ValueError("told to"))), max_batch_tokens=100)
    model.add(works(*[2] * 8))
    model.step()

    model.cancel([0, 1, 2])

    found = drain(model)
    assert (found.keys(), failed(found)) == ({3, 4, 5, 6, 7}, {})


def test_closing_frees_the_loop() -> None:
    loop = Counting()
    model = LoopModel(loop, max_batch_tokens=100)
    model.add(works(5))

    model.close()

    assert (model.pending(), loop.closed, loop.running()) == (0, True, [])


def test_memory_that_was_short_is_remembered_for_longer_each_time() -> None:
    loop = Counting(raises_for(range(10_000), OutOfMemory("full"), beside=SLOTS // 2))
    model = LoopModel(loop, max_batch_tokens=100)

    model.add(works(*[1] * 3200))
    assert not failed(drain(model))

    tried = [at for at, rows in enumerate(loop.passes) if len(rows) > SLOTS // 2]
    assert [after - before - 1 for before, after in pairwise(tried)] == [2 * PATIENCE, 4 * PATIENCE]

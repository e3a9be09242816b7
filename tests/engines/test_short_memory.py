"""Memory that runs out at any allocation, in both loops: nothing is lost, doubled, spoiled or left behind."""

from collections.abc import Callable
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from jobs.tasks.base import Generate, Outcome, Request, Sampling, Score
from tests.engines.conftest import Subject, module_of
from tests.engines.tiny import Tiny
from worker.engines import loop as loop_module
from worker.engines.base import Work
from worker.engines.loop import LoopModel
from worker.engines.torch import passes, strands
from worker.engines.torch.decoder import CausalLoop
from worker.engines.torch.seq2seq_loop import Seq2SeqLoop
from worker.engines.torch.stepped import Stepped

CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "99 bytes. Error code 12 (Cannot allocate memory)"
)
# Taken in turns: they take the same way but for the place where torch's is told from other errors.
SHORT = [MemoryError(), RuntimeError(CPU_ALLOCATOR)]


class Allocations(TorchDispatchMode):
    """Counts what takes memory, and fails at one of them; a forward pass counts as one."""

    def __init__(self, at: int | None, error: Exception | None = None) -> None:
        super().__init__()
        self.seen, self._at, self._error = 0, at, error

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if (not name.endswith("_") or name == "index_put_") and name != "lift_fresh" and not func.is_view:
            self.count()
        return func(*args, **(kwargs or {}))

    def count(self) -> None:
        self.seen += 1
        if self._error is not None and self.seen == self._at:
            raise self._error

    def once(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, as one allocation."""

        def counted(*given: Any, **named: Any) -> Any:
            self.count()
            with _disable_current_modes():
                return forward(*given, **named)

        return counted


class Causal:
    """A loop over a tiny decoder, new for each case."""

    def __init__(self, tiny: Tiny) -> None:
        self.subject = Subject(tiny("qwen2"))
        self.stepped = Stepped(module_of(self.subject.model))
        wishes = Sampling(max_new_tokens=2, min_new_tokens=2, temperature=1.2)
        start = "the quick brown fox jumps over the lazy"  # 22 tokens
        self.requests: list[Request] = [
            Generate(prompt=start + " a", sampling=wishes, n=3, seed=1),
            Generate(prompt=start + " b", sampling=Sampling(max_new_tokens=4, min_new_tokens=4, temperature=0)),
            Score((" rain", " the sun shines"), prompt=start),
        ]

    def model(self) -> LoopModel:
        shape = self.stepped.shape
        # Room for two of them at most, so that shelves are trimmed and samples take turns.
        sizes = {"cache_bytes": 100 * shape.bytes, "prefix_bytes": 2**16, "slots": 3}
        return LoopModel(CausalLoop(self.stepped, self.subject.codec, known={}, **sizes), max_batch_tokens=4096)  # type: ignore[arg-type]

    def patch(self, allocations: Allocations, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Stepped, "__call__", allocations.once(Stepped.__call__))

    def left(self, model: LoopModel) -> Any:
        loop: Any = model._loop
        return loop._store.in_use(), loop._jobs, loop._in_sight


class Seq2Seq:
    """The loop of a tiny encoder-decoder, which is the same for all cases: what one leaves behind, the next finds."""

    def __init__(self, tiny: Tiny) -> None:
        self.subject = Subject(tiny("t5"))
        beams = Sampling(num_beams=2, max_new_tokens=3, min_new_tokens=3)
        drawn = Sampling(num_beams=1, max_new_tokens=2, temperature=1.1)
        self.requests: list[Request] = [
            Generate(source="the fox", sampling=drawn, n=2, seed=1),
            Generate(source="rain in Paris", sampling=beams),
        ]
        first: Any = self.subject.model.first  # type: ignore[attr-defined]
        self._loop: Seq2SeqLoop = first._loop

    def model(self) -> LoopModel:
        return LoopModel(self._loop, max_batch_tokens=4096)

    def patch(self, allocations: Allocations, patch: pytest.MonkeyPatch) -> None:
        wiring = self._loop._wiring
        patch.setattr(wiring, "encode", allocations.once(wiring.encode))
        patch.setattr(wiring, "decode", allocations.once(wiring.decode))

    def left(self, model: LoopModel) -> Any:
        shelves = self._loop._strands._shelves
        held = [*shelves.in_use("source"), *shelves.in_use("written")]
        return held, self._loop._items, self._loop._by_writing


@pytest.fixture(scope="module", params=[Causal, Seq2Seq])
def case(request: pytest.FixtureRequest, tiny: Tiny) -> Any:
    return request.param(tiny)


@pytest.fixture(autouse=True)
def _moving_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "STEP_S", 0)
    monkeypatch.setattr(strands, "STEP", 2)  # so that few tokens are enough to make rows move
    monkeypatch.setattr(passes, "STEP", 4)


@pytest.mark.timeout(600)
def test_memory_that_runs_out_at_any_allocation_costs_time_only(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = case.subject.codec.encode(case.requests)
    works = [Work(at, each, at) for at, each in enumerate(encoded)]
    wanted, taken = run(case, works, Allocations(None), monkeypatch)
    failed_at = 0

    while True:
        failed_at += 1
        allocations = Allocations(failed_at, SHORT[failed_at % len(SHORT)])
        found, stats = run(case, works, allocations, monkeypatch)

        assert found == wanted, f"at allocation {failed_at}"
        if allocations.seen < failed_at:
            break
        assert (stats["out_of_memory"], stats["failed_batches"]) == (1, 0), f"at allocation {failed_at}"

    assert failed_at > 60
    assert taken["items"] == len(works)


def run(
    case: Any, works: list[Work], allocations: Allocations, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[Any, Outcome], dict[str, Any]]:
    model = case.model()
    found: dict[Any, Outcome] = {}
    with monkeypatch.context() as patch:
        case.patch(allocations, patch)
        model.add(works)
        with allocations:
            for _ in range(500):
                for key, outcome in model.step():
                    assert key not in found
                    found[key] = outcome
                if not model.pending():
                    break
    assert not any(case.left(model))
    return found, model.stats()

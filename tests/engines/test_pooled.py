"""Passes over a pool of keys and values, on the CPU: the same answers as over shelves, recorded steps included."""

import random
from typing import Any

import pytest
import torch

from jobs.tasks.base import Generate, Request, Sampling, Score
from tests.engines.conftest import Ask, Subject, module_of
from tests.engines.test_decoder import COMMON, GREEDY, drain
from tests.engines.tiny import LOOPED
from worker.engines.base import Encoded, OutOfMemory, Work
from worker.engines.loop import LoopModel
from worker.engines.torch.decoder import CausalLoop
from worker.engines.torch.passes import room_for
from worker.engines.torch.pool import SCRATCH, Pool, Run
from worker.engines.torch.pooled import Pooled
from worker.engines.torch.shelves import Shape
from worker.engines.torch.stepped import prove
from worker.engines.torch.unfit import Unfit

SHAPE = Shape(2, 3, 4, 4, torch.float32)
CAPPED = ("gemma2", "gpt-oss")
"""Their scores have a cap, or sinks."""


def pooled(subject: Subject) -> Pooled:
    codec: Any = subject.codec
    return Pooled(module_of(subject.model), limit=codec.limit)


def loop_over(passes: Pooled, subject: Subject, **settings: Any) -> LoopModel:
    codec: Any = subject.codec
    given = {"cache_bytes": 2**24, "prefix_bytes": 2**22, "known": {}, **settings}
    return LoopModel(CausalLoop(passes, codec, **given), max_batch_tokens=4096)


def works(subject: Subject, *requests: Request) -> list[Work]:
    encoded = subject.codec.encode(requests)
    return [Work(at, each, at) for at, each in enumerate(encoded) if isinstance(each, Encoded)]


@pytest.mark.parametrize("name", [name for name in LOOPED if name not in CAPPED])
def test_a_pool_gives_what_shelves_give(name: str, ask: Ask) -> None:
    subject = ask(name)
    passes = pooled(subject)
    drawn = Sampling(max_new_tokens=6, temperature=1.3)
    requests: list[Request] = [
        *(Generate(prompt=f"{COMMON[:at]}{at}", sampling=GREEDY) for at in (0, 20, 20, 45)),
        Generate(prompt="rain", sampling=drawn, n=3, seed=4),
        Score((" a", " b"), prompt="rain") if name != "phi3" else Generate(prompt="a", sampling=GREEDY),
    ]

    prove(passes, words=subject.codec.config.get_text_config().vocab_size, limit=subject.codec.limit)  # type: ignore[attr-defined]
    found = drain(loop_over(passes, subject), works(subject, *requests))

    for one, other in zip([found[at] for at in range(len(requests))], subject(*requests), strict=True):
        if hasattr(one, "samples"):
            assert one == other
        else:
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CAPPED)
def test_scores_with_a_cap_or_sinks_are_left_to_shelves(name: str, ask: Ask) -> None:
    subject = ask(name)
    words = subject.codec.config.get_text_config().vocab_size  # type: ignore[attr-defined]

    with pytest.raises(Unfit, match="cap"):
        prove(pooled(subject), words=words, limit=subject.codec.limit)  # type: ignore[attr-defined]


def test_steps_are_recorded_once_for_each_number_of_rows(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = ask("llama")
    passes = pooled(subject)
    made: list[int] = []
    recorded = Pooled._recorded
    monkeypatch.setattr(Pooled, "_recorded", lambda it, pool, rows: made.append(rows) or recorded(it, pool, rows))
    model = loop_over(passes, subject, slots=64)
    prompts = [
        Generate(prompt=f"{at}", sampling=Sampling(max_new_tokens=4 + at % 9, temperature=0)) for at in range(40)
    ]

    found = drain(model, works(subject, *prompts))

    assert sorted(made) == sorted(set(made))
    assert max(made) == 64
    assert [found[at] for at in range(40)] == subject(*prompts)


def test_a_model_that_cannot_be_recorded_goes_on_without(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = ask("llama")

    def refuse(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr("worker.engines.torch.pooled.recorded", refuse)
    request = Generate(prompt="rain", sampling=GREEDY)

    assert drain(loop_over(pooled(subject), subject), works(subject, request))[0] == subject(request)[0]


def test_continuations_of_several_tokens_are_left_to_plain_batches(ask: Ask) -> None:
    subject = ask("llama")
    loop: Any = loop_over(pooled(subject), subject)._loop  # type: ignore[attr-defined]
    short, long = subject.codec.encode([Score(("a", "b"), prompt="rain "), Score(("a long one", "b"), prompt="rain")])

    assert loop.takes(short)
    assert not loop.takes(long)


def test_a_pool_too_small_for_all_is_used_in_turns(ask: Ask) -> None:
    subject = ask("llama")
    passes = pooled(subject)
    requests = [Generate(prompt=COMMON[: 5 * at], sampling=GREEDY) for at in range(12)]

    found = drain(loop_over(passes, subject, cache_bytes=300 * passes.shape.bytes), works(subject, *requests))

    assert [found[at] for at in range(12)] == subject(*requests)


def test_runs_never_overlap_and_nothing_is_lost(chance: random.Random) -> None:
    pool = Pool(SHAPE, 4000 * SHAPE.bytes)
    runs: dict[int, tuple[Run, int]] = {}
    full = 0
    for mark in range(1, 2000):
        doing = chance.choice(["come", "come", "grow", "leave"])
        try:
            if doing == "come":
                run = pool.place()
                run.reach(room_for(tokens := chance.randrange(1, 300)))
                run.put(0, piece(tokens, mark))
                runs[mark] = run, tokens
            elif runs and doing == "grow":
                run, _ = runs[chance.choice(list(runs))]
                run.reach(room_for(run.length + chance.randrange(1, 200)))
            elif runs:
                runs.pop(chance.choice(list(runs)))[0].leave()
        except OutOfMemory:
            full += 1
            runs.pop(chance.choice(list(runs)))[0].leave()
        for number, (run, tokens) in runs.items():
            assert (run.piece(0, tokens).keys == number).all()

    assert full
    for run, _ in runs.values():
        run.leave()
    assert pool._free == [(SCRATCH, SCRATCH + 4000)]


def piece(tokens: int, mark: int) -> Any:
    from worker.engines.torch.prefixes import Piece

    keys = torch.full((SHAPE.layers, tokens, SHAPE.heads, SHAPE.keys), float(mark))
    return Piece(keys, keys)

"""The causal loop: bits that no company changes, common prompts read once, refill, and a proof that catches leaks."""

import gc
import logging
import random
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from jobs.tasks.base import Failed, Generate, Generated, Outcome, Request, Sampling, Score
from tests.engines.conftest import Ask, Subject, module_of
from tests.engines.tiny import LOOPED, UNLOOPED, Tiny
from worker.engines.base import Encoded, OutOfMemory, Work
from worker.engines.batch import BatchModel
from worker.engines.loop import LoopModel
from worker.engines.routes import RoutedModel
from worker.engines.torch import stepping
from worker.engines.torch.decoder import CausalLoop
from worker.engines.torch.stepped import Stepped, prove
from worker.engines.torch.unfit import Unfit

GREEDY = Sampling(max_new_tokens=8, min_new_tokens=8, temperature=0)
COMMON = "the quick brown fox jumps over the lazy dog and reads a text: we like long walks, short talks and good food; "
EXACT = tuple(name for name in LOOPED if name != "gpt-oss")


class Loops:
    """Loops of any setting over one tiny model."""

    def __init__(self, subject: Subject) -> None:
        self.codec: Any = subject.codec
        self.stepped = Stepped(module_of(subject.model))

    def __call__(self, **settings: Any) -> LoopModel:
        given = {"cache_bytes": 2**26, "prefix_bytes": 2**22, **settings}
        return LoopModel(CausalLoop(self.stepped, self.codec, known={}, **given), max_batch_tokens=4096)

    def works(self, requests: Sequence[Request]) -> list[Work]:
        encoded = self.codec.encode(requests)
        assert all(isinstance(each, Encoded) for each in encoded)
        return [Work(at, each, at) for at, each in enumerate(encoded)]


@pytest.fixture
def loops(ask: Ask, request: pytest.FixtureRequest) -> Loops:
    return Loops(ask(getattr(request, "param", "qwen2")))


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(1)


def drain(model: LoopModel, works: Sequence[Work] = ()) -> dict[Any, Outcome]:
    model.add(works)
    found: dict[Any, Outcome] = {}
    while model.pending():
        for key, outcome in model.step():
            assert key not in found
            found[key] = outcome
    return found


def requests_of_all_kinds(limit: int) -> list[Request]:
    """Short and long, drawn and greedy, several samples, likelihoods; many with the same start."""
    chance = random.Random(3)
    words = ["rain", "sun", "fox", "text", "model", "the", "Paris", "walks"]
    found: list[Request] = []
    for at in range(9):
        start = COMMON[: 60 if limit < 100 else 200] if at % 2 else ""
        prompt = start + " ".join(chance.choices(words, k=chance.choice([1, 2, 5, 8])))
        if at % 3 == 0:
            found.append(Score((" rain", " the sun shines", "!", " Paris is the capital"), prompt=prompt))
        else:
            wishes = Sampling(max_new_tokens=6, temperature=1.2) if at % 3 == 1 else GREEDY
            samples = 1 + at % 2 if at % 3 == 1 else 1  # a greedy text has no second one
            found.append(Generate(prompt=prompt, sampling=wishes, n=samples, seed=at))
    return found


# ----- the same answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loops", "threads"), [*((name, 1) for name in EXACT), ("gpt2", 3)], indirect=True)
@pytest.mark.usefixtures("threads")
def test_no_company_changes_a_bit(loops: Loops) -> None:
    works = loops.works(requests_of_all_kinds(loops.codec.limit))
    alone = {item.key: drain(loops(prefix_bytes=0), [item])[item.key] for item in works}

    chance = random.Random(5)
    for slots, budget, prefixes in [(1, 64, 0), (3, 64, 2**22), (5, 96, 2**22), (16, 256, 0), (32, 512, 2**22)]:
        shuffled = chance.sample(works, len(works))
        found = drain(loops(slots=slots, pass_tokens=budget, prefix_bytes=prefixes), shuffled)

        assert found == alone

    assert not any(isinstance(outcome, Failed) for outcome in alone.values())


@pytest.mark.parametrize("name", LOOPED)
def test_these_architectures_run_in_the_loop(name: str, ask: Ask) -> None:
    model: Any = ask(name).model

    assert isinstance(model, RoutedModel)
    if name in EXACT:  # the other's experts share products with whom chance brings, which may go well
        assert model.first.stats()["mode"] == "exact"


@pytest.mark.parametrize("name", UNLOOPED)
def test_an_architecture_that_the_loop_cannot_run_says_why(
    name: str, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "textmill.worker"):
        model = Subject(tiny(name)).model

    assert isinstance(model, BatchModel)
    assert "generates in plain batches: " in caplog.text
    assert model.stats()["mode"] == "close"


def leak_to_all(group: Any, layer: int, rows: torch.Tensor, out: torch.Tensor, call: Any) -> None:
    """As `_together`, but each row also sees a little of its neighbours."""
    TOGETHER(group, layer, rows, out, call)
    span = out[group.first : group.first + group.many]
    span += 0.05 * span.mean(0)


def forget_half(this: Any, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
    WRITE(this, layer, keys * 0.9, values)


TOGETHER, WRITE = stepping._together, stepping._write


@pytest.mark.parametrize(("part", "broken"), [("_together", leak_to_all), ("_write", forget_half)])
def test_attention_that_leaks_or_forgets_is_found_out_at_load(
    part: str, broken: Any, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stepping, part, broken)

    with caplog.at_level(logging.WARNING, "textmill.worker"):
        subject = Subject(tiny("llama"))

    assert isinstance(subject.model, BatchModel)
    assert "its logits differ" in caplog.text
    (outcome,) = subject(Generate(prompt="rain", sampling=GREEDY))
    assert isinstance(outcome, Generated)


def test_attention_that_is_never_called_is_found_out(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = Stepped(module_of(ask("llama").model))
    monkeypatch.setattr(stepped, "_configs", [])

    with pytest.raises(Unfit, match="0 times by 2 layers"):
        prove(stepped, words=100, limit=64)


def test_a_window_that_the_layers_do_not_tell_is_found_out(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = Stepped(module_of(ask("mistral").model))
    monkeypatch.setattr(stepped, "_windows", 1)

    with pytest.raises(Unfit, match="window"):
        prove(stepped, words=100, limit=64)


def test_positions_that_change_with_the_longest_row_are_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of(ask("llama").model)
    monkeypatch.setattr(module.config, "rope_parameters", {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})

    with pytest.raises(Unfit, match="dynamic"):
        Stepped(module)


# ----- what is shared -------------------------------------------------------------------------------------


def test_the_start_that_prompts_have_in_common_is_read_once(loops: Loops) -> None:
    works = loops.works([Generate(prompt=f"{COMMON}{word}", sampling=GREEDY) for word in ("rain", "sun", "fox", "a")])
    shared, apart = loops(), loops(prefix_bytes=0)

    found, wanted = drain(shared, works), drain(apart, works)

    common = 0
    prompts = [item.encoded.payload.ids for item in works]
    while len({prompt[common] for prompt in prompts}) == 1:
        common += 1
    whole = common // 16 * 16
    assert whole >= 32
    assert found == wanted
    assert shared.stats()["shared_tokens"] == 3 * whole
    assert shared.stats()["tokens"] == apart.stats()["tokens"] - 3 * whole
    assert apart.stats()["shared_tokens"] == 0


def test_a_start_is_remembered_after_its_items_are_gone(loops: Loops) -> None:
    first, second, third = loops.works([Score((" a", " b"), prompt=COMMON + word) for word in ("rain", "sun", "fox")])
    model = loops()

    drain(model, [first, second])
    before = model.stats()["shared_tokens"]
    drain(model, [third])

    assert model.stats()["shared_tokens"] == 2 * before > 0


def test_what_is_kept_of_prompts_stays_within_its_bound(loops: Loops) -> None:
    texts = [f"{letter * 90} {COMMON}" for letter in "abcdef"]
    works = loops.works([Score((" a", " b"), prompt=text[:150]) for text in texts for _ in range(2)])
    bound = 40 * loops.stepped.shape.bytes
    model = loops(prefix_bytes=bound, slots=2)

    drain(model, works)

    kept: Any = model._loop._prefixes  # type: ignore[attr-defined]
    assert 0 < kept._bytes <= bound


def test_samples_of_one_prompt_read_it_once(loops: Loops) -> None:
    wishes = Sampling(max_new_tokens=5, min_new_tokens=5, temperature=1.5)
    (item,) = loops.works([Generate(prompt=COMMON, sampling=wishes, n=4, seed=2)])
    model = loops()

    found = drain(model, [item])[0]

    assert isinstance(found, Generated)
    assert len(set(found.samples)) == 4
    assert model.stats()["tokens"] == item.encoded.length + 4 * 4  # the last token of each is never read


def test_likelihoods_read_the_prompt_once_and_no_single_token(loops: Loops) -> None:
    (one, two) = loops.works([Score(("!", "?"), prompt=COMMON), Score((" rain on the sea", "?"), prompt=COMMON)])
    model = loops(prefix_bytes=0)

    drain(model, [one])
    first = model.stats()["tokens"]
    drain(model, [two])

    assert first == len(one.encoded.payload.prompt)
    longest = len(two.encoded.payload.continuations[0])
    assert model.stats()["tokens"] == 2 * first + longest - 1


# ----- rows that come and go ------------------------------------------------------------------------------


def lengths_of(found: dict[Any, Outcome]) -> list[int]:
    return [found[key].output_tokens for key in sorted(found)]


def test_rows_that_are_done_make_room_at_once(loops: Loops) -> None:
    chance = random.Random(1)
    wanted = [chance.choice([1, 2, 5, 9, 30]) for _ in range(60)]
    works = loops.works(
        [
            Generate(prompt=f"fox {at}", sampling=Sampling(max_new_tokens=each, min_new_tokens=each, temperature=0))
            for at, each in enumerate(wanted)
        ]
    )
    model = loops(slots=8)

    found = drain(model, works)

    stats = model.stats()
    assert lengths_of(found) == wanted
    assert stats["decode_rows"] >= 0.85 * stats["decode_slots"]
    assert stats["decode_rows"] == sum(each - 1 for each in wanted)


def test_a_long_prompt_does_not_stall_those_who_write(loops: Loops) -> None:
    long = Generate(prompt=(COMMON * 6)[:850], sampling=Sampling(max_new_tokens=2, temperature=0))
    works = loops.works([Generate(prompt="fox", sampling=GREEDY), long])
    assert works[1].encoded.length > 3 * 64
    model = loops(pass_tokens=64)
    model.add(works[:1])
    loop: Any = model._loop  # type: ignore[attr-defined]
    model._pass()

    model.add(works[1:])
    texts = []
    for _ in range(3):
        model._pass()
        texts.append(len(loop._jobs[0].texts[0].made))

    assert texts == [2, 3, 4]
    assert not loop._jobs[1].prompt.done


def test_a_cancelled_text_never_comes_back_and_leaves_its_neighbours_alone(loops: Loops) -> None:
    works = loops.works([Generate(prompt=f"{COMMON}{at}", sampling=GREEDY, n=1) for at in range(6)])
    expected = drain(loops(), works)
    model = loops(slots=4)
    model.add(works)
    for _ in range(4):
        model._pass()

    model.cancel([1, 5])

    assert drain(model) == {key: outcome for key, outcome in expected.items() if key not in (1, 5)}
    assert not model._loop._in_sight  # type: ignore[attr-defined]


def test_a_row_of_numbers_that_are_none_spoils_no_other(tiny: Tiny) -> None:
    subject = Subject(tiny("llama"))
    loops = Loops(subject)
    good = loops.works([Generate(prompt=f"the fox {word}", sampling=GREEDY) for word in ("a", "text", "sea")])
    expected = drain(loops(), good)
    (bad,) = (item._replace(key="bad") for item in loops.works([Generate(prompt="rain", sampling=GREEDY)]))
    module_of(subject.model).model.embed_tokens.weight[bad.encoded.payload.ids[-1]] = float("nan")
    model = loops(slots=2)

    found = drain(model, [bad, *good])
    again = drain(model, good)

    assert isinstance(found.pop("bad"), Failed)
    assert found == again == expected


def test_memory_that_is_short_costs_time_only(loops: Loops, monkeypatch: pytest.MonkeyPatch) -> None:
    works = loops.works([Generate(prompt=f"{at} {COMMON}", sampling=GREEDY) for at in range(6)])
    expected = drain(loops(), works)
    whole = Stepped.__call__

    def short(self: Stepped, made: Any) -> torch.Tensor:
        if made.tokens > 66:
            raise OutOfMemory("too many")
        return whole(self, made)

    monkeypatch.setattr(Stepped, "__call__", short)
    model = loops()
    found = drain(model, works)

    assert found == expected
    assert model.stats()["out_of_memory"] > 0


def test_a_request_that_can_never_fit_is_too_long_and_the_others_are_answered(loops: Loops) -> None:
    works = loops.works([Generate(prompt=prompt, sampling=GREEDY) for prompt in ("fox", COMMON * 4, "rain")])
    model = loops(cache_bytes=130 * loops.stepped.shape.bytes, prefix_bytes=0)

    found = drain(model, works)

    assert [isinstance(found[at], Failed) for at in range(3)] == [False, True, False]
    assert found[1].code == "too_long"  # type: ignore[union-attr]


def test_keys_and_values_stay_within_their_bound(loops: Loops) -> None:
    works = loops.works([Generate(prompt=f"{at} {COMMON[: 7 * at]}", sampling=GREEDY) for at in range(20)])
    (long,) = loops.works([Generate(prompt="fox", sampling=Sampling(max_new_tokens=200, min_new_tokens=200))])
    model = loops(cache_bytes=400 * loops.stepped.shape.bytes)
    loop: Any = model._loop  # type: ignore[attr-defined]
    model.add([*works, long._replace(key="long")])

    most = 0
    while model.pending():
        model._pass()
        most = max(most, loop._store.bytes() // loops.stepped.shape.bytes)

    assert 200 < most <= 400


def test_more_samples_than_the_memory_holds_are_written_in_turns(loops: Loops) -> None:
    wishes = Sampling(max_new_tokens=6, min_new_tokens=2, temperature=1.5)
    works = loops.works(
        [Generate(prompt=COMMON, sampling=wishes, n=40, seed=2), Generate(prompt="fox", sampling=GREEDY)]
    )
    expected = drain(loops(slots=64), works)
    narrow, few = loops(cache_bytes=6 * 64 * loops.stepped.shape.bytes), loops(slots=3)

    assert drain(narrow, works) == expected == drain(few, works)
    assert [each.stats()["out_of_memory"] for each in (narrow, few)] == [0, 0]
    assert len(expected[0].samples) == 40  # type: ignore[union-attr]


def test_what_can_never_fit_restarts_nobody(loops: Loops) -> None:
    works = loops.works([Generate(prompt=f"fox {at}", sampling=GREEDY) for at in range(12)])
    (giant,) = loops.works([Generate(prompt=COMMON * 4, sampling=GREEDY)])
    alone, beside = (loops(cache_bytes=130 * loops.stepped.shape.bytes, prefix_bytes=0) for _ in range(2))

    found = drain(alone, works)
    with_giant = drain(beside, [*works[:6], giant._replace(key="giant"), *works[6:]])

    assert with_giant.pop("giant").code == "too_long"  # type: ignore[union-attr]
    assert with_giant == found
    assert (beside.stats()["batches"], beside.stats()["out_of_memory"]) == (alone.stats()["batches"], 0)


def test_a_prompt_that_is_tried_again_is_not_two(loops: Loops, monkeypatch: pytest.MonkeyPatch) -> None:
    works = loops.works([Generate(prompt=COMMON, sampling=GREEDY), Generate(prompt="a fox", sampling=GREEDY)])
    model = loops()
    kept: Any = model._loop._prefixes  # type: ignore[attr-defined]
    whole, passes = Stepped.__call__, iter([False, True])

    def short(self: Stepped, made: Any) -> torch.Tensor:
        if next(passes, False):
            raise OutOfMemory("once")
        return whole(self, made)

    monkeypatch.setattr(Stepped, "__call__", short)

    drain(model, works)

    assert model.stats()["out_of_memory"] == 1
    assert set(kept._seen.values()) == {1}
    assert kept._bytes == 0


# ----- two ways behind one door ---------------------------------------------------------------------------


def test_beams_and_texts_are_answered_side_by_side(ask: Ask) -> None:
    subject = ask("qwen2")
    model: Any = subject.model
    wishes = [GREEDY, Sampling(max_new_tokens=6, num_beams=2)]
    requests = [Generate(prompt=f"fox {at}", sampling=wishes[at % 2]) for at in range(8)]
    before = model.first.stats()["items"], model.second.stats()["items"]

    together, alone = subject(*requests), subject.one_by_one(*requests)

    assert together == alone
    assert (model.first.stats()["items"], model.second.stats()["items"]) == (before[0] + 8, before[1] + 8)


def test_the_mode_is_what_was_really_in_force(tiny: Tiny) -> None:
    subject = Subject(tiny("qwen2"))
    subject(Generate(prompt="fox", sampling=GREEDY))
    looped = subject.model.stats()["mode"]

    subject(Generate(prompt="fox", sampling=Sampling(max_new_tokens=4, num_beams=2)))

    assert (looped, subject.model.stats()["mode"]) == ("exact", "close")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_half_precision_runs_in_the_loop_and_promises_less(dtype: str, ask: Ask) -> None:
    subject = ask("llama", dtype=dtype)

    assert isinstance(subject.model, RoutedModel)
    assert subject.model.first.stats()["mode"] == ("exact" if dtype == "float32" else "close")


def test_closing_lets_go_of_the_weights(tiny: Tiny) -> None:
    subject = Subject(tiny("qwen2"))
    subject(Generate(prompt="fox", sampling=GREEDY))
    module = weakref.ref(module_of(subject.model))

    subject.model.close()
    gc.collect()

    assert module() is None
    assert subject.model.pending() == 0


def test_settings_that_only_generate_knows_go_there(tiny: Tiny) -> None:
    subject = Subject(tiny("qwen2", generation={"exponential_decay_length_penalty": [2, 1.5]}))
    model: Any = subject.model

    subject(Generate(prompt="fox", sampling=GREEDY))

    assert (model.first.stats()["items"], model.second.stats()["items"]) == (0, 1)

"""The encoder-decoder loop: the same bits whatever the company, rows that come and go, memory, what it leaves to
`generate()`."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from jobs.tasks.base import Failed, Generate, Generated, Outcome, Sampling
from tests.engines.conftest import Subject, module_of, texts_of
from tests.engines.tiny import SEQ2SEQ, Tiny
from worker.engines import loop as loop_module
from worker.engines.base import Work
from worker.engines.routes import RoutedModel
from worker.engines.torch import strands
from worker.engines.torch.seq2seq_loop import Seq2SeqLoop

GREEDY = Sampling(num_beams=1, max_new_tokens=8)
BEAMS = Sampling(num_beams=3, max_new_tokens=20, no_repeat_ngram_size=2)
DRAWN = Sampling(num_beams=1, max_new_tokens=6, temperature=1.1)


def requests(count: int = 10, seed: int = 0) -> list[Generate]:
    """Of very different lengths and of all kinds: the likeliest tokens, beams, samples."""
    chance = random.Random(seed)
    words = ["rain", "sun", "fox", "text", "model", "the", "Paris"]
    texts = [" ".join(chance.choices(words, k=chance.choice([1, 2, 5, 12, 16]))) for _ in range(count)]
    wishes = [(GREEDY, 1), (BEAMS, 2), (DRAWN, 3)]
    return [
        Generate(source=text, sampling=wishes[at % 3][0], n=wishes[at % 3][1], seed=at) for at, text in enumerate(texts)
    ]


def loop_of(subject: Subject) -> Seq2SeqLoop:
    assert isinstance(subject.model, RoutedModel)
    loop: Any = subject.model.first
    return loop._loop  # type: ignore[no-any-return]


class Recorded:
    """A model whose logits are written down, row by row, while it answers."""

    def __init__(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        self.subject, self._loop = subject, loop_of(subject)
        self.logits: dict[Any, list[torch.Tensor]] = {}
        own = self._loop._strands.step

        def step() -> torch.Tensor:
            logits, first = own(), 0
            for strand in self._loop._strands.strands():
                item, at = self._loop._by_writing[id(strand)]
                rows = logits[first : first + len(strand.tokens)].clone()
                self.logits.setdefault((item.work.key, at), []).append(rows)
                first += len(strand.tokens)
            return logits

        monkeypatch.setattr(self._loop._strands, "step", step)

    def __call__(self, work: Sequence[Work], *, rows: int = 128, at_first: int = 100) -> dict[Any, Outcome]:
        """The outcomes; some of the work comes only when the rest is under way."""
        self.logits, self._loop._most_rows = {}, rows
        self.subject.model.add(work[:at_first])
        found = dict(self.subject.model.step())
        self.subject.model.add(work[at_first:])
        while self.subject.model.pending():
            found.update(self.subject.model.step())
        return found


def works(subject: Subject, asked: Sequence[Generate]) -> list[Work]:
    encoded: Any = subject.codec.encode(asked)
    return [Work(at, each, at) for at, each in enumerate(encoded)]


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_the_same_bits_whatever_order_rows_and_company(name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(tiny(name))
    run = Recorded(subject, monkeypatch)
    work = works(subject, requests())
    assert loop_of(subject).stats()["mode"] == "exact"
    monkeypatch.setattr(loop_module, "STEP_S", 0)
    alone: dict[Any, Outcome] = {}
    logits: dict[Any, list[torch.Tensor]] = {}
    for item in work:
        alone |= run([item])
        logits |= run.logits

    for setting in range(5):
        chance = random.Random(setting)
        order = chance.sample(work, k=chance.randrange(5, len(work) + 1))
        found = run(order, rows=chance.choice([3, 7, 16, 128]), at_first=chance.randrange(1, 6))

        assert found == {item.key: alone[item.key] for item in order}
        for key, steps in run.logits.items():
            assert len(steps) == len(logits[key])
            assert all(torch.equal(one, other) for one, other in zip(steps, logits[key], strict=True))


@pytest.mark.parametrize("where", ["source", "written"])
def test_an_attention_that_leaks_between_items_is_found_out(
    where: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def leaking(query: torch.Tensor, keys: torch.Tensor, *others: Any) -> torch.Tensor:
        found = own(query, keys, *others)
        return found + 0.01 * found.roll(1, 0)

    if where == "source":
        monkeypatch.setattr(strands._SourceDesk, "attend", _all_to_all)
    else:
        own = strands._answers
        monkeypatch.setattr(strands, "_answers", leaking)

    subject = Subject(tiny("marian"))

    assert not isinstance(subject.model, RoutedModel)
    assert "plain batches" in caplog.text
    assert len(set(texts_of(subject(*requests(4))))) > 2


def test_rows_that_are_done_make_room_at_once(tiny: Tiny) -> None:
    subject = Subject(tiny("marian"))
    loop_of(subject)._most_rows = 4
    lengths = [20, 3, 2, 4, 18, 3, 2, 5, 16, 2, 3, 4]
    wishes = [Sampling(num_beams=1, max_new_tokens=length, min_new_tokens=length) for length in lengths]

    found = subject(*(Generate(source="the fox", sampling=each) for each in wishes))

    in_batches_of_four = 20 + 18 + 16
    stats = subject.model.stats()
    assert [each.output_tokens for each in found] == lengths
    assert stats["batches"] < 0.6 * in_batches_of_four
    assert stats["decode_rows"] >= 0.85 * stats["decode_slots"] > 0


def test_what_is_cancelled_leaves_its_rows(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(tiny("t5"))
    work = works(subject, requests())
    wanted = subject(*requests())
    monkeypatch.setattr(loop_module, "STEP_S", 0)
    subject.model.add(work)
    found = dict(subject.model.step())

    subject.model.cancel([1, 2, 3])
    while subject.model.pending():
        found.update(subject.model.step())

    assert found == {at: each for at, each in enumerate(wanted) if at not in (1, 2, 3)}
    assert loop_of(subject)._strands.strands() == []


def test_memory_that_runs_out_while_writing_halves_the_rows(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(tiny("bart"))
    wanted = subject(*requests())
    wiring = loop_of(subject)._wiring
    own = wiring.decode

    def short(ids: torch.Tensor, desk: Any) -> torch.Tensor:
        if len(ids) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return own(ids, desk)

    monkeypatch.setattr(wiring, "decode", short)

    assert subject(*requests()) == wanted
    assert subject.model.stats()["out_of_memory"] > 0


def test_an_item_that_cannot_fit_alone_is_too_long(tiny: Tiny) -> None:
    subject = Subject(tiny("marian"))
    long, short = (Generate(source="fox", sampling=Sampling(num_beams=2, max_new_tokens=most)) for most in (60, 10))
    (wanted,) = subject(short)
    loop_of(subject)._memory = 2 * 2 * 32 * 4 * (16 + 2 * 16)

    first, second, third = subject(short, long, short)

    assert isinstance(second, Failed)
    assert second.code == "too_long"
    assert (first, third) == (wanted, wanted)


def test_only_what_fits_the_memory_is_written_together(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(tiny("marian"))
    loop = loop_of(subject)
    loop._memory = 3 * 2 * 2 * 32 * 4 * (16 + 2 * 16)
    together: list[int] = []
    own = loop.advance
    monkeypatch.setattr(loop, "advance", lambda: together.append(len(loop.running())) or own())

    found = subject(*(Generate(source="fox", sampling=Sampling(num_beams=2, max_new_tokens=9)) for _ in range(9)))

    assert all(isinstance(each, Generated) for each in found)
    assert max(together) == 3


def test_what_the_loop_cannot_do_goes_through_generate(tiny: Tiny) -> None:
    subject = Subject(tiny("marian"))
    plain = Sampling(num_beams=2, max_new_tokens=8)
    drawing = Sampling(num_beams=2, max_new_tokens=8, temperature=1.0)

    found = subject(
        Generate(source="the fox", sampling=plain),
        Generate(source="the fox", sampling=plain, stop=("q",)),
        Generate(source="the fox", sampling=drawing, seed=1),
    )

    assert all(isinstance(each, Generated) for each in found)
    assert isinstance(subject.model, RoutedModel)
    assert (subject.model.first.stats()["items"], subject.model.second.stats()["items"]) == (1, 2)
    assert subject.model.stats()["mode"] == "close"


@pytest.mark.parametrize(
    ("name", "generation", "reason"),
    [("led", {}, "not among those tried"), ("t5", {"encoder_no_repeat_ngram_size": 2}, "encoder_no_repeat_ngram_size")],
)
def test_models_that_the_loop_cannot_run_keep_plain_batches(
    name: str, generation: dict[str, Any], reason: str, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    subject = Subject(tiny(name, generation=generation))

    found = subject(*(Generate(source=text, sampling=GREEDY) for text in ("a", "the fox")))

    assert not isinstance(subject.model, RoutedModel)
    assert reason in caplog.text
    assert all(isinstance(each, Generated) for each in found)


def test_a_closed_model_is_as_it_was(tiny: Tiny) -> None:
    subject = Subject(tiny("t5"))
    module = module_of(subject.model)
    given = {"input_ids": torch.tensor([[5, 9, 1]]), "decoder_input_ids": torch.tensor([[0, 7, 8]])}
    before = module(**given).logits

    subject.model.close()

    assert not any(hasattr(each, "textmill_seat") for each in module.modules())
    assert torch.equal(module(**given).logits, before)


def _all_to_all(desk: Any, seat: Any, query: Any, key: Any, value: Any, scaling: float) -> torch.Tensor:
    rows = (each.transpose(0, 1)[None] for each in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(*rows, scale=scaling)[0].transpose(0, 1)

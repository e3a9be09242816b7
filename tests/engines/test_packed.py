"""Encoders without padding: the same bits whatever the company, proven at load, with padding as the way out."""

import inspect
import logging
import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from jobs.errors import ModelFailed
from jobs.tasks.base import Classified, Classify, Embed, Embedded, Outcome, Request
from tests.engines.conftest import Ask, Subject, module_of, near
from tests.engines.tiny import CLASSIFIERS, Tiny
from worker.engines.base import Encoded, Work
from worker.engines.torch import encoder_net, packed
from worker.engines.torch.answering import pooled
from worker.engines.torch.packed import PackedReader
from worker.engines.torch.padded import PaddedReader

PADDED = {"modernbert-mean": "otherwise", "mpnet": "0 times", "deberta": "head"}
"""Architectures that packing cannot serve, and why."""
PACKED = (*(name for name in CLASSIFIERS if name not in PADDED), "embedder", "sentences", "t5-encoder")
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "Seoul",
    "is",
    "capital",
    "of",
    "Korea",
    "and",
    "rain",
    "walks",
    "who",
    "reads",
]


def texts(n: int, seed: int) -> list[str]:
    """Of one to ten words, some of equal length."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.choice((1, 2, 3, 5, 5, 8, 10)))) for _ in range(n)]


def request(subject: Subject, text: str) -> Request:
    return Classify(text) if Classify in subject.codec.heads else Embed(text, normalize=False)


def numbers(outcome: Outcome) -> torch.Tensor:
    if isinstance(outcome, Embedded):
        return torch.frombuffer(bytearray(outcome.vector), dtype=torch.float32)
    assert isinstance(outcome, Classified), outcome
    return torch.tensor(outcome.logits, dtype=torch.float64)


def in_company(subject: Subject, asked: list[Request], order: list[int], at_once: int) -> list[torch.Tensor]:
    """The answers when the requests come in that order, so many at a time."""
    encoded = subject.codec.encode(asked)
    found: dict[Any, Outcome] = {}
    for start in range(0, len(order), at_once):
        for at in order[start : start + at_once]:
            one = encoded[at]
            assert isinstance(one, Encoded)
            subject.model.add([Work(at, one, at)])
        found.update(subject.model.step())
    while subject.model.pending():
        found.update(subject.model.step())
    return [numbers(found[at]) for at in range(len(asked))]


@pytest.mark.parametrize("name", PACKED)
def test_the_same_bits_whatever_order_budget_and_company(name: str, tiny: Tiny, ask: Ask) -> None:
    subject = ask(name)
    asked = [request(subject, text) for text in texts(24, seed=1)]
    alone = [numbers(outcome) for outcome in subject.one_by_one(*asked)]

    draw = random.Random(7)
    for _ in range(5):
        other = Subject(tiny(name), max_batch_tokens=draw.choice((24, 60, 200, 4096)))
        order = draw.sample(range(len(asked)), len(asked))
        found = in_company(other, asked, order, at_once=draw.choice((1, 3, 11, 24)))
        assert all(torch.equal(one, company) for one, company in zip(alone, found, strict=True))

    assert subject.model.stats()["mode"] == "exact"
    assert len({tuple(each.tolist()) for each in alone}) == len({*texts(24, seed=1)})


@pytest.mark.parametrize("threads", [2, 3])
def test_the_same_bits_with_several_threads(threads: int, tiny: Tiny) -> None:
    """Texts of equal length are those that a stacked attention would hand to whichever thread is free."""
    subject = Subject(tiny("bert"), threads=threads)
    try:
        asked = [Classify(f"{first} {second} rain") for first in WORDS[:6] for second in WORDS[6:12]]
        alone = [numbers(outcome) for outcome in subject.one_by_one(*asked)]

        together = [numbers(outcome) for outcome in subject(*asked)]
    finally:
        torch.set_num_threads(1)

    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("name", PACKED)
def test_nothing_is_padded(name: str, ask: Ask) -> None:
    subject = ask(name)
    before = subject.model.stats()

    subject(*(request(subject, text) for text in texts(24, seed=2)))

    after = subject.model.stats()
    assert after["padded_tokens"] - before["padded_tokens"] == after["tokens"] - before["tokens"] > 24
    assert isinstance(subject.model._net._reader, PackedReader)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PADDED)
def test_other_architectures_are_padded_and_the_log_says_why(
    name: str, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        subject = Subject(tiny(name))

    assert isinstance(subject.model._net._reader, PaddedReader)  # type: ignore[attr-defined]
    assert PADDED[name] in caplog.text
    assert subject.model.stats()["mode"] == "close"


@pytest.mark.parametrize("name", ["convbert", "fnet"])
def test_models_that_read_padding_get_none(name: str, tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        subject = Subject(tiny(name))
    module = module_of(subject.model)
    asked = [Classify(text) for text in texts(16, seed=6)]

    found = subject(*asked)

    assert "reads padding" in caplog.text
    for outcome, encoded in zip(found, subject.codec.encode(asked), strict=True):
        ids, types = (torch.tensor([each]) for each in encoded.payload)  # type: ignore[union-attr]
        with torch.no_grad():
            wanted = module(input_ids=ids, token_type_ids=types).logits[0].tolist()
        assert outcome.logits == near(wanted)  # type: ignore[union-attr]
    assert subject.model.stats()["batches"] < len(asked)


def leaking(row: Any) -> Iterator[tuple[int, int]]:
    """One span: each text sees all others. The texts' own spans stay right where they are taken apart."""
    inside = inspect.stack()[1].function == "attend"
    return iter([(0, row.starts[-1])] if inside else pairwise(row.starts))


def test_an_attention_that_leaks_between_texts_is_found_out(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teeth: without attention of each text's own, the way is not taken."""
    monkeypatch.setattr(packed._Row, "spans", leaking)

    subject = Subject(tiny("bert"))

    assert isinstance(subject.model._net._reader, PaddedReader)  # type: ignore[attr-defined]


def test_a_leak_that_came_after_the_check_would_fail_these_tests(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(tiny("bert"))
    monkeypatch.setattr(packed._Row, "spans", leaking)
    asked = [Classify(text) for text in texts(6, seed=3)]

    together, alone = subject(*asked), subject.one_by_one(*asked)

    assert any(one.logits != near(other.logits) for one, other in zip(together, alone, strict=True))  # type: ignore[union-attr]


def refused(*args: Any, **given: Any) -> PackedReader:
    raise ModelFailed("not today")


def test_padded_and_packed_answers_agree(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = Subject(tiny("bert"))
    monkeypatch.setattr(encoder_net, "PackedReader", refused)
    plain = Subject(tiny("bert"))
    asked = [Classify(text) for text in texts(20, seed=4)]

    for one, other in zip(fast(*asked), plain(*asked), strict=True):
        assert one.logits == near(other.logits)  # type: ignore[union-attr]

    assert isinstance(plain.model._net._reader, PaddedReader)  # type: ignore[attr-defined]


def test_a_pass_takes_no_more_tokens_than_allowed(tiny: Tiny) -> None:
    narrow = Subject(tiny("bert"), max_batch_tokens=64)

    narrow(*map(Classify, texts(30, seed=5)))

    stats = narrow.model.stats()
    assert stats["budget"] == 64
    assert stats["padded_tokens"] / stats["batches"] <= 64


def test_the_fastest_pass_is_chosen_not_the_largest(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {512: 0.01, 1024: 0.012, 2048: 0.03, 4096: 0.09}
    monkeypatch.setattr(encoder_net.EncoderNet, "_timed", lambda net, tokens: seconds[tokens])

    subject = Subject(tiny("bert"), max_batch_tokens=10_000)

    assert subject.model.stats()["budget"] == 1024


@pytest.mark.parametrize(
    ("mode", "wanted"), [("mean", [2.0, 4.0]), ("max", [3.0, 6.0]), ("cls", [1.0, 6.0]), ("last", [3.0, 2.0])]
)
def test_vectors_are_pooled_as_asked(mode: Any, wanted: list[float]) -> None:
    tokens = torch.tensor([[1.0, 6.0], [2.0, 4.0], [3.0, 2.0]])

    assert pooled([tokens], mode)[0].tolist() == wanted

"""One suite for the engine port, run on every engine: what the shift may rely on."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from jobs.errors import DeviceLost
from jobs.models import ModelSpec
from jobs.tasks.base import Classified, Classify, Codec, Failed, Generate, Outcome, Request, Sampling
from tests.engines.conftest import Subject, module_of, near
from tests.engines.tiny import Tiny
from worker.engines.base import Encoded, Work

CULPRIT = "Seoul Seoul Seoul"


class Fake:
    """The fake engine, with marks as its troubles."""

    spec = ModelSpec(
        name="fake",
        path="fake",
        kind="any",
        tasks=(),
        engine="fake",
        head="classify",
        generation={"markers": True, "memory_tokens": 64},
    )

    def ask(self, text: str) -> Request:
        return Classify(text)

    @contextmanager
    def short_of_memory(self, subject: Subject) -> Iterator[None]:
        yield

    def culprit(self, trouble: str) -> Request:
        return Classify({"raises": "[[raise]]", "memory": "[[oom]]", "lost": "[[lost]]", "nan": "[[nan]]"}[trouble])

    @contextmanager
    def broken(self, subject: Subject, trouble: str) -> Iterator[None]:
        yield


class Torch:
    """A tiny model on the CPU, whose device is made to fail by a hook before its forward pass."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def ask(self, text: str) -> Request:
        if self.spec.head == "classify":
            return Classify(text)
        wishes = {"sampling": Sampling(max_new_tokens=4, temperature=0)}
        return Generate(source=text, **wishes) if self.spec.kind == "seq2seq" else Generate(prompt=text, **wishes)

    def culprit(self, trouble: str) -> Request:
        return self.ask(CULPRIT)

    @contextmanager
    def short_of_memory(self, subject: Subject) -> Iterator[None]:
        def check(ids: torch.Tensor) -> None:
            if ids.numel() > 64:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

        with self._before(subject, check):
            yield

    @contextmanager
    def broken(self, subject: Subject, trouble: str) -> Iterator[None]:
        (wanted,) = subject.codec.encode([self.ask(CULPRIT)])
        assert isinstance(wanted, Encoded)
        given = torch.tensor(wanted.payload.ids)

        def check(ids: torch.Tensor) -> None:
            windows = ids.unfold(1, len(given), 1) if ids.shape[1] >= len(given) else ids[:, :0, None]
            if bool((windows == given).all(-1).any()):
                raise {
                    "raises": ValueError("told to"),
                    "memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
                    "lost": RuntimeError("CUDA error: device-side assert triggered\nCompile with ..."),
                }[trouble]

        with self._before(subject, check):
            yield

    @contextmanager
    def _before(self, subject: Subject, check: Any) -> Iterator[None]:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            check(kwargs["input_ids"])

        model = module_of(subject.model)
        reader = model.get_encoder() if self.spec.kind == "seq2seq" else model
        handle = reader.register_forward_pre_hook(hook, with_kwargs=True)
        yield
        handle.remove()


class CTranslate2(Torch):
    """The same, with the library's call made to fail before it begins."""

    @contextmanager
    def _before(self, subject: Subject, check: Any) -> Iterator[None]:
        net: Any = subject.model
        real = net._net._model

        class Spoilt:
            def __getattr__(self, name: str) -> Any:
                def call(rows: list[list[str]], *args: Any, **wishes: Any) -> Any:
                    check(_side_by_side([[int(token) for token in row] for row in rows]))
                    return getattr(real, name)(rows, *args, **wishes)

                return call

        net._net._model = Spoilt()
        yield
        net._net._model = real


class OpenVino(Torch):
    @contextmanager
    def _before(self, subject: Subject, check: Any) -> Iterator[None]:
        net: Any = subject.model
        reader = net._net._reader
        real = reader._pass

        class Spoilt:
            def infer(self, given: Any, **wishes: Any) -> Any:
                check(torch.tensor(given[0]))
                return real.infer(given, **wishes)

        reader._pass = Spoilt()
        yield
        reader._pass = real


class Remote(Fake):
    """The fake engine in a process and an environment of its own."""

    def __init__(self, python: str) -> None:
        remote = {"python": python, "engine": "fake"}
        self.spec = ModelSpec.model_validate({**Fake.spec.model_dump(), "engine": "remote", "remote": remote})


def _side_by_side(rows: list[list[int]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=-1)


ENGINES = ["fake", "bert", "gpt2", "t5", "ctranslate2-gpt2", "ctranslate2-t5", "openvino-bert", "remote-fake"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tiny: Tiny) -> Any:
    name, _, model = request.param.rpartition("-")
    if name == "remote":
        return Remote(request.getfixturevalue("other_python"))
    if model == "fake":
        return Fake()
    kinds: dict[str, type[Torch]] = {"ctranslate2": CTranslate2, "openvino": OpenVino}
    return kinds.get(name, Torch)(tiny(model, engine=name or "torch"))


@pytest.fixture
def subject(engine: Any) -> Iterator[Subject]:
    subject = Subject(engine.spec)
    yield subject
    subject.model.close()


def texts(count: int, seed: int = 1) -> list[str]:
    """Of very different lengths."""
    chance = random.Random(seed)
    words = ["rain", "sun", "fox", "text", "model", "the", "Paris"]
    return [" ".join(chance.choices(words, k=chance.choice([1, 2, 3, 5, 9]))) for _ in range(count)]


def works(subject: Subject, requests: Sequence[Request], start: int = 0) -> list[Work]:
    encoded = subject.codec.encode(requests)
    assert all(isinstance(each, Encoded) for each in encoded)
    return [Work(start + at, each, start + at) for at, each in enumerate(encoded) if isinstance(each, Encoded)]


def drain(subject: Subject) -> dict[Any, Outcome]:
    found: dict[Any, Outcome] = {}
    for _ in range(1000):
        if not subject.model.pending():
            return found
        for key, outcome in subject.model.step():
            assert key not in found, "a key came back twice"
            found[key] = outcome
    raise AssertionError("the model never finishes")


def failed(found: dict[Any, Outcome]) -> set[Any]:
    return {key for key, outcome in found.items() if isinstance(outcome, Failed)}


def test_every_key_comes_back_exactly_once(engine: Any, subject: Subject) -> None:
    requests = [engine.ask(text) for text in texts(30)]

    subject.model.add(works(subject, requests[:20]))
    found = dict(subject.model.step())
    subject.model.add(works(subject, requests[20:], start=20))
    assert subject.model.pending() == 30 - len(found)
    found |= drain(subject)

    assert found.keys() == set(range(30))
    assert failed(found) == set()
    assert subject.model.step() == []


def test_what_runs_is_told_before_it_comes_back(engine: Any, subject: Subject) -> None:
    told = set[Any]()
    subject.model.before_batch(told.update)

    subject.model.add(works(subject, [engine.ask(text) for text in texts(20)]))
    before = set(told)
    while subject.model.pending():
        assert {key for key, _ in subject.model.step()} <= told

    assert before == set()
    assert told == set(range(20))


def test_keys_may_be_anything_that_can_be_hashed(engine: Any, subject: Subject) -> None:
    (encoded,) = subject.codec.encode([engine.ask("rain")])
    assert isinstance(encoded, Encoded)
    keys = [("job", 1), "text", object()]

    subject.model.add([Work(key, encoded) for key in keys])

    assert drain(subject).keys() == set(keys)


def test_answers_belong_to_their_requests_whatever_the_company(engine: Any, subject: Subject) -> None:
    requests = [engine.ask(text) for text in texts(24)]

    together = subject(*requests)
    alone = subject.one_by_one(*requests)

    assert len({repr(outcome) for outcome in together}) > 5
    for one, other in zip(together, alone, strict=True):
        if isinstance(one, Classified):
            assert isinstance(other, Classified)
            assert one.logits == near(other.logits)
        else:
            assert one == other


def test_tokens_are_counted(engine: Any, subject: Subject) -> None:
    requests = [engine.ask(text) for text in texts(5)]

    outcomes = subject(*requests)

    encoded = subject.codec.encode(requests)
    assert [outcome.input_tokens for outcome in outcomes] == [
        each.length for each in encoded if isinstance(each, Encoded)
    ]


def test_cancelled_requests_do_not_come_back(engine: Any, subject: Subject) -> None:
    subject.model.add(works(subject, [engine.ask(text) for text in texts(10)]))

    subject.model.cancel([1, 4, "unknown"])
    subject.model.cancel([4])

    assert subject.model.pending() == 8
    assert drain(subject).keys() == set(range(10)) - {1, 4}


def test_it_wants_less_when_it_has_more(engine: Any, subject: Subject) -> None:
    empty = subject.model.wants()
    subject.model.add(works(subject, [engine.ask(text) for text in texts(10)]))

    assert 0 <= subject.model.wants() < empty
    drain(subject)
    assert subject.model.wants() == empty


def test_out_of_memory_halves_until_it_fits(engine: Any, subject: Subject) -> None:
    subject.model.add(works(subject, [engine.ask(text) for text in texts(40)]))

    with engine.short_of_memory(subject):
        found = drain(subject)

    assert (len(found), failed(found)) == (40, set())
    assert subject.model.stats()["out_of_memory"] > 0


@pytest.mark.parametrize(("trouble", "code"), [("raises", "model_error"), ("memory", "too_long")])
@pytest.mark.parametrize("place", [0, 5, 11])
def test_a_culprit_fails_alone(engine: Any, subject: Subject, trouble: str, code: str, place: int) -> None:
    requests = [engine.ask(text) for text in texts(11)]
    requests.insert(place, engine.culprit(trouble))
    subject.model.add(works(subject, requests))

    with engine.broken(subject, trouble):
        found = drain(subject)

    assert found.keys() == set(range(12))
    assert failed(found) == {place}
    assert found[place].code == code  # type: ignore[union-attr]


def test_a_lost_device_is_the_only_thing_that_step_raises(engine: Any, subject: Subject) -> None:
    subject.model.add(works(subject, [*(engine.ask(text) for text in texts(5)), engine.culprit("lost")]))

    with engine.broken(subject, "lost"), pytest.raises(DeviceLost):
        drain(subject)


def test_counters_tell_what_was_done(engine: Any, subject: Subject) -> None:
    subject(*(engine.ask(text) for text in texts(20)))

    stats = subject.model.stats()
    assert stats["items"] == 20
    assert stats["tokens"] <= stats["padded_tokens"]
    assert min(stats[name] for name in ("steps", "batches", "tokens")) > 0
    assert {"out_of_memory", "memory_bytes"} <= stats.keys()


def test_a_closed_model_holds_nothing(engine: Any) -> None:
    subject = Subject(engine.spec)
    subject.model.add(works(subject, [engine.ask("rain")]))

    subject.model.close()

    assert subject.model.pending() == 0


def test_the_codec_answers_in_order_and_refuses_alone(engine: Any, subject: Subject) -> None:
    codec: Codec = subject.codec
    long = engine.ask("rain " * 2000)

    answers = subject.codec.encode([engine.ask("rain"), long, engine.ask("sun")])

    assert [type(each) for each in answers] == [Encoded, Failed, Encoded]
    assert isinstance(answers[1], Failed)
    assert answers[1].code == "too_long"
    assert answers[1].input_tokens >= 2000
    assert codec.room(long) < 0 < codec.room(engine.ask(""))


def test_spans_cover_the_words_in_order(engine: Any, subject: Subject) -> None:
    text = "the quick brown fox"

    spans = subject.codec.spans(text)

    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    covered = {at for start, end in spans for at in range(start, end)}
    assert {at for at, char in enumerate(text) if not char.isspace()} <= covered


def test_room_is_what_still_fits(engine: Any, subject: Subject) -> None:
    room = subject.codec.room(engine.ask(""))
    text = "fox " * room

    while len(subject.codec.spans(text)) > room:
        text = text[: text.rindex("fox")]

    assert isinstance(subject.codec.encode([engine.ask(text)])[0], Encoded)
    assert subject.codec.room(engine.ask(text)) in range(8)

"""The fake engine: a pure function of the request, and marks that make it misbehave only when the spec says so."""

import signal
import subprocess
import sys
import time
from array import array
from typing import Any

import pytest

from jobs.errors import DeviceLost, ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import (
    Classified,
    Classify,
    Compared,
    Embed,
    Embedded,
    Failed,
    Generate,
    Generated,
    Message,
    Request,
    Sampling,
    Score,
    Scored,
    Similarity,
)
from tests.engines.conftest import Subject
from worker.engines.fake import LABELS, WIDTH, answer

REQUESTS: list[Request] = [
    Classify("a fine day"),
    Classify("a fine day", "and a fine night"),
    Embed("a fine day", dimensions=4),
    Similarity("a fine day", ("day", "night", "a fine day")),
    Generate(prompt="one two three", n=2, seed=7, sampling=Sampling(temperature=0.5)),
    Generate(messages=(Message("system", "be brief"), Message("user", "hello there"))),
    Generate(source="translate this", source_language="en", target_language="de"),
    Score((" yes", " no indeed"), prompt="is it?"),
]
DEADLY = """
from jobs.models import ModelSpec
from jobs.tasks.base import Classify
from worker.engines import engine
from worker.engines.base import Room, Work

spec = ModelSpec.model_validate_json({spec!r})
codec = engine("fake").codec(spec)
model = engine("fake").load(spec, codec, Room("cpu", 0, 1, 4096))
model.add([Work(0, codec.encode([Classify({text!r})])[0])])
model.step()
"""
MARKS = ["raise", "oom", "nan", "wrong", "few"]


def fake(**generation: Any) -> ModelSpec:
    return ModelSpec(
        name="fake", path="fake", kind="any", tasks=(), engine="fake", head="generate", generation=generation
    )


def test_every_request_is_answered_by_the_pure_function_in_its_kind() -> None:
    kinds = [Classified, Classified, Embedded, Compared, Generated, Generated, Generated, Scored]

    outcomes = Subject(fake())(*REQUESTS)

    assert outcomes == [answer(request) for request in REQUESTS]
    assert [type(outcome) for outcome in outcomes] == kinds


def test_answers_differ_between_texts_languages_seeds_and_samples() -> None:
    texts = [f"text number {at}" for at in range(50)]

    logits = {answer(Classify(text)).logits for text in texts}  # type: ignore[union-attr]
    translations = {answer(Generate(source="a b c d", target_language=code)).samples for code in ("de", "fr", "ko")}  # type: ignore[union-attr]
    undrawn = answer(Generate(prompt="a b c d e f", n=8))
    drawn = answer(Generate(prompt="a b c d e f", n=8, seed=1, sampling=Sampling(temperature=1.0)))

    assert len(logits) > 40
    assert len(translations) > 1
    assert len(set(undrawn.samples)) > 1  # type: ignore[union-attr]
    assert len(set(drawn.samples)) > 1  # type: ignore[union-attr]
    assert drawn != answer(Generate(prompt="a b c d e f", n=8, seed=2, sampling=Sampling(temperature=1.0)))


def test_generation_obeys_lengths_and_stop_strings() -> None:
    long = answer(Generate(prompt="one two", sampling=Sampling(max_new_tokens=3, min_new_tokens=3)))
    cut = answer(Generate(prompt="same same", sampling=Sampling(min_new_tokens=4), stop=("same",)))

    assert isinstance(long, Generated)
    assert (len(long.samples[0].text.split()), long.output_tokens) == (3, 3)
    assert isinstance(cut, Generated)
    assert (cut.samples[0].text, cut.samples[0].finish_reason) == ("", "stop")


def test_embeddings_are_unit_vectors_of_the_width_asked_for() -> None:
    whole, short = answer(Embed("text")), answer(Embed("text", dimensions=4))
    too_wide = answer(Embed("text", dimensions=WIDTH + 1))

    assert isinstance(whole, Embedded)
    assert isinstance(short, Embedded)
    assert (len(whole.vector), len(short.vector)) == (4 * WIDTH, 16)
    assert sum(number * number for number in array("f", short.vector)) == pytest.approx(1, abs=1e-6)
    assert isinstance(too_wide, Failed)


def test_a_text_is_most_similar_to_itself() -> None:
    compared = answer(Similarity("the same", ("the same", "another")))

    assert isinstance(compared, Compared)
    assert compared.similarities[0] == pytest.approx(1, abs=1e-6)
    assert compared.similarities[1] < 0.99


def test_tokens_are_words_with_their_characters() -> None:
    codec = Subject(fake()).codec

    spans = codec.spans("  one two\n three")

    assert ["  one two\n three"[lo:hi] for lo, hi in spans] == ["one", "two", "three"]
    assert codec.room(Classify("one two")) == 510
    assert codec.room(Classify("w " * 600)) == -88


def test_a_text_over_the_limit_is_refused_with_both_numbers() -> None:
    subject = Subject(fake().model_copy(update={"max_input_tokens": 5}))

    fits, refused = subject(Classify("w " * 5), Classify("w " * 6))

    assert isinstance(fits, Classified)
    assert isinstance(refused, Failed)
    assert (refused.code, refused.input_tokens, "at most 5" in refused.message) == ("too_long", 6, True)


@pytest.mark.parametrize(("given", "own"), [("ko", "ko"), ("ko-KR", "ko"), ("DE", "de"), ("xx", None)])
def test_languages_are_found_by_iso_code(given: str, own: str | None) -> None:
    assert Subject(fake()).codec.language(given) == own


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_spoils_its_own_item_only(mark: str) -> None:
    texts = ["one", "two", f"three [[{mark}]]", "four"]

    outcomes = Subject(fake(markers=True))(*map(Classify, texts))

    assert [type(outcome) for outcome in outcomes] == [Classified, Classified, Failed, Classified]
    assert outcomes[3] == answer(Classify("four"))


@pytest.mark.parametrize(
    "request_", [Embed, lambda text: Similarity(text, ("a", "b")), lambda text: Score(("a",), text)]
)
def test_nan_is_noticed_in_every_kind_of_answer(request_: Any) -> None:
    good, bad = Subject(fake(markers=True))(request_("fine"), request_("bad [[nan]]"))

    assert not isinstance(good, Failed)
    assert isinstance(bad, Failed)


@pytest.mark.parametrize("mark", [*MARKS, "kill", "segfault", "exit", "lost", "hang"])
def test_marks_in_user_data_are_only_data(mark: str) -> None:
    request = Classify(f"[[{mark}]]")

    assert Subject(fake())(request) == [answer(request)]


def test_a_crowded_mark_fits_only_alone() -> None:
    requests = [Classify("one"), Classify("two [[crowded]]"), Classify("three")]

    assert all(isinstance(outcome, Classified) for outcome in Subject(fake(markers=True))(*requests))


def test_a_lost_mark_loses_the_device() -> None:
    with pytest.raises(DeviceLost):
        Subject(fake(markers=True))(Classify("[[lost]]"))


@pytest.mark.parametrize(("mark", "code"), [("kill", -signal.SIGKILL), ("segfault", -signal.SIGSEGV), ("exit 3", 3)])
def test_deadly_marks_end_the_process(mark: str, code: int) -> None:
    script = DEADLY.format(spec=fake(markers=True).model_dump_json(), text=f"[[{mark}]]")

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False)

    assert ended.returncode == code


def test_time_passes_by_batch_and_by_token() -> None:
    quick, slow = Subject(fake()), Subject(fake(delay_s=0.05, delay_token_s=0.02))

    started = time.monotonic()
    slow(Classify("one two three"))
    took = time.monotonic() - started

    assert took >= 0.11
    assert quick(Classify("one two three")) == slow(Classify("one two three"))


def test_memory_can_be_short() -> None:
    subject = Subject(fake(memory_tokens=8))

    outcomes = subject(*(Classify("one two") for _ in range(20)), Classify("w " * 9))

    assert [type(outcome) for outcome in outcomes] == [Classified] * 20 + [Failed]
    assert subject.model.stats()["out_of_memory"] > 0


def test_loading_can_fail() -> None:
    with pytest.raises(ModelFailed, match="no such weights"):
        Subject(fake(load_error="no such weights"))


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelFailed, match=r"colour.*known options:.*markers"):
        Subject(fake(colour="blue"))


def test_lone_surrogates_and_nul_do_not_upset_it() -> None:
    assert isinstance(Subject(fake())(Classify("a\ud800b\0c"))[0], Classified)


def test_labels_are_the_same_for_every_text() -> None:
    assert {answer(Classify(text)).labels for text in ("a", "b")} == {LABELS}  # type: ignore[union-attr]

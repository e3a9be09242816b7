"""What a comparison of engines says: how far answers are apart, and which engine is recommended."""

from array import array
from typing import Any

import pytest

from jobs.models import ModelSpec
from jobs.tasks.base import Classified, Embedded, Failed, Generate, Generated, Sample
from worker.bench.__main__ import _best
from worker.bench.agreement import compared
from worker.bench.order import Order, encoded
from worker.engines import engine
from worker.engines.fake import LIMIT

FAKE = ModelSpec(name="fake", path="fake", kind="any", tasks=(), engine="fake", head="classify")


def classified(*logits: float, multi_label: bool = False) -> Classified:
    return Classified(logits, tuple(map(str, logits)), multi_label)


def embedded(*numbers: float) -> Embedded:
    return Embedded(array("f", numbers).tobytes())


def generated(text: str) -> Generated:
    return Generated((Sample(text, "stop"),))


def test_equal_answers_agree_in_full() -> None:
    answers: list[Any] = [classified(1.0, 2.0), classified(3.0, 0.0)]

    assert compared(answers, answers).equal == 1
    assert compared(answers, answers).closeness == "scores within 0"


def test_another_top_label_counts_and_the_difference_is_that_of_scores() -> None:
    agreement = compared([classified(0.0, 2.0), classified(0.0, 9.0)], [classified(2.0, 0.0), classified(0.0, 9.0)])

    assert agreement.equal == 0.5
    assert agreement.closeness == "scores within 0.76"


def test_vectors_agree_when_their_texts_have_the_same_neighbours() -> None:
    three = [embedded(1, 0), embedded(0.9, 0.1), embedded(0, 1)]
    turned = [embedded(1, 0), embedded(0.1, 0.9), embedded(0, 1)]

    assert compared(three, [embedded(2, 0), *three[1:]]).equal == 1
    assert compared(three, turned).equal == pytest.approx(2 / 3)


def test_a_single_label_is_compared_by_its_own_score() -> None:
    agreement = compared([classified(-3.0), classified(2.0)], [classified(3.0), classified(2.0)])

    assert agreement.equal == 0.5
    assert agreement.closeness == "scores within 0.91"


def test_vectors_of_too_few_texts_are_compared_by_themselves() -> None:
    one, other = [embedded(1, 0), embedded(0, 1)], [embedded(1, 0), embedded(1, 1)]

    assert compared(one, one).equal == 1
    assert compared(one, other).equal == 0.5
    assert compared(one[:1], [embedded(0, 1)]).equal == 0
    assert compared(one, other).closeness == "cosine 0.70711 or more; too few texts to compare neighbours"


def test_texts_agree_when_they_are_equal() -> None:
    agreement = compared([generated("a b c d"), generated("e")], [generated("a b x d"), generated("e")])

    assert agreement.equal == 0.5
    assert agreement.closeness == "87.5% of the words"


def test_an_answer_of_another_kind_never_agrees() -> None:
    failed = Failed("model_error", "no")  # type: ignore[arg-type]

    assert compared([generated("a"), generated("b")], [generated("a"), failed]).equal == 0.5


def test_of_engines_as_fast_but_for_noise_the_nearest_is_best() -> None:
    rows = [
        {"engine": "slow", "items_per_s": 50.0, "agreement": 1.0},
        {"engine": "near", "items_per_s": 97.0, "agreement": 1.0},
        {"engine": "fast", "items_per_s": 100.0, "agreement": 0.99},
    ]

    assert _best(rows)["engine"] == "near"


def test_texts_are_cut_to_what_the_model_takes() -> None:
    codec = engine("fake").codec(FAKE)
    order = Order(spec=FAKE, texts=("a short one", "word " * 3 * LIMIT))

    short, long = encoded(order, codec)

    assert (short.length, long.length) == (3, LIMIT)


def test_the_sample_is_there_where_no_texts_are_given() -> None:
    codec = engine("fake").codec(FAKE)

    assert len(encoded(Order(spec=FAKE), codec)) >= 16


def test_a_generating_model_is_asked_for_few_tokens_and_the_likeliest() -> None:
    class Codec:
        kind, heads, has_chat_template = "causal", frozenset({Generate}), False

        def encode(self, requests: Any) -> Any:
            return engine("fake").codec(FAKE).encode(requests)

    (asked,) = encoded(Order(spec=FAKE, texts=("text",), new_tokens=7), Codec())  # type: ignore[arg-type]

    assert isinstance(asked.request, Generate)
    assert (asked.request.prompt, asked.request.sampling.max_new_tokens) == ("text", 7)
    assert asked.request.sampling.temperature == 0

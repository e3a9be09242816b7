"""The feed keeps order, counts and chunks apart."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.tasks.base import Classify
from worker.engines.base import Encoded, Work
from worker.feed import Feed, lot


def _lot(held: Any, lengths: list[int]) -> Any:
    works = [Work((held, at, 0), Encoded(Classify("x"), length)) for at, length in enumerate(lengths)]
    return lot(held, works)


@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=8), max_size=8),
    st.lists(st.integers(1, 120), min_size=1),
)
def test_every_request_comes_out_once_in_order_whatever_is_wanted(lots: list[list[int]], wants: list[int]) -> None:
    feed = Feed(lambda: None)
    feed.put("m", [_lot(number, lengths) for number, lengths in enumerate(lots)])
    out = []

    while feed.models():
        for want in wants:
            taken = feed.take("m", want)
            out += [work.key for each in taken for work in each.works]
            assert all(each.tokens == sum(work.encoded.length for work in each.works) for each in taken)

    assert out == [(number, at, 0) for number, lengths in enumerate(lots) for at in range(len(lengths))]
    assert (feed.items, feed.tokens) == (0, 0)


def test_further_rounds_come_first_and_models_are_kept_apart() -> None:
    feed = Feed(lambda: None)
    feed.put("a", [_lot("one", [3])])
    feed.put("b", [_lot("two", [3])])

    feed.put("a", [_lot("again", [3])], first=True)

    assert [each.held for each in feed.take("a", 100)] == ["again", "one"]
    assert feed.models() == ["b"]


def test_a_dropped_chunk_leaves_nothing_behind() -> None:
    feed = Feed(lambda: None)
    doomed: Any = SimpleNamespace()
    feed.put("a", [_lot(doomed, [3, 4]), _lot("kept", [5]), _lot(doomed, [6])])

    feed.drop(doomed)

    assert (feed.items, feed.tokens) == (1, 5)
    assert [each.held for each in feed.take("a", 100)] == ["kept"]

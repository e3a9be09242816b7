"""packing: every length in exactly one batch, none over its budget unless it is alone."""

from hypothesis import given
from hypothesis import strategies as st

from worker.packing import pack

LENGTHS = st.lists(st.integers(0, 600), max_size=60)


@given(lengths=LENGTHS, budget=st.integers(1, 1000), most=st.none() | st.integers(1, 8))
def test_every_item_is_in_one_batch_that_fits(lengths: list[int], budget: int, most: int | None) -> None:
    batches = pack(lengths, budget, max_items=most)

    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [max(1, lengths[index]) for index in batch]
        assert len(batch) == 1 or max(sizes) * len(sizes) <= budget
        assert len(batch) <= (most or len(lengths))


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_no_batch_could_have_taken_the_next_item(lengths: list[int], budget: int) -> None:
    batches = pack(lengths, budget)

    for batch in batches[:-1]:
        assert max(1, lengths[batch[0]]) * (len(batch) + 1) > budget


def test_the_longest_go_first_and_equals_keep_their_order() -> None:
    assert pack([3, 9, 3, 9, 1], 18) == [[1, 3], [0, 2, 4]]

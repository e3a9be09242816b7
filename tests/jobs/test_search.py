"""Exact search: what a slow search by hand finds, whatever the vectors look like."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy
import pytest

from jobs.errors import InvalidInput
from jobs.search import Index, open_index
from jobs.store import Store
from jobs.store.values import ResultRow
from tests.rows import queued_job


def rows(vectors: Sequence[Sequence[float]]) -> Iterator[ResultRow]:
    for seq, vector in enumerate(vectors):
        data = numpy.asarray(vector, "<f4").tobytes()
        yield ResultRow(seq, f"n{seq}", "ok", None, data, None, None, 1, 0, 0, 1, None)


@pytest.mark.parametrize(("count", "top"), [(5, 3), (64, 10), (5000, 10), (20_001, 1), (20_001, 200)])
def test_the_nearest_are_those_of_a_search_by_hand(count: int, top: int) -> None:
    draw = numpy.random.default_rng(count)
    vectors = draw.standard_normal((count, 12)) * draw.uniform(0.1, 9, (count, 1))
    query = draw.standard_normal(12)
    cosines = vectors @ query / numpy.linalg.norm(vectors, axis=1) / numpy.linalg.norm(query)

    found = Index(rows(vectors.tolist()), count).nearest(query.tolist(), top)

    assert [hit.seq for hit in found] == numpy.argsort(-cosines, kind="stable")[:top].tolist()
    assert [hit.score for hit in found] == pytest.approx(sorted(cosines, reverse=True)[:top], abs=1e-5)
    assert found[0].custom_id == f"n{found[0].seq}"


def test_of_equal_ones_the_earlier_come_first_and_there_are_no_more_than_there_are() -> None:
    index = Index(rows([[1, 0], [0, 1], [2, 0], [1, 0]]), 4)

    assert [hit.seq for hit in index.nearest([3, 0], 9)] == [0, 2, 3, 1]


def test_a_vector_of_nothing_but_zeros_is_near_to_nothing() -> None:
    index = Index(rows([[0, 0], [1, 1]]), 2)

    assert [hit.score for hit in index.nearest([1, 1], 2)] == pytest.approx([1, 0])
    assert [hit.score for hit in index.nearest([0, 0], 2)] == [0, 0]


def test_items_without_a_vector_are_left_out() -> None:
    failed = ResultRow(1, "b", "error", None, None, "empty_text", "it is empty", 0, 0, 0, 1, None)
    index = Index([*rows([[1, 0]]), failed, *(row._replace(seq=2, custom_id="c") for row in rows([[0, 1]]))], 3)

    assert (len(index), index.nearest([0, 1], 1)[0].custom_id) == (2, "c")
    assert [hit.custom_id for hit in index.like("c", 5)] == ["n0"]
    with pytest.raises(InvalidInput, match="no result of the job is named 'b'"):
        index.like("b", 1)


@pytest.mark.parametrize("length", [1e-310, 1e-30, 1e30, 1e308])
def test_a_query_of_any_length_points_the_same_way(length: float) -> None:
    index = Index(rows([[1, 0], [1, 1]]), 2)

    assert [hit.score for hit in index.nearest([length, length], 2)] == pytest.approx([1, 0.5**0.5], abs=1e-5)


def test_an_index_says_what_it_will_take_before_it_takes_it() -> None:
    told: list[int] = []

    index = Index(rows([[1, 0]] * 5), 5, told.append)

    assert told == [index.size_bytes]
    assert told[0] >= 5 * 2 * 4


def test_a_query_of_another_width_and_a_job_without_vectors_are_refused() -> None:
    with pytest.raises(InvalidInput, match="the query has 3 numbers, the job's vectors 2"):
        Index(rows([[1, 0]]), 1).nearest([1, 2, 3], 1)
    with pytest.raises(InvalidInput, match="no vectors yet"):
        Index(iter(()), 5)


def test_only_results_of_embed_are_searched(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'one.db'}")
    store.upgrade()
    job = queued_job(store)

    with pytest.raises(InvalidInput, match=r"is a job of classify; what is searched is the results of embed"):
        open_index(store, job.id)

    store.close()


def test_lines_of_a_few_items_are_found_in_their_blocks(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'one.db'}")
    store.upgrade()
    job = queued_job(store, 20)
    lines = dict(store.jobs.lines(job.id))

    assert store.jobs.lines_of(job.id, [7, 0, 19, 99]) == {at: lines[at] for at in (0, 7, 19)}

    store.close()

"""Duplicates of custom_id: exact in memory and beyond it."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import duplicates
from jobs.corpus import ItemSource
from jobs.duplicates import Clash, CustomIds
from jobs.errors import InvalidInput
from jobs.intake import load
from jobs.schemas import JobSpec
from jobs.settings import Settings
from jobs.tasks import find


@pytest.fixture
def ids() -> Iterator[CustomIds]:
    taken = CustomIds()
    yield taken
    taken.close()


@pytest.fixture(params=[10**6, 2], ids=["in memory", "on disk"])
def spilling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "RECENT_IDS", request.param)


@pytest.mark.usefixtures("spilling")
def test_a_repeated_id_names_the_first_line_that_had_it(ids: CustomIds) -> None:
    assert ids.take(0, ["a", "b", "a"], [1, 2, 3]) == [Clash(2, "a", 1)]
    assert ids.take(2, ["c", "d", "e"], [4, 5, 6]) == []
    assert ids.take(5, ["f", "b", "c"], [7, 8, 9]) == [Clash(1, "b", 2), Clash(2, "c", 4)]


@pytest.mark.usefixtures("spilling")
def test_the_default_id_of_an_item_counts(ids: CustomIds) -> None:
    assert ids.take(0, [None, None, None], [1, 2, 3]) == []
    assert ids.take(3, ["1", "01", "7", "5"], [4, 5, 6, 7]) == [Clash(0, "1", 0)]
    assert ids.take(6, [None, None], [8, 9]) == [Clash(1, "7", 6)]


@pytest.mark.usefixtures("spilling")
def test_ids_differ_by_case_and_form(ids: CustomIds) -> None:
    assert ids.take(0, ["a", "A", "\u00e9", "e\u0301", "a ", "\U0001f600"], range(6)) == []


NAMES = st.none() | st.sampled_from(["a", "b", "ü", "0", "1", "2", "3", "5", "00", "-1", "²"])


@settings(max_examples=100, deadline=None)
@given(batches=st.lists(st.lists(NAMES, min_size=1, max_size=6), max_size=6), most=st.sampled_from([1, 3, 10**6]))
def test_it_finds_what_a_plain_set_finds(batches: list[list[str | None]], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "RECENT_IDS", most)
        patch.setattr(duplicates, "SIEVE_BITS", 16)  # so few that new names seem known, and must be looked up
        taken = CustomIds()
        known: set[str] = set()
        seq = 0
        for batch in batches:
            expected = []
            start = seq
            for at, given_id in enumerate(batch):
                name = given_id or str(seq)
                if name in known:
                    expected.append((at, name))
                else:
                    known.add(name)
                    seq += 1
            assert [(clash.at, clash.name) for clash in taken.take(start, batch, range(1, len(batch) + 1))] == expected
        taken.close()


def test_a_default_that_is_taken_stops_the_input(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Left out, it would give its name to the next item without an id, and that to the next."""
    source = ItemSource([{"text": "a", "custom_id": "1"}, "b"], "text")
    spec = JobSpec(task="classify", model="fake")
    chosen = Settings(home=tmp_path_factory.mktemp("home"))

    with pytest.raises(
        InvalidInput, match="line 2: the item has no custom_id and is called '1' by its position, as line 1"
    ):
        load(None, "job", find("classify"), spec, source, settings=chosen, on_invalid="skip")  # type: ignore[arg-type]

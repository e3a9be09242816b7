"""Shelves of keys and values, and the pieces of prompts: nothing is lost when rows move, leave and share."""

import random
from itertools import pairwise

import pytest
import torch

from worker.engines.torch.passes import room_for
from worker.engines.torch.prefixes import Piece, Prefixes, names_of, spans
from worker.engines.torch.shelves import Kind, Place, Shape, Shelf, Shelves

SHAPE = Shape(layers=2, heads=2, keys=4, values=3, dtype=torch.float32)


def piece_of(value: float, tokens: int) -> Piece:
    return Piece(torch.full((2, 2, tokens, 4), value), torch.full((2, 2, tokens, 3), -value))


def holds(place: Place, value: float, tokens: int) -> bool:
    keys, values = place.piece(0, tokens)
    return bool((keys == value).all() and (values == -value).all())


def placed(shelves: Shelves, tokens: int, owner: object = None) -> Place:
    place = Place(shelves, owner)
    place.reach(room_for(tokens))
    return place


def test_shelves_are_never_much_longer_than_their_rows() -> None:
    lengths = [room_for(tokens).length for tokens in range(1, 10_000)]

    assert all(low <= high for low, high in pairwise(lengths))
    assert all(tokens <= length <= max(tokens + 63, 1.34 * tokens) for tokens, length in enumerate(lengths, 1))
    assert len(set(lengths)) < 40


@pytest.mark.parametrize("most_tokens", [0, 2000, 10**6])
def test_rows_keep_what_they_read_while_others_come_move_and_leave(most_tokens: int) -> None:
    chance = random.Random(1)
    shelves = Shelves(SHAPE, most_tokens * SHAPE.bytes)
    rows: dict[int, tuple[Place, int]] = {}

    for at in range(300):
        if rows and chance.random() < 0.4:
            place, _ = rows.pop(chance.choice(list(rows)))
            place.leave()
        elif rows and chance.random() < 0.5:
            key = chance.choice(list(rows))
            place, tokens = rows[key]
            longer = tokens + chance.randrange(60)
            place.reach(room_for(longer))
            assert holds(place, key, tokens)
            place.put(0, piece_of(key, longer))
            rows[key] = place, longer
        else:
            place = placed(shelves, tokens := chance.randrange(1, 150))
            place.put(0, piece_of(at, tokens))
            rows[at] = place, tokens

        assert all(holds(place, key, tokens) for key, (place, tokens) in rows.items())
        assert all(shelf.places[each.slot] is each for shelf in shelves.in_use() for each in shelf.places)


def test_shelves_take_no_more_than_they_may_and_a_mask_moves_along() -> None:
    chance = random.Random(2)
    most = 40 * 256 * SHAPE.bytes
    shelves = Shelves(SHAPE, most)
    rows: list[tuple[Place, int]] = []

    for at in range(400):
        if len(rows) == 20:
            rows.pop(chance.randrange(20))[0].leave()
        rows.append((Place(shelves), queries := chance.choice([0, 1, 3])))
        rows[-1][0].reach(Kind(queries, 64))
        rows[-1][0].shelf.mask[rows[-1][0].slot, :, at % 64] = 0
        place, queries = chance.choice(rows)
        before = place.shelf.mask[place.slot].isfinite().sum(1).tolist()
        place.reach(Kind(queries, chance.choice([64, 128, 192, 256])))

        assert before == [1] * queries == place.shelf.mask[place.slot].isfinite().sum(1).tolist()
        assert shelves.bytes() <= most


def test_a_row_that_moves_leaves_no_room_behind_that_nobody_may_take() -> None:
    shelves = Shelves(SHAPE, 256 * SHAPE.bytes)
    place = Place(shelves)

    for tokens in (10, 100, 150, 250):
        place.reach(room_for(tokens))

        assert shelves.bytes() <= 256 * SHAPE.bytes


def test_a_copy_is_a_row_of_its_own() -> None:
    shelves = Shelves(SHAPE, 10**6)
    first, second = placed(shelves, 10), placed(shelves, 100)
    first.put(0, piece_of(7, 10))

    second.copy(first, 10)
    first.put(0, piece_of(1, 10))

    assert holds(second, 7, 10)


def test_a_place_leaves_nothing_to_the_next() -> None:
    shelves = Shelves(SHAPE, 10**6)
    place = placed(shelves, 10)
    place.put(0, piece_of(float("nan"), 10))

    place.leave()
    place.leave()

    assert holds(placed(shelves, 10), 0, 64)


def test_a_shelf_that_memory_was_too_short_for_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shelves = Shelves(SHAPE, 10**6)
    place = placed(shelves, 10)
    place.put(0, piece_of(7, 10))

    monkeypatch.setattr(Shelf, "resize", raises)
    with pytest.raises(MemoryError):
        place.reach(room_for(100))
    monkeypatch.undo()

    assert holds(place, 7, 10)
    assert shelves.in_use() == [place.shelf]
    assert place.reach(room_for(100))
    assert holds(place, 7, 10)
    place.leave()
    assert shelves.in_use() == []


def raises(*given: object) -> None:
    raise MemoryError


def test_memory_of_empty_shelves_is_given_back() -> None:
    shelves = Shelves(SHAPE, 10**6)
    placed(shelves, 1000).leave()
    kept = placed(shelves, 10)
    before = shelves.bytes()

    shelves.trim()

    assert 0 < shelves.bytes() < before
    assert shelves.in_use() == [kept.shelf]


def test_pieces_cover_a_prompt_without_gaps_on_one_grid() -> None:
    for start, end in [(0, 1), (0, 16), (0, 17), (0, 300), (48, 300), (128, 129), (5, 40)]:
        found = list(spans(start, end))

        assert [low for low, _ in found] == [start, *(high for _, high in found[:-1])]
        assert found[-1][1] == end
        assert {high for _, high in found[:-1]} <= {*range(16, 129, 16), *range(192, 400, 64)}


def test_a_piece_is_named_by_its_tokens_and_all_before_them() -> None:
    ids = list(range(100))

    whole = names_of(ids)

    assert len(whole) == 6
    assert names_of([*ids[:50], 999, *ids[51:]])[:3] == whole[:3]
    assert set(names_of([*ids[:50], 999, *ids[51:]])[3:]).isdisjoint(whole)
    assert set(names_of([999, *ids[1:]])).isdisjoint(whole)
    assert names_of(ids[:32]) == whole[:1]  # its last token is read by itself


def test_pieces_that_were_not_used_for_long_leave_first() -> None:
    prefixes = Prefixes(2 * piece_of(0, 16).bytes)
    for name in (b"a", b"b"):
        prefixes.keep(name, piece_of(1, 16))
    prefixes.get(b"a")

    prefixes.keep(b"c", piece_of(1, 16))

    assert [prefixes.get(name) is not None for name in (b"a", b"b", b"c")] == [True, False, True]


def test_only_what_several_prompts_have_is_shared() -> None:
    prefixes = Prefixes(10**6)

    prefixes.notice([b"a", b"b"])
    prefixes.notice([b"a", b"c"])

    assert [prefixes.shared(name) for name in (b"a", b"b", b"c", b"d")] == [True, False, False, False]

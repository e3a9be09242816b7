"""The rows of an encoder-decoder model that are being written: all of them in one call, each at its own position.

What a row has written so far and the source it reads lie on shelves. An item's beams share both: what they wrote lies
there once, and a mask says which of it each beam descends from.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from worker.engines.torch.device import Runs, attend_runs, has_runs
from worker.engines.torch.shelves import Kind, Place, Shape, Shelf, Shelves, length_for
from worker.engines.torch.wiring import RelativeBias, Seat, Wiring

SOURCE_TOKENS, WIDE_SOURCE_TOKENS = 1024, 65_536
"""Source tokens that are read in one call, where there is more than one source; on a GPU."""
STEP, WIDE_STEP = 16, 128
"""Shelves are made for multiples of so many tokens; on a GPU, which waits for each shelf's calls, few will do."""
SOURCE, WRITTEN = "source", "written"
"""What lies on a shelf."""


def shape_of(wiring: Wiring) -> Shape:
    """What one token of a source, or one that was written, takes."""
    return Shape(wiring.layers, wiring.heads, wiring.size, wiring.size, wiring.dtype, wiring.device)


def bytes_of(shape: Shape, rows: int, source: int, written: int) -> int:
    """Memory of an item with `rows` beams or samples, once it has written as many tokens as it may."""
    step = _step(shape.device)
    return shape.bytes * (length_for(source, step=step) + rows * length_for(written, step=step))


def _step(device: torch.device) -> int:
    return STEP if device.type == "cpu" else WIDE_STEP


class Strand(Protocol):
    """A sequence being written: one row, or the beams of a search."""

    tokens: list[int]
    """What its rows have written last, and go on from."""
    written: int
    """Tokens before those, the start token included."""
    parents: list[int] | None
    """The row that each of the rows continues; None: each itself."""


class Bundle:
    """One item: its source, and the strands that are written from it."""

    def __init__(self, strands: Sequence[Strand], shelves: Shelves) -> None:
        self.rows = sum(len(strand.tokens) for strand in strands)
        self.source = Place(shelves, self)
        self.places = [Place(shelves, strand) for strand in strands]
        self.live = [True] * len(strands)


class Strands:
    """All items that a model is writing."""

    def __init__(self, wiring: Wiring, most_bytes: int) -> None:
        self._wiring = wiring
        self._shelves = Shelves(shape_of(wiring), most_bytes)
        self._layout: _Layout | None = None

    def bundle(self, strands: Sequence[Strand]) -> Bundle:
        """An item that may be added: nothing of it is kept before."""
        return Bundle(strands, self._shelves)

    def read(self, sources: Sequence[list[int]]) -> list[torch.Tensor]:
        """The hidden states [tokens, width] of each source, several of them in one call."""
        found: list[torch.Tensor] = []
        for batch in _batches(sources, SOURCE_TOKENS if self._wiring.device.type == "cpu" else WIDE_SOURCE_TOKENS):
            lengths = [len(source) for source in batch]
            ids = torch.tensor([number for source in batch for number in source], device=self._wiring.device)
            found += self._wiring.encode(ids, _SourceDesk(self._wiring, lengths)).split_with_sizes(lengths)
        return found

    def begin(self, bundles: Sequence[Bundle], hidden: Sequence[torch.Tensor]) -> None:
        """Begin to write from these sources, whose keys and values are made together."""
        step = _step(self._wiring.device)
        for bundle, source in zip(bundles, hidden, strict=True):
            bundle.source.reach(Kind(bundle.rows, length_for(len(source), step=step), SOURCE))
            for place in bundle.places:
                place.reach(self._written(len(_strand(place).tokens), 1))
        whole, parts = torch.cat(list(hidden)), list(self._parts(bundles, [len(source) for source in hidden]))
        for layer in range(self._wiring.layers):
            keys, values = self._wiring.cross(layer, whole)
            for shelf, tokens, slots, spots in parts:
                shelf.keys[layer][slots, :, spots] = keys[tokens]
                shelf.values[layer][slots, :, spots] = values[tokens]
        for shelf, _, slots, spots in parts:
            shelf.mask[slots, :, spots] = 0
        self._layout = None

    def _parts(
        self, bundles: Sequence[Bundle], lengths: Sequence[int]
    ) -> Iterator[tuple[Shelf, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Of sources end to end, what goes on each shelf: which tokens, and for each its slot and its spot."""
        found: dict[int, tuple[Shelf, list[int], list[int], list[int]]] = {}
        for bundle, first, length in zip(bundles, accumulate([0, *lengths]), lengths, strict=False):
            place = bundle.source
            _, tokens, slots, spots = found.setdefault(id(place.shelf), (place.shelf, [], [], []))
            tokens += range(first, first + length)
            slots += [place.slot] * length
            spots += range(length)
        for shelf, *numbers in found.values():
            tokens_at, slots_at, spots_at = (torch.tensor(each, device=self._wiring.device) for each in numbers)
            yield shelf, tokens_at, slots_at, spots_at

    def end(self, bundle: Bundle, strand: int) -> None:
        """One strand of an item is written; with the last one the item leaves."""
        bundle.live[strand] = False
        self._layout = None
        bundle.places[strand].leave()
        if not any(bundle.live):
            bundle.source.leave()

    def drop(self, bundle: Bundle) -> None:
        for at, live in enumerate(bundle.live):
            if live:
                self.end(bundle, at)

    def strands(self) -> list[Strand]:
        """All strands, in the order in which `step` answers."""
        return [_strand(place) for shelf in self._shelves.in_use(WRITTEN) for place in shelf.places]

    def step(self) -> torch.Tensor:
        """Logits [rows, words] of what comes next, for the rows of each strand of `strands`."""
        for place in [place for shelf in self._shelves.in_use(WRITTEN) for place in shelf.places]:
            strand = _strand(place)
            rows = len(strand.tokens)
            if (strand.written + 1) * rows > place.shelf.length:
                self._layout = None
                place.reach(self._written(rows, strand.written + 1))
        self._layout = self._layout or _Layout(
            self._wiring, self._shelves.in_use(WRITTEN), self._shelves.in_use(SOURCE)
        )
        strands = self.strands()
        ids = torch.tensor([token for strand in strands for token in strand.tokens], device=self._wiring.device)
        return self._wiring.decode(ids, _RowDesk(self._wiring, self._layout))

    def _written(self, rows: int, steps: int) -> Kind:
        """Where a strand lies that has so many rows, each of which writes a token at every step."""
        return Kind(rows, rows * length_for(steps, step=_step(self._wiring.device)), WRITTEN)

    def trim(self) -> None:
        """Give back the memory that nothing needs."""
        self._layout = None
        self._shelves.trim()

    def close(self) -> None:
        self._layout = None
        self._shelves.clear()


class _SourceDesk:
    """Each source's tokens attend to one another: in a call of their own, or, where the device can, all in one."""

    def __init__(self, wiring: Wiring, lengths: list[int]) -> None:
        self._lengths, self._bias = lengths, wiring.source_bias
        self._runs: Runs | None = None
        if self._bias is None and has_runs(wiring.device, wiring.dtype):
            starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=wiring.device)
            self._runs = Runs(starts, starts, None, max(lengths), max(lengths))
        self.positions = torch.cat([torch.arange(length, device=wiring.device) for length in lengths])
        self._biases: list[torch.Tensor | None] = [_square(self._bias, length) for length in lengths]

    def attend(
        self, seat: Seat, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        if self._runs is not None:
            return attend_runs(query, key, value, self._runs, causal=False, scale=scaling, window=None)
        parts = (each.transpose(0, 1).split_with_sizes(self._lengths, 1) for each in (query, key, value))
        found = [
            scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=bias, scale=scaling)[0].transpose(0, 1)
            for q, k, v, bias in zip(*parts, self._biases, strict=True)
        ]
        return torch.cat(found)


def _square(bias: RelativeBias | None, length: int) -> torch.Tensor | None:
    if bias is None:
        return None
    at = torch.arange(length, device=bias.device)
    return bias.between(at[:, None], at[None])[None].contiguous()


class _Layout:
    """Who lies where: the same from step to step, until somebody comes, leaves or outgrows a shelf."""

    def __init__(self, wiring: Wiring, written: list[Shelf], sources: list[Shelf]) -> None:
        self.rows = sum(len(shelf.places) * shelf.kind.queries for shelf in written)
        self.written, first_of, first = list[Shelf](), dict[int, int](), 0
        for shelf in written:
            for place in shelf.places:
                first_of[id(place)] = first
                first += shelf.kind.queries
            self.written.append(shelf)
        self.sources = [self._source(shelf, first_of, wiring) for shelf in sources]

    def _source(self, shelf: Shelf, first_of: dict[int, int], wiring: Wiring) -> "_Source":
        """A strand that has ended still asks, so that the product keeps its shape: with the first row's query, its
        answer going to a row that nobody reads."""
        asking, answered = list[int](), list[int]()
        for place in shelf.places:
            bundle = place.owner
            assert isinstance(bundle, Bundle)
            for own, live in zip(bundle.places, bundle.live, strict=True):
                count = len(_strand(own).tokens)
                first = first_of[id(own)] if live else 0
                asking += range(first, first + count) if live else [0] * count
                answered += range(first, first + count) if live else [self.rows] * count
        places, rows, width = len(shelf.places), shelf.kind.queries, shelf.length
        mask = shelf.mask[:places, None].expand(places, wiring.heads, rows, width).reshape(-1, rows, width)
        asks, answers = (torch.tensor(each, device=wiring.device) for each in (asking, answered))
        return _Source(shelf, places, asks, answers, mask)


class _Source(NamedTuple):
    """One shelf of sources, whose rows are answered in one product."""

    shelf: Shelf
    places: int
    asking: torch.Tensor
    """The rows among all whose queries these are, [places x rows of each]."""
    answered: torch.Tensor
    """The rows that the answers are for."""
    mask: torch.Tensor


class _RowDesk:
    """Each row attends to what it descends from, and to its source."""

    def __init__(self, wiring: Wiring, layout: _Layout) -> None:
        self._layout, self._heads = layout, wiring.heads
        self._own = [_Own(shelf, wiring) for shelf in layout.written]
        self.positions = torch.cat([own.positions for own in self._own])

    def attend(
        self, seat: Seat, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        if seat.cross:
            return self._crossed(seat.layer, query, scaling)
        counts = [len(own.positions) for own in self._own]
        parts = (each.split_with_sizes(counts) for each in (query, key, value))
        return torch.cat([own.attend(seat.layer, *rows, scaling) for own, *rows in zip(self._own, *parts, strict=True)])

    def _crossed(self, layer: int, query: torch.Tensor, scaling: float) -> torch.Tensor:
        found = query.new_empty(self._layout.rows + 1, *query.shape[1:])
        for shelf, places, asking, answered, mask in self._layout.sources:
            asked = query.index_select(0, asking)
            keys, values = shelf.keys[layer, :places], shelf.values[layer, :places]
            found.index_copy_(0, answered, _answers(asked, keys, values, mask, scaling))
        return found[:-1]


class _Own:
    """One shelf of what was written, for one step."""

    def __init__(self, shelf: Shelf, wiring: Wiring) -> None:
        self._shelf, self._places = shelf, len(shelf.places)
        rows, width = self._shelf.kind.queries, self._shelf.length
        device = wiring.device
        strands = [_strand(place) for place in self._shelf.places]
        written = torch.tensor([strand.written for strand in strands], device=device)
        self.positions = written.repeat_interleave(rows)
        columns = written[:, None] * rows + torch.arange(rows, device=device)
        entries = torch.arange(self._places, device=device)[:, None]
        mask = self._descent([strand.parents for strand in strands])
        mask[entries, torch.arange(rows, device=device), columns] = 0
        heads = torch.arange(wiring.heads, device=device)[:, None]
        self._at = ((entries[..., None] * wiring.heads + heads) * width + columns[:, None]).view(-1)
        self._mask = self._biased(mask, written, wiring)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        keys, values = self._shelf.keys[layer], self._shelf.values[layer]
        for kept, new in ((keys, key), (values, value)):
            kept.view(-1, new.shape[-1]).index_copy_(0, self._at, _by_place(new, self._places).flatten(0, 2))
        return _answers(query, keys[: self._places], values[: self._places], self._mask, scaling)

    def _descent(self, parents: list[list[int] | None]) -> torch.Tensor:
        """The mask [places, rows, width] after each row has taken over what its parent descends from."""
        mask = self._shelf.mask[: self._places]
        if any(each is not None for each in parents):
            own = list(range(self._shelf.kind.queries))
            index = torch.tensor([own if each is None else each for each in parents], device=mask.device)
            mask.copy_(mask.gather(1, index[..., None].expand_as(mask)))
        return mask

    def _biased(self, mask: torch.Tensor, written: torch.Tensor, wiring: Wiring) -> torch.Tensor:
        """The mask for each head, [places x heads, rows, width], with the bias by distance where the model has one."""
        rows, width = self._shelf.kind.queries, self._shelf.length
        shape = (self._places, wiring.heads, rows, width)
        if wiring.target_bias is None:
            return mask[:, None].expand(shape).reshape(-1, rows, width)
        keys = torch.arange(width, device=mask.device) // rows
        bias = wiring.target_bias.between(written[:, None], keys[None]).transpose(0, 1)
        return (mask[:, None] + bias[:, :, None]).reshape(-1, rows, width)


def _strand(place: Place) -> Strand:
    strand: Strand = place.owner  # type: ignore[assignment]
    return strand


def _by_place(rows: torch.Tensor, places: int) -> torch.Tensor:
    """[places x rows, heads, size] as [places, heads, rows, size]."""
    return rows.view(places, -1, *rows.shape[1:]).transpose(1, 2)


def _answers(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attention of queries [places x rows, heads, size] over keys and values [places, heads, width, size].

    Two stacked products, in which a sequence's numbers are the same on every shelf; SDPA's are not, for single rows
    (torch 2.13).
    """
    places, heads, width, size = keys.shape
    asked = _by_place(query, places).reshape(places * heads, -1, size)
    scores = torch.baddbmm(mask, asked, keys.reshape(-1, width, size).transpose(1, 2), alpha=scaling)
    found = torch.bmm(scores.softmax(-1), values.reshape(-1, width, size))
    return found.view(places, heads, -1, size).transpose(1, 2).reshape(query.shape)


def _batches(sources: Sequence[list[int]], most: int) -> list[list[list[int]]]:
    batches: list[list[list[int]]] = []
    room = 0
    for source in sources:
        if len(source) > room or not batches:
            batches.append([])
            room = most
        batches[-1].append(source)
        room -= len(source)
    return batches

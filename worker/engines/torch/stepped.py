"""A plain causal model as the loop runs it, and the proof at load that it says what it always says."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from worker.engines.torch.device import errors_mapped
from worker.engines.torch.passes import Packed, Reading, packed, room_for
from worker.engines.torch.prefixes import spans
from worker.engines.torch.shelves import Shape, Shelves
from worker.engines.torch.stepping import stepping
from worker.engines.torch.store import Store
from worker.engines.torch.unfit import Unfit, explained

TOLERANCE = {torch.float32: 1e-4}
OTHERWISE = 3e-2
"""Largest difference from the plain model's logits, for logits of about 1; in other precisions."""
ROWS = ((37, 3), (3, 2), (80, 3), (1, 4), (18, 2))
"""What rows of the proof read: so many tokens at once, so many one by one."""
PROOF_BYTES = 2**26
"""What their keys and values may take beyond what they need."""
DRIFTING = ("dynamic", "longrope")
"""Kinds of rotary positions that change with the longest row of a pass."""
NEEDED = ("position_ids", "logits_to_keep", "use_cache")


class Stepped:
    """Runs passes over shelves, of a model that is otherwise as it was. Raises Unfit for one that is known not to work
    so."""

    takes_branches = True

    def __init__(self, model: Any) -> None:
        self._model, self._device = model, next(model.parameters()).device
        configs = {id(each.config): each.config for each in model.modules() if hasattr(each, "config")}
        self._configs = list(configs.values())
        missing = [name for name in NEEDED if name not in inspect.signature(model.forward).parameters]
        if missing:
            raise Unfit(f"it takes no {missing[0]}")
        config = model.config.get_text_config()
        if drifting := set(DRIFTING) & set(_rope_types(getattr(config, "rope_parameters", None))):
            raise Unfit(f"positions of type {drifting.pop()}")
        self._windows = _windows(config)
        with explained():
            self.shape = self._measured()

    def __call__(self, made: Packed) -> torch.Tensor:
        """Logits [kept tokens, words]."""
        with torch.inference_mode(), errors_mapped(), stepping(self._configs, made.attention) as seen:
            logits: torch.Tensor = self._model(
                input_ids=made.ids, position_ids=made.positions, logits_to_keep=made.keep, use_cache=False
            ).logits[0]
        if len(seen.windows) != self.shape.layers:
            raise Unfit(f"attention was asked {len(seen.windows)} times by {self.shape.layers} layers")
        if sum(window is not None for window in seen.windows) != self._windows:
            raise Unfit("a window of its own")
        return logits

    def store(self, most_bytes: int) -> Any:
        """Where keys and values lie that its passes read and write."""
        return Shelves(self.shape, most_bytes)

    def packed(self, singles: Sequence[Reading], chunks: Sequence[Reading], pad: int) -> Packed:
        """The pass that reads all of these, whose logits come back in this order. Singles are of one token each, and
        sorted by their places' `order`."""
        return packed(singles, chunks, pad, self.shape)

    def plain(self, ids: Sequence[int]) -> torch.Tensor:
        """Logits [tokens, words] of the model as it comes."""
        with torch.inference_mode():
            logits: torch.Tensor = self._model(
                input_ids=torch.tensor([ids], device=self._device), use_cache=False
            ).logits[0]
        return logits

    def _measured(self) -> Shape:
        with torch.inference_mode():
            given = torch.tensor([[0, 0]], device=self._device)
            cache = self._model(input_ids=given, use_cache=True).past_key_values
        kept = [(each.keys, each.values) for each in cache.layers]
        found = {(keys.shape[1], keys.shape[3], values.shape[3], keys.dtype) for keys, values in kept}
        if len(found) != 1:
            raise Unfit("layers of different shapes")
        heads, keys, values, dtype = found.pop()
        return Shape(len(kept), heads, keys, values, dtype, self._device)


def prove(stepped: Stepped, *, words: int, limit: int) -> bool:
    """Whether a row's logits have the same bits in every company that was tried. Raises Unfit when they differ from
    the plain model's, or are changed by a neighbour's text."""
    texts = [_random(at, min(many, limit - singles), singles, words) for at, (many, singles) in enumerate(ROWS)]
    others = [texts[0], *(_random(99 + at, many, singles, words) for at, (many, singles) in enumerate(ROWS[1:2]))]
    with explained():
        together, alone, changed = (_read(stepped, rows) for rows in (texts, texts[:1], others))
        plain = [stepped.plain([*many, *singles])[len(many) - 1 :] for many, singles in texts]
    worst = max(_apart(found, wanted) for found, wanted in zip(together, plain, strict=True))
    tolerance = TOLERANCE.get(stepped.shape.dtype, OTHERWISE)
    if not worst <= tolerance:
        raise Unfit(f"its logits differ by {worst:.1e} from the plain model's")
    if not max(_apart(alone[0], together[0]), _apart(changed[0], together[0])) <= tolerance:
        raise Unfit("a neighbour changes a row")
    return torch.equal(alone[0], together[0]) and torch.equal(changed[0], together[0])


def _read(stepped: Stepped, texts: Sequence[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
    """Logits of the last token that each row reads at once, and of those it reads one by one."""
    store: Store = stepped.store(PROOF_BYTES)
    places = [store.place() for _ in texts]
    for place, (many, singles) in zip(places, texts, strict=True):
        place.reach(room_for(len(many) + len(singles)))
    chunks = [
        Reading(place, many[start:end], start, [end - start - 1] if end == len(many) else [])
        for place, (many, _) in zip(places, texts, strict=True)
        for start, end in spans(0, len(many))
    ]
    found = [[row] for row in stepped(stepped.packed([], chunks, 0))]
    for turn in range(max(len(singles) for _, singles in texts)):
        at_work = sorted(
            (at for at, (_, singles) in enumerate(texts) if turn < len(singles)), key=lambda at: places[at].order
        )
        readings = [Reading(places[at], [texts[at][1][turn]], len(texts[at][0]) + turn, [0]) for at in at_work]
        for at, row in zip(at_work, stepped(stepped.packed(readings, [], 0)), strict=True):
            found[at].append(row)
    return [torch.stack(rows) for rows in found]


def _random(seed: int, many: int, singles: int, words: int) -> tuple[list[int], list[int]]:
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(words, (many + singles,), generator=generator).tolist()
    return ids[:many], ids[many:]


def _apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, by the largest logit."""
    wanted = wanted.float()
    return float((found.float() - wanted).abs().max() / max(1.0, float(wanted.abs().max())))


def _rope_types(parameters: Any) -> Iterator[str]:
    """One kind for all layers, or one for each kind of layer."""
    if isinstance(parameters, dict):
        yield str(parameters.get("rope_type"))
        for value in parameters.values():
            yield from _rope_types(value)


def _windows(config: Any) -> int:
    """How many layers look back only so far, as the configuration has it; the attention has to be told by each."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        return int(config.num_hidden_layers) if windowed else 0
    if strange := set(kinds) - {"full_attention", "sliding_attention"}:
        raise Unfit(f"layers of kind {strange.pop()}")
    return list(kinds).count("sliding_attention") if getattr(config, "sliding_window", None) else 0

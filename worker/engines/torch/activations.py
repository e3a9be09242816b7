"""Activations that a packed linear layer computes in its own product: its output is not read and written once more.

oneDNN calls them post-operations. Which one an activation is, is found by comparing values, not names: Transformers
5.23 has nine classes for GELU alone.
"""

from collections import Counter
from typing import Any

import torch
from torch import nn

from worker.engines.torch.linear import ALONE, FLOOR, PackedLinear
from worker.engines.torch.tracing import alike, answered

POST_OPERATIONS = (("gelu", "none"), ("gelu", "tanh"), ("relu", ""), ("swish", ""))
"""Name and algorithm, as `mkldnn._linear_pointwise` takes them (torch 2.13)."""
SAME = 1e-6
"""Largest difference of two activations that are taken for one, for values up to `REACH`."""
REACH = 8.0


def absorb(model: nn.Module) -> int:
    """Have packed layers compute the activation that reads their output at once; how many do. The model stays as it
    was when it cannot be asked, or when its output changes by more than rounding."""
    seen = _Seen()
    before = seen.watch(model)
    if before is None:
        return 0
    found = {reader: (layers, how) for reader, layers in seen.pairs() if (how := _operation(reader, layers[0]))}
    layers = [(layer, how) for some, how in found.values() for layer in some]
    places = [
        (parent, name, child) for parent in model.modules() for name, child in parent.named_children() if child in found
    ]
    for layer, how in layers:
        layer.then = how
    for parent, name, _ in places:
        parent._modules[name] = nn.Identity()
    if not layers or alike(before, answered(model)):
        return len(layers)
    for layer, _ in layers:
        layer.then = ALONE
    for parent, name, child in places:
        parent._modules[name] = child
    return 0


class _Seen:
    """Which modules without weights read what packed layers have written, in one pass."""

    def __init__(self) -> None:
        self._written: dict[int, tuple[PackedLinear, torch.Tensor]] = {}  # the tensor is kept, so that its id is
        self._calls: Counter[nn.Module] = Counter()
        self._reads: Counter[tuple[nn.Module, PackedLinear]] = Counter()

    def watch(self, model: nn.Module) -> torch.Tensor | None:
        """The model's answer."""
        handles = [
            module.register_forward_hook(self._wrote)
            if isinstance(module, PackedLinear)
            else module.register_forward_pre_hook(self._read)
            for module in model.modules()
            if isinstance(module, PackedLinear) or _has_no_weights(module)
        ]
        try:
            return answered(model)
        finally:
            for handle in handles:
                handle.remove()

    def pairs(self) -> list[tuple[nn.Module, list[PackedLinear]]]:
        """Each module that read nothing but such outputs, and the layers whose outputs all went there."""
        found: dict[nn.Module, list[PackedLinear]] = {}
        for reader, layer in self._reads:
            found.setdefault(reader, []).append(layer)
        return [
            (reader, layers)
            for reader, layers in found.items()
            if sum(self._reads[reader, layer] for layer in layers) == self._calls[reader]
            and all(self._reads[reader, layer] == self._calls[layer] for layer in layers)
        ]

    def _wrote(self, layer: Any, given: Any, made: torch.Tensor) -> None:
        self._calls[layer] += 1
        self._written[id(made)] = (layer, made)

    def _read(self, reader: nn.Module, given: tuple[Any, ...]) -> None:
        self._calls[reader] += 1
        if given and id(given[0]) in self._written:
            self._reads[reader, self._written[id(given[0])][0]] += 1


def _has_no_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is None and next(module.buffers(), None) is None


def _operation(reader: nn.Module, layer: PackedLinear) -> tuple[str, str] | None:
    """The post-operation that gives what `reader` gives, and a row the same bits in every company; None: none does."""
    values = torch.linspace(-REACH, REACH, 8 * FLOOR * FLOOR).view(-1, FLOOR)
    product = PackedLinear(torch.eye(FLOOR), None, keep=True)
    with torch.inference_mode():
        try:
            wanted = reader(values.clone())
        except (RuntimeError, TypeError, ValueError):
            return None
        for each in POST_OPERATIONS if layer.weight.dtype == torch.float32 else ():
            product.then = each
            found = product(values)
            if (
                found.shape == wanted.shape
                and bool((found - wanted).abs().max() <= SAME)
                and torch.equal(product(values[3 : 3 + FLOOR].clone()), found[3 : 3 + FLOOR])
            ):
                return each
    return None

"""Linear layers that read the same input, made one product: queries, keys and values; gate and up.

Few rows leave a small product's threads and caches idle, and decoding has few rows.
"""

from typing import Any

import torch
from torch import nn

from worker.engines.torch.linear import fused
from worker.engines.torch.tracing import alike, answered


class Siblings(nn.Module):
    """The product of several layers; gives each its part of it."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        weight, bias = fused(layers)
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.linear.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            self.linear.bias = nn.Parameter(bias, requires_grad=False)
        self._widths = [layer.out_features for layer in layers]
        self._given: torch.Tensor | None = None
        self._parts: list[torch.Tensor] = []

    def part(self, given: torch.Tensor, at: int) -> torch.Tensor:
        """The output of the layer with that number. The product is made for the first that asks."""
        if given is not self._given:
            self._given, self._parts = given, list(self.linear(given).split(self._widths, -1))
        made = self._parts[at]
        if at == len(self._widths) - 1:
            self._given, self._parts = None, []
        return made


class Sibling(nn.Module):
    """One of them, in the place of the layer that was."""

    def __init__(self, siblings: Siblings, at: int) -> None:
        super().__init__()
        self.siblings, self._at = siblings, at

    @property
    def weight(self) -> torch.Tensor:
        """Models ask for its dtype."""
        weight: torch.Tensor = self.siblings.linear.weight
        return weight

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.siblings.part(given, self._at)


def fuse(model: nn.Module) -> int:
    """Make one product of each group of layers that are found to read the same input; how many groups that are. The
    model stays as it was when it cannot be traced, or when its output changes by more than rounding."""
    inputs: dict[nn.Linear, torch.Tensor] = {}
    before = _output(model, inputs)
    groups = [group for parent in model.modules() if (group := _group(parent, inputs))] if before is not None else []
    replaced = [(parent, name, child) for parent, children in groups for name, child in children.items()]
    for parent, children in groups:
        siblings = Siblings(list(children.values()))
        for at, name in enumerate(children):
            parent._modules[name] = Sibling(siblings, at)
    after = _output(model, {}) if groups else before
    if not alike(before, after):
        for parent, name, child in replaced:
            parent._modules[name] = child
        return 0
    return len(groups)


def _output(model: nn.Module, inputs: dict[nn.Linear, torch.Tensor]) -> torch.Tensor | None:
    """Logits or token vectors for a few tokens, and what each linear layer read; None for a model that cannot be asked
    like this."""

    def hook(layer: Any, given: tuple[torch.Tensor, ...]) -> None:
        if given:
            inputs[layer] = given[0]

    linears = [module for module in model.modules() if type(module) is nn.Linear]
    handles = [layer.register_forward_pre_hook(hook) for layer in linears]
    try:
        return answered(model)
    finally:
        for handle in handles:
            handle.remove()


def _group(parent: nn.Module, inputs: dict[nn.Linear, torch.Tensor]) -> tuple[nn.Module, dict[str, nn.Linear]] | None:
    """The children of a module that read the very tensor that the first of them reads, in the order of their calls."""
    called = {id(layer): at for at, layer in enumerate(inputs)}
    children = {name: each for name, each in parent.named_children() if isinstance(each, nn.Linear) and each in inputs}
    ordered = dict(sorted(children.items(), key=lambda pair: called[id(pair[1])]))
    first = next(iter(ordered.values()), None)
    same = {
        name: each
        for name, each in ordered.items()
        if first is not None and inputs[each] is inputs[first] and (each.bias is None) == (first.bias is None)
    }
    return (parent, same) if len(same) > 1 else None

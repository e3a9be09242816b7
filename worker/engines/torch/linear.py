"""The fastest correct linear layer for the processor at hand: measured at load for each shape of weights.

On CPUs oneDNN with weights packed in advance often beats torch's own product (which is MKL's, and on AMD takes a slower
path). It is reached from inside torch through operators that belong to Inductor (torch 2.13) and may change: their
presence and their results are tested, and the plain layer is the fallback.
"""

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

log = logging.getLogger("textmill.worker")

FLOOR = 16
"""Rows of the smallest product. Below it BLAS libraries take other kernels, whose sums come in another order: a row's
result would depend on how many others are beside it."""
PROBE_FLOP = 2e9
"""Most work of one timed product, so that probing a large model does not take minutes."""
PROBES = 5
GAIN = 1.03
"""How much faster the packed layer has to be: it holds a second copy of weights that something else shares."""
TOLERANCE = 1e-4
"""Largest difference of the two layers' results, for results of about 1: they sum in different orders."""

ALONE = ("none", "")
"""What a product is followed by, as oneDNN takes it: by nothing."""

Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Quickened:
    """What was done to a model's linear layers."""

    layers: int
    packed: int
    """Layers that run with packed weights."""
    exact: bool
    """Whether a row's result was the same in every company that was tried."""
    extra_bytes: int
    """Memory of packed copies whose plain weights had to stay, because an embedding shares them."""


def quicken(model: nn.Module, *, rows: Sequence[int]) -> Quickened:
    """Replace the model's linear layers in place; `rows` are the sizes of the products that its use will bring.

    Every layer gets the floor of rows; on the CPU each also gets the faster of the two ways for its shape. Models on
    other devices keep their layers, and are never exact.
    """
    found = list(_linears(model))
    if not found or found[0].weight.device.type != "cpu":
        return Quickened(len(found), 0, exact=False, extra_bytes=0)
    shared = _shared_weights(model)
    made = [(each, _made(each, tuple(rows), keep=id(each.weight) in shared)) for each in found]
    _replace(model, {id(old): new for old, new in made})
    packed = [(old, new) for old, new in made if isinstance(new, PackedLinear)]
    extra = sum(new.packed_bytes for old, new in packed if id(old.weight) in shared)
    exact = all(_is_exact(new) for new in {_shape(new): new for _, new in made}.values())
    log.info("%d of %d linear layers run with packed weights", len(packed), len(made))
    return Quickened(len(made), len(packed), exact, extra)


class FloorLinear(nn.Module):
    """A linear layer over `[..., in]` whose products never have fewer than `FLOOR` rows."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.out_features, self.in_features = weight.shape

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        rows = given.reshape(-1, self.in_features)
        count = rows.shape[0]
        if count < FLOOR:
            rows = functional.pad(rows, (0, 0, 0, FLOOR - count))
        return self.product(rows)[:count].view(*given.shape[:-1], self.out_features)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """`rows` [at least FLOOR, in] times the weights, [.., out]."""
        return functional.linear(rows, self.weight, self.bias)


class PackedLinear(FloorLinear):
    """The same through oneDNN, its weights laid out in advance as the kernels read them."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, keep: bool) -> None:
        super().__init__(weight, bias)
        self._packed = _packed(weight)
        self.then = ALONE
        """The activation that is computed with the product, and its algorithm (activations.py)."""
        self.packed_bytes = weight.numel() * weight.element_size()
        if not keep:
            self.weight = weight.new_empty(0)  # models ask for its dtype

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._packed, self.bias, self.then[0], [], self.then[1]
        )
        return made


def fused(layers: Sequence[nn.Module]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weights and bias of one layer that gives what these, which read the same input, give one after the other."""
    weights, biases = zip(*map(_weights, layers), strict=True)
    some = [bias for bias in biases if bias is not None]
    if some and len(some) < len(biases):
        raise ValueError("some of the layers have a bias and some have none")
    return torch.cat(list(weights)), torch.cat(some) if some else None


def peak_gflops(*, rows: int = 1024, inside: int = 1024, out: int = 4096, dtype: torch.dtype = torch.float32) -> float:
    """The best rate of this machine's two ways for a large product: what useful work is compared with."""
    weight, given = torch.randn(out, inside).to(dtype), torch.randn(rows, inside).to(dtype)
    ways: list[Product] = [lambda given: functional.linear(given, weight)]
    if _can_pack(dtype):
        packed = _packed(weight)
        ways.append(lambda given: torch.ops.mkldnn._linear_pointwise(given, packed, None, "none", [], ""))
    with torch.inference_mode():
        return 2e-9 * rows * inside * out / min(min(_times(way, given, 9)) for way in ways)


def _linears(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if type(module) in (nn.Linear, Conv1D):
            yield module


def _weights(layer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weights [out, in] and bias, whichever way the layer keeps them."""
    weight = layer.weight.detach()
    bias = None if layer.bias is None else layer.bias.detach()
    return (weight.t().contiguous() if type(layer) is Conv1D else weight), bias


def _shared_weights(model: nn.Module) -> set[int]:
    """Parameters that a layer of another kind uses too: tied embeddings."""
    return {
        id(weight)
        for module in model.modules()
        if type(module) not in (nn.Linear, Conv1D)
        for weight in module._parameters.values()
        if weight is not None
    }


def _made(layer: Any, rows: tuple[int, ...], *, keep: bool) -> FloorLinear:
    weight, bias = _weights(layer)
    out, inside = weight.shape
    if _packs_faster(int(inside), int(out), bias is not None, weight.dtype, rows, torch.get_num_threads()):
        return PackedLinear(weight, bias, keep=keep)
    return FloorLinear(weight, bias)


def _replace(model: nn.Module, made: dict[int, FloorLinear]) -> None:
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is not None and id(child) in made:
                module._modules[name] = made[id(child)].requires_grad_(False).eval()


@lru_cache(maxsize=4096)
def _packs_faster(inside: int, out: int, biased: bool, dtype: torch.dtype, rows: tuple[int, ...], threads: int) -> bool:
    """Measured once per shape in a process."""
    if not _can_pack(dtype):
        return False
    weight = torch.randn(out, inside).to(dtype)
    bias = torch.randn(out).to(dtype) if biased else None
    plain, packed = FloorLinear(weight, bias), PackedLinear(weight, bias, keep=True)
    sizes = sorted({max(FLOOR, min(each, int(PROBE_FLOP / (2 * inside * out)))) for each in rows})
    with torch.inference_mode():
        if not _agree(plain, packed):
            log.warning("packed linear layers of %d x %d give other results; not used", inside, out)
            return False
        return all(_gain(plain, packed, torch.randn(size, inside).to(dtype)) >= 1 / GAIN for size in sizes) and any(
            _gain(plain, packed, torch.randn(size, inside).to(dtype)) >= GAIN for size in sizes
        )


@lru_cache(maxsize=8)
def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have the operators for that precision."""
    try:
        weight, given = torch.eye(FLOOR).to(dtype), torch.ones(FLOOR, FLOOR).to(dtype)
        with torch.inference_mode():
            return bool(torch.equal(PackedLinear(weight, None, keep=True).product(given), given))
    except (RuntimeError, AttributeError):
        return False


def _packed(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    return packed


def _agree(plain: FloorLinear, packed: FloorLinear) -> bool:
    given = torch.randn(FLOOR + 3, plain.in_features).to(plain.weight.dtype)
    wanted, found = plain.product(given).float(), packed.product(given).float()
    tolerance = TOLERANCE if plain.weight.dtype == torch.float32 else 2e-2
    return bool((wanted - found).abs().max() <= tolerance * max(1.0, float(wanted.abs().max())))


def _gain(plain: FloorLinear, packed: FloorLinear, given: torch.Tensor) -> float:
    """How many times faster the packed layer is; the two take turns, so that a busy neighbour slows both."""
    pairs = [(_time(plain.product, given), _time(packed.product, given)) for _ in range(PROBES + 1)][1:]
    return statistics.median(slow / max(fast, 1e-9) for slow, fast in pairs)


def _times(product: Product, given: torch.Tensor, n: int) -> list[float]:
    return [_time(product, given) for _ in range(n)]


def _time(product: Product, given: torch.Tensor) -> float:
    start = time.perf_counter()
    product(given)
    return time.perf_counter() - start


def _shape(layer: FloorLinear) -> tuple[type, int, int]:
    return type(layer), layer.in_features, layer.out_features


def _is_exact(layer: FloorLinear) -> bool:
    """Whether a row's result is the same beside 16 rows and beside many."""
    if layer.bias is not None and layer.bias.dtype != torch.float32:
        return False
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(8 * FLOOR + 5, layer.in_features, generator=generator)
    if layer.weight.dtype != torch.float32:
        return False
    with torch.inference_mode():
        whole = layer(given)
        spans = ((0, 3), (5, 5 + FLOOR), (1, 2 * FLOOR + 2), (40, 8 * FLOOR + 5))
        return all(torch.equal(layer(given[low:high].clone()), whole[low:high]) for low, high in spans)

"""The device a model runs on: its memory, what its errors mean, its attention for what lies end to end, its recordings.
The only calls that differ between devices."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from jobs.errors import DeviceLost, ModelFailed
from worker.engines.base import OutOfMemory

FULL = ("out of memory", "can't allocate memory", "failed to allocate")
"""What allocators say when a batch does not fit."""
STICKY = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "unspecified launch failure",
    "hardware error",
    "uncorrectable ecc",
    "device is lost",
    "all cuda-capable devices are busy",
    "no longer available",
)
"""What the driver says when every later call would fail too."""


def device_of(name: str) -> torch.device:
    """The device of that name, usable. Raises ModelFailed."""
    device = torch.device(name)
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ModelFailed(f"device {name!r} is not available here")
    return device


def precisions_of(name: str) -> tuple[str, ...]:
    """What the device computes in at full speed."""
    if name.startswith("cuda"):
        return ("float32", "bfloat16", "float16")
    has_bf16 = name == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return ("float32", "bfloat16") if has_bf16 else ("float32",)


class Runs(NamedTuple):
    """Sequences that lie end to end, and the runs of keys and values that they look at."""

    queries: torch.Tensor
    """Where each one's queries begin, and behind the last one their number: int32 [sequences + 1]."""
    keys: torch.Tensor
    """Where its keys begin: int32 [sequences + 1]."""
    used: torch.Tensor | None
    """How many they are: int32 [sequences]; None: those up to where the next one's begin."""
    most_queries: int
    most_keys: int
    """Of one sequence."""


def has_runs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `attend_runs` is one call there: FlashAttention takes half precisions, and GPUs since Ampere have it."""
    halves = dtype in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and halves and torch.cuda.get_device_capability(device) >= (8, 0)


def attend_runs(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    runs: Runs,
    *,
    causal: bool,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attention [queries, heads, size] of each sequence to its own run. `query` [queries, heads, size], `key` and
    `value` [keys, key heads, size]. Causal: the last query sees all of its run, the one before it one key less, and so
    on. Keys `window` or more away are not seen.

    The operator is the one below `torch.nn.attention.varlen` (torch 2.13), whose `seqused_k` that has not had for long.
    """
    if query.device.type != "cuda":
        return _attend_one_by_one(query, key, value, runs, causal=causal, scale=scale, window=window)
    left, right = (-1, -1) if window is None else (window - 1, 0 if causal else window - 1)
    made: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        runs.queries,
        runs.keys,
        runs.most_queries,
        runs.most_keys,
        0.0,
        causal,
        False,
        scale=scale,
        window_size_left=left,
        window_size_right=right,
        seqused_k=runs.used,
    )[0]
    return made


def _attend_one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    runs: Runs,
    *,
    causal: bool,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """The same in as many calls as there are sequences."""
    starts, used = runs.keys.tolist(), None if runs.used is None else runs.used.tolist()
    parts = []
    for number, (first, last) in enumerate(pairwise(runs.queries.tolist())):
        start = starts[number]
        count = starts[number + 1] - start if used is None else used[number]
        at, own = torch.arange(count), torch.arange(count - last + first, count)[:, None]
        seen = at <= own if causal else torch.ones(last - first, count, dtype=torch.bool)
        if window is not None:
            seen &= (own - at).abs() < window
        queries, keys, values = (
            each.transpose(0, 1)[None]
            for each in (query[first:last], key[start : start + count], value[start : start + count])
        )
        made = scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=scale, enable_gqa=True)
        parts.append(made[0].transpose(0, 1))
    return torch.cat(parts)


def recorded(run: Callable[[], torch.Tensor], device: torch.device) -> tuple[Callable[[], Any], torch.Tensor]:
    """What `run` asks of a GPU, to be asked again by one call instead of a call for each kernel (CUDA graphs): that
    call, and the tensor in which its result lies afterwards. Elsewhere the call just runs it."""
    if device.type != "cuda":
        made = run()
        return lambda: made.copy_(run()), made
    aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):  # what is set up at the first call, such as workspaces, cannot be recorded
        run()
        run()
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = run()
    return graph.replay, made


def dtype_of(model: Any) -> str:
    """What the model computes in."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def reclaim(device: torch.device) -> None:
    """Give cached blocks back, so that the next allocation is not hindered by the shapes of the last."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def memory_of(model: Any) -> int:
    """Bytes of the model's weights, copies laid out for faster products included; what layers share counts once."""
    tensors = {(each.data_ptr(), each.numel()): each for each in (*model.parameters(), *model.buffers())}
    copies = sum(getattr(module, "packed_bytes", 0) for module in model.modules())
    return int(sum(each.numel() * each.element_size() for each in tensors.values()) + copies)


@contextmanager
def errors_mapped() -> Iterator[None]:
    """The device's errors as the engine's: OutOfMemory, DeviceLost; others pass."""
    try:
        yield
    except RuntimeError as error:
        meaning = _meaning(error)
        if meaning is None:
            raise
        raise meaning(str(error).partition("\n")[0]) from None


def _meaning(error: RuntimeError) -> type[OutOfMemory] | type[DeviceLost] | None:
    text = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError) or any(words in text for words in FULL):
        return OutOfMemory
    return DeviceLost if any(words in text for words in STICKY) else None

"""The device a model runs on: its memory, what its errors mean, its attention for texts end to end. The only calls that
differ between devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

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


def attends_apart(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `apart` works there: FlashAttention knows half precisions, and needs an Ampere GPU or a later one."""
    halves = dtype in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and halves and torch.cuda.get_device_capability(device) >= (8, 0)


def apart(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    *,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attention [tokens, heads, size] of texts that lie end to end, each to itself. `query`, `key`, `value`: [tokens,
    heads, size]; `starts`: int32 [texts + 1], the last one being the number of tokens; tokens `window` or more apart
    do not see each other."""
    from torch.nn.attention.varlen import varlen_attn

    seen: dict[str, Any] = {} if window is None else {"window_size": (window - 1, window - 1)}
    if key.shape[1] != query.shape[1]:
        seen["enable_gqa"] = True
    found = varlen_attn(query, key, value, starts, starts, longest, longest, scale=scale, **seen)
    assert isinstance(found, torch.Tensor)  # it gives two where it is asked for two
    return found


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

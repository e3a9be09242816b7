"""What a device's errors mean: memory that is short, a device that is lost, or neither."""

import pytest
import torch

from jobs.errors import DeviceLost, ModelFailed
from worker.engines.base import OutOfMemory
from worker.engines.torch.device import device_of, errors_mapped, reclaim

MEANINGS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), OutOfMemory),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8 bytes"), OutOfMemory),
    (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), OutOfMemory),
    (RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ..."), DeviceLost),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceLost),
    (RuntimeError("CUDA error: uncorrectable ECC error encountered"), DeviceLost),
    (RuntimeError("CUDA error: unspecified launch failure"), DeviceLost),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
    (ValueError("out of memory is only a word here"), ValueError),
]


@pytest.mark.parametrize(("error", "meaning"), MEANINGS)
def test_errors_are_told_apart(error: Exception, meaning: type[Exception]) -> None:
    with pytest.raises(meaning) as caught, errors_mapped():
        raise error

    assert type(caught.value) is meaning
    assert "\n" not in str(caught.value)


def test_a_real_allocation_that_cannot_fit_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory), errors_mapped():
        torch.empty(2**55, dtype=torch.uint8)


def test_the_cpu_is_always_there_and_needs_no_reclaiming() -> None:
    device = device_of("cpu")

    reclaim(device)

    assert device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(ModelFailed, match="cuda:1"):
        device_of("cuda:1")

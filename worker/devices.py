"""Which device this process works on, found without torch."""

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from jobs.settings import Settings

MIB = 2**20
BATCH_TOKENS, WIDE_BATCH_TOKENS = 4096, 65_536
"""Most tokens of one pass, on a CPU and on other devices, where nothing is set."""
SMI = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")


class Device(NamedTuple):
    """What a worker process has to itself."""

    name: str
    """As torch calls it."""
    key: str
    """The same for every process on this machine that shares it."""
    memory_bytes: int
    threads: int
    shared: bool
    """Whether loading on it takes a lock."""


class Gpu(NamedTuple):
    number: int
    uuid: str
    memory_bytes: int


def visible_gpus() -> list[Gpu]:
    """The NVIDIA GPUs that CUDA would show this process, in its order; none where there is no driver."""
    gpus = _all_gpus()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return gpus
    found = []
    for name in filter(None, (part.strip() for part in chosen.split(","))):
        gpu = next((gpu for gpu in gpus if name == str(gpu.number) or gpu.uuid.startswith(name)), None)
        if gpu is None:
            break  # CUDA too ignores what follows a name it does not know
        found.append(gpu)
    return found


def device(settings: Settings) -> Device:
    """The device of this process: as set, else the first visible GPU, else the CPU."""
    gpus = visible_gpus() if settings.device.startswith(("auto", "cuda")) else []
    if gpus:
        at = int(settings.device.partition(":")[2] or 0)
        gpu = gpus[min(at, len(gpus) - 1)]
        return Device(f"cuda:{at}", gpu.uuid, gpu.memory_bytes, cores(), shared=True)
    name = "cpu" if settings.device == "auto" else settings.device
    return Device(name, name, _memory_bytes(), cores(), shared=False)


def batch_tokens(settings: Settings, name: str) -> int:
    """Most tokens of one pass on the device that torch calls `name`: as set, else a number that keeps it busy."""
    return settings.max_batch_tokens or (BATCH_TOKENS if name == "cpu" else WIDE_BATCH_TOKENS)


def cores() -> int:
    """The CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def boot_id() -> str:
    """Tells one run of this machine from the next: process ids begin anew with each."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def _all_gpus() -> list[Gpu]:
    if not Path("/proc/driver/nvidia").exists() and not Path("/dev/nvidiactl").exists():
        return []
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        said = subprocess.run(SMI, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.strip()]
        return [Gpu(int(index), uuid, int(memory) * MIB) for index, uuid, memory in rows]
    return []


def _memory_bytes() -> int:
    """What this process may use: the machine's memory, or less in a container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError):
            text = Path(limit).read_text().strip()
            if re.fullmatch(r"\d+", text):
                total = min(total, int(text))
    return total

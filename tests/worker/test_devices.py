"""Which device a process works on, and how much goes through it at a time."""

from pathlib import Path

import pytest

from jobs.settings import Settings
from worker import devices
from worker.devices import Gpu, batch_tokens, device, visible_gpus

CARDS = [Gpu(0, "GPU-aa", 80 * 2**30), Gpu(1, "GPU-bb", 40 * 2**30)]


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_all_gpus", lambda: CARDS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize(
    ("visible", "seen"), [("1", [1]), ("1,0", [1, 0]), ("GPU-b", [1]), ("", []), ("0,7,1", [0]), (" 0 , 1 ", [0, 1])]
)
def test_cards_are_those_that_cuda_shows(visible: str, seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert [gpu.number for gpu in visible_gpus()] == seen


@pytest.mark.usefixtures("cards")
def test_the_first_card_is_taken_unless_another_is_named(tmp_path: Path) -> None:
    first, named = (device(Settings(home=tmp_path, device=name)) for name in ("auto", "cuda:1"))

    assert (first.name, first.key, first.memory_bytes) == ("cuda:0", "GPU-aa", 80 * 2**30)
    assert (named.name, named.key, named.shared) == ("cuda:1", "GPU-bb", True)
    assert device(Settings(home=tmp_path, device="cpu")).name == "cpu"


def test_a_gpu_takes_more_tokens_at_a_time_than_a_cpu_unless_told(tmp_path: Path) -> None:
    untold, told = Settings(home=tmp_path), Settings(home=tmp_path, max_batch_tokens=100)

    assert (batch_tokens(untold, "cpu"), batch_tokens(untold, "cuda:0")) == (4096, 65_536)
    assert (batch_tokens(told, "cpu"), batch_tokens(told, "cuda:0")) == (100, 100)

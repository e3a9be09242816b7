"""Several models on one device: what they may take in all is no more than there is."""

from collections.abc import Callable

import pytest

from jobs.settings import Settings
from jobs.tasks.base import Generate, Generated, Sampling
from tests.engines.tiny import Tiny
from worker.devices import Device
from worker.engines.base import Work
from worker.residency import Residency


@pytest.mark.parametrize("names", [("qwen2", "llama", "mistral", "qwen3"), ("t5", "qwen2", "marian", "bart")])
def test_keys_and_values_count_as_memory(names: tuple[str, ...], tiny: Tiny, settings: Callable[..., Settings]) -> None:
    specs = {name: tiny(name) for name in names}
    memory = 4 * 2**20
    models = Residency(
        settings(memory_share=1.0, threads=1), Device("cpu", "cpu", memory, 1, shared=False), specs.__getitem__
    )

    for name in names:
        model = models.model(name)
        assert model is not None
        brief = Sampling(max_new_tokens=3)
        seq2seq = models.codec(name).kind == "seq2seq"
        asked = Generate(source="fox", sampling=brief) if seq2seq else Generate(prompt="fox", sampling=brief)
        model.add([Work(0, models.codec(name).encode([asked])[0])])  # type: ignore[list-item]
        assert isinstance(model.step()[0][1], Generated)

    stats = [models.get(name).stats() for name in models.names()]  # type: ignore[union-attr]
    assert sum(each["memory_bytes"] + each.get("cache_bytes", 0) for each in stats) <= memory
    assert len(stats) > 1
    models.close()

"""Layers that read the same input become one product, with the same results, or stay as they are."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.engines.tiny import Tiny
from worker.engines.torch.siblings import Sibling, fuse


def loaded(tiny: Tiny, name: str) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(tiny(name).path).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "siblings"), [("llama", 5), ("qwen2", 5), ("olmo2", 5), ("opt", 3), ("phi3", 0), ("gpt2", 0)]
)
def test_layers_that_read_the_same_become_one_product(name: str, siblings: int, tiny: Tiny) -> None:
    model, plain = loaded(tiny, name), loaded(tiny, name)
    ids = torch.randint(3, 100, (2, 9), generator=torch.Generator().manual_seed(1))

    groups = fuse(model)

    found = [module for module in model.modules() if isinstance(module, Sibling)]
    assert len(found) == 2 * siblings
    assert groups == (0 if not siblings else 4 if siblings == 5 else 2)
    wanted = plain(input_ids=ids).logits
    assert torch.allclose(model(input_ids=ids).logits, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


def test_a_model_whose_output_would_change_stays_as_it_was(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(tiny, "llama")
    before = list(map(type, model.modules()))
    whole = Sibling.forward
    monkeypatch.setattr(Sibling, "forward", lambda self, given: 1.1 * whole(self, given))

    groups = fuse(model)

    assert (groups, list(map(type, model.modules()))) == (0, before)


def test_a_module_that_is_no_language_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    assert fuse(model) == 0
    assert all(type(module) is nn.Linear for module in model)


def test_nothing_is_kept_between_passes(tiny: Tiny) -> None:
    model = loaded(tiny, "llama")
    fuse(model)

    model(input_ids=torch.tensor([[5, 6]]))

    assert all(module.siblings._given is None for module in model.modules() if isinstance(module, Sibling))

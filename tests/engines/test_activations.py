"""Activations become part of the product before them where that changes nothing, and stay where they are elsewhere."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.engines.tiny import Tiny
from worker.engines.torch import linear
from worker.engines.torch.activations import absorb
from worker.engines.torch.linear import ALONE, PackedLinear, quicken

pytestmark = pytest.mark.skipif(not linear._can_pack(torch.float32), reason="no packed linear layers on this processor")
AUTOS = {
    "bert": transformers.AutoModel,
    "distilbert": transformers.AutoModel,
    "bart": transformers.AutoModelForSeq2SeqLM,
}


@pytest.fixture(autouse=True)
def _all_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which layer is faster is measured, and says nothing here."""
    monkeypatch.setattr(linear, "_packs_faster", lambda *shape: True)


def quickened(tiny: Tiny, name: str) -> Any:
    auto = AUTOS.get(name, transformers.AutoModelForCausalLM)
    model = auto.from_pretrained(tiny(name).path).eval().requires_grad_(False)
    quicken(model, rows=(64,))
    return model


def absorbed(model: nn.Module) -> list[tuple[str, str]]:
    return [module.then for module in model.modules() if isinstance(module, PackedLinear) and module.then != ALONE]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("bert", {("gelu", "none")}),
        ("distilbert", {("gelu", "none")}),
        ("gpt2", {("gelu", "tanh")}),
        ("opt", {("relu", "")}),
        ("starcoder2", {("gelu", "tanh")}),
        ("bart", {("gelu", "none")}),
    ],
)
def test_a_layer_computes_the_activation_behind_it(name: str, how: set[tuple[str, str]], tiny: Tiny) -> None:
    model = quickened(tiny, name)
    ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    given = {"input_ids": ids} | ({"decoder_input_ids": ids[:, :4]} if name == "bart" else {})
    wanted = model(**given)[0]

    count = absorb(model)

    assert count == len(absorbed(model)) > 0
    assert set(absorbed(model)) == how
    assert torch.allclose(model(**given)[0], wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_a_gate_stays_as_it_is_because_its_layer_is_read_twice(tiny: Tiny) -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.up, self.act = nn.Embedding(9, 32), nn.Linear(32, 32), nn.GELU()

        def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor]:
            made = self.up(self.words(input_ids))
            return (self.act(made) * made,)

    torch.manual_seed(0)
    model = Gated().eval().requires_grad_(False)
    quicken(model, rows=(64,))
    wanted = model(torch.arange(8)[None])[0]

    count = absorb(model)

    assert (count, absorbed(model)) == (0, [])
    assert isinstance(model.act, nn.GELU)
    assert torch.equal(model(torch.arange(8)[None])[0], wanted)


@pytest.mark.parametrize("act", [nn.ELU(), nn.Dropout(0.5), nn.Softmax(-1)])
def test_what_no_product_can_compute_stays(act: nn.Module) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.up, self.act = nn.Embedding(9, 32), nn.Linear(32, 32), act

        def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.act(self.up(self.words(input_ids))),)

    model = Plain().eval().requires_grad_(False)
    quicken(model, rows=(64,))

    assert absorb(model) == 0
    assert model.act is act


def test_a_row_has_the_same_bits_in_every_company(tiny: Tiny) -> None:
    model = quickened(tiny, "bert")
    absorb(model)
    layer = next(module for module in model.modules() if isinstance(module, PackedLinear) and module.then != ALONE)
    given = torch.randn(200, layer.in_features, generator=torch.Generator().manual_seed(0))

    whole = layer(given)

    for low, high in ((0, 1), (3, 8), (10, 26), (0, 33), (57, 200)):
        assert torch.equal(layer(given[low:high].clone()), whole[low:high])


def test_a_model_that_cannot_be_asked_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.GELU())
    quicken(model, rows=(64,))

    assert absorb(model) == 0
    assert isinstance(model[1], nn.GELU)

"""Linear layers: the same results as torch's own, in every company, with whichever kernel is faster here."""

import logging

import pytest
import torch
import transformers
from torch import nn

from worker.engines.torch import linear
from worker.engines.torch.linear import FLOOR, FloorLinear, PackedLinear, fused, peak_gflops, quicken

SHAPES = [(32, 32), (48, 96), (64, 517), (384, 384)]
packs = pytest.mark.skipif(not linear._can_pack(torch.float32), reason="no packed linear layers on this processor")


def made(kind: type[FloorLinear], inside: int, out: int) -> FloorLinear:
    torch.manual_seed(inside + out)
    weight, bias = torch.randn(out, inside), torch.randn(out)
    return PackedLinear(weight, bias, keep=True) if kind is PackedLinear else FloorLinear(weight, bias)


@pytest.mark.parametrize("kind", [FloorLinear, pytest.param(PackedLinear, marks=packs)])
@pytest.mark.parametrize(("inside", "out"), SHAPES)
def test_results_are_those_of_torch(kind: type[FloorLinear], inside: int, out: int) -> None:
    layer = made(kind, inside, out)
    given = torch.randn(2, 30, inside)

    found = layer(given)

    assert found.shape == (2, 30, out)
    assert torch.allclose(found, nn.functional.linear(given, layer.weight, layer.bias), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [FloorLinear, pytest.param(PackedLinear, marks=packs)])
@pytest.mark.parametrize(("inside", "out"), SHAPES)
def test_a_row_has_the_same_bits_in_every_company(kind: type[FloorLinear], inside: int, out: int) -> None:
    layer = made(kind, inside, out)
    given = torch.randn(200, inside)

    whole = layer(given)

    for low, high in ((0, 1), (3, 8), (10, 10 + FLOOR), (0, 33), (57, 200)):
        assert torch.equal(layer(given[low:high].clone()), whole[low:high])


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_a_model_answers_as_before_with_every_layer_replaced(name: str) -> None:
    sizes = {"vocab_size": 99, "pad_token_id": 0}
    configs = {
        "bert": transformers.BertConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, **sizes),
        "gpt2": transformers.GPT2Config(n_embd=32, n_head=4, n_layer=2, **sizes),
        "t5": transformers.T5Config(d_model=32, d_kv=8, num_heads=4, num_layers=2, decoder_start_token_id=0, **sizes),
    }
    autos = {"bert": transformers.AutoModel, "gpt2": transformers.AutoModelForCausalLM}
    torch.manual_seed(0)
    model = autos.get(name, transformers.AutoModelForSeq2SeqLM).from_config(configs[name]).eval()
    given = {"input_ids": torch.arange(2, 26).view(2, 12)} | (
        {"labels": torch.ones(2, 3).long()} if name == "t5" else {}
    )
    answer = "last_hidden_state" if name == "bert" else "logits"

    with torch.inference_mode():
        before = model(**given)[answer]
        report = quicken(model, rows=(64,))
        after = model(**given)[answer]

    assert report.layers == sum(isinstance(each, FloorLinear) for each in model.modules()) > 5
    assert not any(type(each) in (nn.Linear, transformers.pytorch_utils.Conv1D) for each in model.modules())
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4)
    assert report.exact


@packs
def test_packed_layers_that_give_other_results_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    linear._packs_faster.cache_clear()
    monkeypatch.setattr(PackedLinear, "product", lambda self, rows: torch.zeros(len(rows), self.out_features))
    model = nn.Sequential(nn.Linear(40, 24))

    with caplog.at_level(logging.WARNING), torch.inference_mode():
        report = quicken(model, rows=(64,))

    assert report.packed == 0
    assert "40 x 24" in caplog.text
    linear._packs_faster.cache_clear()


def test_without_the_operators_the_plain_layer_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_can_pack", lambda dtype: False)
    linear._packs_faster.cache_clear()
    model = nn.Sequential(nn.Linear(24, 40))

    with torch.inference_mode():
        report = quicken(model, rows=(64,))

    assert (report.layers, report.packed) == (1, 0)
    linear._packs_faster.cache_clear()


def test_layers_with_the_same_input_become_one() -> None:
    left, right = nn.Linear(8, 4), nn.Linear(8, 6)
    given = torch.randn(20, 8)

    weight, bias = fused([left, right])

    with torch.inference_mode():
        assert torch.allclose(FloorLinear(weight, bias)(given), torch.cat([left(given), right(given)], 1), atol=1e-6)


def test_layers_of_which_some_have_a_bias_are_not_fused() -> None:
    with pytest.raises(ValueError, match="bias"):
        fused([nn.Linear(8, 4), nn.Linear(8, 6, bias=False)])


def test_the_peak_is_that_of_a_real_product() -> None:
    assert peak_gflops(rows=64, inside=64, out=64) > 0

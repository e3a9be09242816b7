"""A GGUF file becomes a folder in which Transformers computes the same and splits text the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from jobs.errors import InvalidModel
from worker.gguf import convert

WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"0123456789abcdehlmo", "Ġ", "he", "ll"]
MERGES = ["h e", "l l"]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"

GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture
def converted(tmp_path: Path) -> tuple[LlamaForCausalLM, Path]:
    """A small model, and the folder that its GGUF file was turned into, at full precision."""
    model = _llama()
    _gguf(tmp_path / "tiny.gguf", model)
    folder = tmp_path / "out"
    folder.mkdir()
    convert(tmp_path / "tiny.gguf", folder, dtype="float32")
    return model, folder


def test_the_converted_model_computes_exactly_the_same(converted: tuple[LlamaForCausalLM, Path]) -> None:
    model, folder = converted
    ids = torch.tensor([[1, 5, 9, 20, 4, 2, 13, 7, 7, 8]])

    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert loaded.generation_config.eos_token_id == 2


def test_half_precision_is_the_default_and_stays_close(tmp_path: Path) -> None:
    model = _llama()
    _gguf(tmp_path / "tiny.gguf", model)
    folder = tmp_path / "out"
    folder.mkdir()

    convert(tmp_path / "tiny.gguf", folder)

    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for (name, mine), theirs in zip(loaded.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6, msg=name)


def test_the_tokenizer_merges_splits_digits_and_adds_nothing(converted: tuple[LlamaForCausalLM, Path]) -> None:
    _, folder = converted

    tokenizer = AutoTokenizer.from_pretrained(folder)

    assert tokenizer.tokenize("hello 42") == ["he", "ll", "o", "Ġ", "4", "2"]
    assert tokenizer("he<|im_end|>").input_ids == [WORDS.index("he"), 2]
    assert tokenizer.decode(tokenizer("hello 42").input_ids) == "hello 42"
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (2, 1, 2)


def test_the_chat_template_comes_along(converted: tuple[LlamaForCausalLM, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted[1])

    text = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)

    assert text == "<|im_start|>hello<|im_end|>"


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    _gguf(tmp_path / "tiny.gguf", _llama(), pre="llama-bpe")

    with pytest.raises(InvalidModel, match=r"tokenizer\.ggml\.pre is 'llama-bpe'; only 'smollm' can be converted"):
        convert(tmp_path / "tiny.gguf", tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model at all, but long enough to have a header")

    with pytest.raises(InvalidModel, match="is not a GGUF file"):
        convert(tmp_path / "x.gguf", tmp_path)


def _llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
    )
    torch.manual_seed(7)
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def _gguf(path: Path, model: LlamaForCausalLM, pre: str = "smollm") -> None:
    """The model as llama.cpp's converter writes it, rotary rows interleaved."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(100_000.0)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3] + [1] * (len(WORDS) - 3))
    writer.add_token_merges(MERGES)
    for add, token in ((writer.add_bos_token_id, 1), (writer.add_eos_token_id, 2)):
        add(token)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weight in _renamed(model):
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _renamed(model: LlamaForCausalLM) -> list[tuple[str, NDArray[Any]]]:
    found = []
    for name, parameter in model.named_parameters():
        weight = parameter.detach().numpy()
        for theirs, ours in GGUF_NAMES.items():
            name = name.replace(theirs, ours)
        if "attn_q" in name or "attn_k" in name:
            heads = 4 if "attn_q" in name else 2
            weight = weight.reshape(heads, 2, 4, 32).swapaxes(1, 2).reshape(weight.shape)
        found.append((name, np.ascontiguousarray(weight)))
    return found

"""Turns a Llama-style GGUF file into a folder that Transformers loads: config, tokenizer and safetensors weights."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.errors import InvalidModel

_SPECIAL = 3
"""GGUF's token type for control tokens."""

_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names within one layer: GGUF's, Transformers'."""

_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def convert(source: Path, folder: Path, *, dtype: str = "float16") -> None:
    """Write the model of `source` into the existing, empty `folder`, with weights stored as `dtype`.

    Raises InvalidModel for a file that is not GGUF, another architecture than Llama, or another tokenizer than
    SmolLM's (byte-level BPE with single digits): a guess there would give wrong tokens without an error.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(source)
    except (ValueError, IndexError) as error:
        raise InvalidModel(f"{source} is not a GGUF file that can be read: {error}") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    _check(fields, source)
    config = _config(fields, tied=not any(tensor.name == "output.weight" for tensor in reader.tensors), dtype=dtype)
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {key: config[key] for key in _TOKEN_IDS})
    _write(folder / "tokenizer.json", _tokenizer(fields))
    _write(folder / "tokenizer_config.json", _tokenizer_config(fields))
    _save_weights(reader, config, folder / "model.safetensors", dtype)


def _check(fields: dict[str, Any], source: Path) -> None:
    asked = {"general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"}
    for name, wanted in asked.items():
        if fields.get(name) != wanted:
            raise InvalidModel(f"{source}: {name} is {fields.get(name)!r}; only {wanted!r} can be converted")


_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _config(fields: dict[str, Any], *, tied: bool, dtype: str) -> dict[str, Any]:
    width, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
        "head_dim": fields.get("llama.rope.dimension_count", width // heads),
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": _decimal(fields["llama.attention.layer_norm_rms_epsilon"]),
        "rope_parameters": {"rope_type": "default", "rope_theta": _decimal(fields["llama.rope.freq_base"])},
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
        "dtype": dtype,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _decimal(value: float) -> float:
    """The short decimal behind a float32: 1e-05, not 9.999999747378752e-06."""
    return float(f"{value:.6g}")


def _tokenizer(fields: dict[str, Any]) -> dict[str, Any]:
    """The `tokenizers` library's own file; Llama's pre-tokenizer would not split digits as `smollm` does."""
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [index for index, kind in enumerate(kinds) if kind == _SPECIAL]
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": tokens[index], **flags} for index in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(fields: dict[str, Any]) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    roles = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return {
        # The named classes of Transformers 5 rebuild their own pre-tokenizer; this one takes tokenizer.json as it is.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        **{role: tokens[fields[f"tokenizer.ggml.{name}_token_id"]] for role, name in roles.items()},
        "chat_template": fields["tokenizer.chat_template"],
    }


def _save_weights(reader: Any, config: dict[str, Any], path: Path, dtype: str) -> None:
    from safetensors.numpy import save_file

    save_file(dict(_weights(reader, config, dtype)), path, metadata={"format": "pt"})
    path.chmod((path.parent / "config.json").stat().st_mode)  # safetensors 0.8 leaves it to its owner alone


def _weights(reader: Any, config: dict[str, Any], dtype: str) -> Iterator[tuple[str, Any]]:
    import numpy as np
    from gguf import dequantize

    for tensor in reader.tensors:
        name = _name(tensor.name)
        weight = dequantize(tensor.data, tensor.tensor_type)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            weight = _unpermute(weight, heads)
        yield name, np.ascontiguousarray(weight.astype(dtype))


def _name(gguf_name: str) -> str:
    if gguf_name in _WHOLE:
        return _WHOLE[gguf_name]
    parts = gguf_name.split(".")
    if len(parts) != 4 or parts[0] != "blk" or parts[2] not in _TENSORS:
        raise InvalidModel(f"the GGUF file holds a tensor {gguf_name!r} that a Llama model does not have")
    return f"model.layers.{parts[1]}.{_TENSORS[parts[2]]}.weight"


def _unpermute(weight: Any, heads: int) -> Any:
    """Rotary pairs from neighbours (as llama.cpp keeps them) back to halves (as Transformers does)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

"""Tiny models with random weights, one of each architecture: real configurations, tokenizers and safetensors folders.

Weights are drawn wide (a standard deviation of 0.5 to 1) so that different inputs give plainly different outputs.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers import models, trainers

from jobs.models import ModelSpec
from tests.engines.vocabularies import byte_bpe, metaspace_bpe, pieces, trained, unigram, wordpiece

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
POSITIONS = 64
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
STACKS = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
STACKS |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}


class Tiny:
    """Builds each model once, below one folder: `Tiny(folder)("bert")` is its registry entry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._specs: dict[str, ModelSpec] = {}

    def __call__(self, name: str, **changes: Any) -> ModelSpec:
        if name not in self._specs:
            folder = self._folder / name
            folder.mkdir()
            torch.manual_seed(zlib.crc32(name.encode()))
            self._specs[name] = BUILDERS[name](name, folder)
        return self._specs[name].model_copy(update=changes)

    def copy(self, name: str, to: Path) -> ModelSpec:
        """The model in a folder of its own, to be spoilt."""
        source = Path(self(name).path)
        to.mkdir(parents=True, exist_ok=True)
        for file in source.rglob("*"):
            target = to / file.relative_to(source)
            if file.is_dir():
                target.mkdir(exist_ok=True)
            else:
                target.write_bytes(file.read_bytes())
        return self(name, path=str(to))


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


# ----- encoders ------------------------------------------------------------------------------------------


def _bert(name: str, folder: Path) -> ModelSpec:
    tokenizer = wordpiece(folder)
    config = transformers.BertConfig(**SIZES, **_common(tokenizer), num_labels=3)
    return _classifier(name, folder, transformers.BertForSequenceClassification(_labelled(config)))


def _relevance(name: str, folder: Path) -> ModelSpec:
    """A cross-encoder: how well a document answers a query, as one logit."""
    tokenizer = wordpiece(folder)
    config = transformers.BertConfig(**SIZES, **_common(tokenizer), num_labels=1)
    return _classifier(name, folder, transformers.BertForSequenceClassification(config))


def _distilbert(name: str, folder: Path) -> ModelSpec:
    tokenizer = wordpiece(folder, types=False)
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    config = transformers.DistilBertConfig(**sizes, **_common(tokenizer), num_labels=3)
    return _classifier(name, folder, transformers.DistilBertForSequenceClassification(_labelled(config)))


def _roberta(name: str, folder: Path) -> ModelSpec:
    tokenizer = byte_bpe(folder, frame=True)
    common = {**_common(tokenizer), "max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1}
    config = transformers.RobertaConfig(**SIZES, **common, num_labels=3)
    return _classifier(name, folder, transformers.RobertaForSequenceClassification(_labelled(config)))


def _xlm_roberta(name: str, folder: Path) -> ModelSpec:
    tokenizer = transformers.XLMRobertaTokenizer(vocab=unigram(["<s>", "<pad>", "</s>", "<unk>"], last=["<mask>"]))
    tokenizer.save_pretrained(folder)
    common = {**_common(tokenizer), "max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1}
    config = transformers.XLMRobertaConfig(**SIZES, **common, num_labels=2, problem_type="multi_label_classification")
    return _classifier(name, folder, transformers.XLMRobertaForSequenceClassification(config))


def _albert(name: str, folder: Path) -> ModelSpec:
    tokenizer = wordpiece(folder)
    config = transformers.AlbertConfig(**SIZES, embedding_size=16, **_common(tokenizer), num_labels=3)
    return _classifier(name, folder, transformers.AlbertForSequenceClassification(_labelled(config)))


def _electra(name: str, folder: Path) -> ModelSpec:
    tokenizer = wordpiece(folder)
    config = transformers.ElectraConfig(**SIZES, embedding_size=16, **_common(tokenizer), num_labels=3)
    return _classifier(name, folder, transformers.ElectraForSequenceClassification(_labelled(config)))


def _modernbert(name: str, folder: Path, pooling: str = "cls") -> ModelSpec:
    """With a window of 8 tokens in its first layer and the whole text in its second."""
    tokenizer = wordpiece(folder, types=False)
    ends = {"pad_token_id": tokenizer.pad_token_id, "cls_token_id": 2, "sep_token_id": 3}
    sizes = {"local_attention": 8, "layer_types": ["sliding_attention", "full_attention"]}
    config = transformers.ModernBertConfig(
        **SIZES, **_common(tokenizer), **ends, **sizes, num_labels=3, classifier_pooling=pooling
    )
    return _classifier(name, folder, transformers.ModernBertForSequenceClassification(_labelled(config)))


def _modernbert_mean(name: str, folder: Path) -> ModelSpec:
    return _modernbert(name, folder, "mean")


def _mpnet(name: str, folder: Path) -> ModelSpec:
    tokenizer = byte_bpe(folder, frame=True)
    common = {**_common(tokenizer), "max_position_embeddings": POSITIONS + 2}
    config = transformers.MPNetConfig(**SIZES, **common, num_labels=3)
    return _classifier(name, folder, transformers.MPNetForSequenceClassification(_labelled(config)))


def _deberta(name: str, folder: Path) -> ModelSpec:
    tokenizer = wordpiece(folder)
    kinds = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 2}
    config = transformers.DebertaV2Config(**SIZES, **_common(tokenizer), **kinds, num_labels=3)
    return _classifier(name, folder, transformers.DebertaV2ForSequenceClassification(_labelled(config)))


def _convbert(name: str, folder: Path) -> ModelSpec:
    """Convolves over its neighbours, padding among them."""
    tokenizer = wordpiece(folder)
    sizes = {"embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 2, "num_groups": 1}
    config = transformers.ConvBertConfig(**SIZES, **_common(tokenizer), **sizes, num_labels=3)
    return _classifier(name, folder, transformers.ConvBertForSequenceClassification(_labelled(config)))


def _fnet(name: str, folder: Path) -> ModelSpec:
    """Without attention: a Fourier transform over all tokens, padding among them."""
    tokenizer = wordpiece(folder)
    config = transformers.FNetConfig(**SIZES, **_common(tokenizer), num_labels=3)
    return _classifier(name, folder, transformers.FNetForSequenceClassification(_labelled(config)))


def _t5_encoder(name: str, folder: Path) -> ModelSpec:
    """An embedding model on the encoder of an encoder-decoder."""
    return _t5(name, folder).model_copy(update={"kind": "encoder", "tasks": ("embed",), "head": "embed"})


def _embedder(name: str, folder: Path) -> ModelSpec:
    tokenizer = wordpiece(folder)
    _save(transformers.BertModel(transformers.BertConfig(**SIZES, **_common(tokenizer))), folder)
    return ModelSpec(name=name, path=str(folder), kind="encoder", tasks=("embed",), head="embed")


def _sentences(name: str, folder: Path) -> ModelSpec:
    """As sentence-transformers writes them: CLS pooling, at most 24 tokens."""
    spec = _embedder(name, folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    return spec


# ----- decoders ------------------------------------------------------------------------------------------


def _llama(name: str, folder: Path) -> ModelSpec:
    tokenizer = metaspace_bpe(folder)
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, **_common(tokenizer), **_ends(tokenizer))
    return _decoder(name, folder, transformers.LlamaForCausalLM(config))


def _gpt2(name: str, folder: Path) -> ModelSpec:
    tokenizer = byte_bpe(folder, end="<|endoftext|>")
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
    config = transformers.GPT2Config(**sizes, vocab_size=len(tokenizer), **_ends(tokenizer))
    return _decoder(name, folder, transformers.GPT2LMHeadModel(config))


def _qwen2(name: str, folder: Path) -> ModelSpec:
    tokenizer = byte_bpe(folder, end="<|im_end|>", more=["<|im_start|>"], template=CHATML)
    common = {**_common(tokenizer), "max_position_embeddings": 4 * POSITIONS}
    config = transformers.Qwen2Config(**SIZES, num_key_value_heads=2, **common, **_ends(tokenizer))
    return _decoder(name, folder, transformers.Qwen2ForCausalLM(config))


def _in_family(config: str, model: str, **changes: Any) -> Callable[[str, Path], ModelSpec]:
    """A builder for one of the many that take the same sizes as Llama."""

    def build(name: str, folder: Path) -> ModelSpec:
        tokenizer = metaspace_bpe(folder)
        given = {**SIZES, **_common(tokenizer), **_ends(tokenizer), **changes}
        return _decoder(name, folder, getattr(transformers, model)(getattr(transformers, config)(**given)))

    return build


LAYER_KINDS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "head_dim": 8}
SHARING = {"num_key_value_heads": 2}
GEMMA = {"query_pre_attn_scalar": 8, "tie_word_embeddings": False}
WHOLE_VECTORS = {"intermediate_size": 64}
"""AVX512 takes 32 numbers at once, and torch 2.13 computes the rest of a pass by another tanh: with a width of 48 it
depends on a row's neighbours which of its numbers are rest. Real widths have none."""
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "initial_context_length": POSITIONS}
IN_FAMILY: dict[str, Callable[[str, Path], ModelSpec]] = {
    "qwen3": _in_family("Qwen3Config", "Qwen3ForCausalLM", head_dim=16, **SHARING),
    "mistral": _in_family("MistralConfig", "MistralForCausalLM", sliding_window=8, **SHARING),
    "gemma2": _in_family("Gemma2Config", "Gemma2ForCausalLM", **LAYER_KINDS, **SHARING, **GEMMA),
    "gemma3": _in_family("Gemma3TextConfig", "Gemma3ForCausalLM", **LAYER_KINDS, **SHARING, **GEMMA),
    "phi3": _in_family("Phi3Config", "Phi3ForCausalLM", **SHARING),
    "gpt-neox": _in_family("GPTNeoXConfig", "GPTNeoXForCausalLM"),
    "olmo2": _in_family("Olmo2Config", "Olmo2ForCausalLM", **SHARING),
    "granite": _in_family("GraniteConfig", "GraniteForCausalLM", **SHARING, attention_multiplier=0.2),
    "cohere": _in_family("CohereConfig", "CohereForCausalLM", **SHARING),
    "starcoder2": _in_family("Starcoder2Config", "Starcoder2ForCausalLM", **SHARING, **WHOLE_VECTORS),
    "gpt-oss": _in_family("GptOssConfig", "GptOssForCausalLM", **LAYER_KINDS, **SHARING, **EXPERTS),
    "gptj": _in_family("GPTJConfig", "GPTJForCausalLM", n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_inner=48),
    "bloom": _in_family("BloomConfig", "BloomForCausalLM", n_layer=2, n_head=4),
}


def _opt(name: str, folder: Path) -> ModelSpec:
    tokenizer = metaspace_bpe(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
    config = transformers.OPTConfig(**sizes, word_embed_proj_dim=32, **_common(tokenizer), **_ends(tokenizer))
    return _decoder(name, folder, transformers.OPTForCausalLM(config))


# ----- encoder-decoders ----------------------------------------------------------------------------------


def _bart(name: str, folder: Path) -> ModelSpec:
    tokenizer = byte_bpe(folder, frame=True)
    config = transformers.BartConfig(
        **STACKS, **_common(tokenizer), **_ends(tokenizer), decoder_start_token_id=2, forced_eos_token_id=2
    )
    model = transformers.BartForConditionalGeneration(config)
    model.generation_config.update(num_beams=2, min_length=3, max_length=20, no_repeat_ngram_size=3)
    return _seq2seq(name, folder, model)


def _bart_classifier(name: str, folder: Path) -> ModelSpec:
    tokenizer = byte_bpe(folder, frame=True)
    ends = {"decoder_start_token_id": 2, "forced_eos_token_id": 2}
    config = transformers.BartConfig(**STACKS, **_common(tokenizer), **_ends(tokenizer), **ends, num_labels=3)
    return _classifier(name, folder, transformers.BartForSequenceClassification(_labelled(config)))


def _blenderbot(name: str, folder: Path) -> ModelSpec:
    tokenizer = byte_bpe(folder, frame=True)
    ends = {"decoder_start_token_id": 0, "forced_eos_token_id": 2}
    config = transformers.BlenderbotConfig(**STACKS, **_common(tokenizer), **_ends(tokenizer), **ends)
    model = transformers.BlenderbotForConditionalGeneration(config)
    model.generation_config.update(encoder_no_repeat_ngram_size=0)  # 3 by default, which `generate()` alone knows
    return _seq2seq(name, folder, model)


def _led(name: str, folder: Path) -> ModelSpec:
    """Attention of its own kind, which only `generate()` can drive."""
    tokenizer = byte_bpe(folder, frame=True)
    common = {"vocab_size": len(tokenizer), "attention_window": 8, "decoder_start_token_id": 2}
    reach = {"max_encoder_position_embeddings": POSITIONS, "max_decoder_position_embeddings": POSITIONS}
    config = transformers.LEDConfig(**STACKS, **common, **reach, **_ends(tokenizer))
    return _seq2seq(name, folder, transformers.LEDForConditionalGeneration(config))


def _mt5(name: str, folder: Path) -> ModelSpec:
    """As mT5 is: gated layers, an output layer of its own."""
    vocabulary = unigram(["<pad>", "</s>", "<unk>"], last=[f"<extra_id_{at}>" for at in range(9, -1, -1)])
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=10)
    tokenizer.save_pretrained(folder)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    ends = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    config = transformers.MT5Config(**sizes, **ends, vocab_size=len(tokenizer))
    return _seq2seq(name, folder, transformers.MT5ForConditionalGeneration(config))


def _t5(name: str, folder: Path) -> ModelSpec:
    vocabulary = unigram(["<pad>", "</s>", "<unk>"], last=[f"<extra_id_{at}>" for at in range(9, -1, -1)])
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=10)
    tokenizer.save_pretrained(folder)
    config = transformers.T5Config(
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        vocab_size=len(tokenizer),
        pad_token_id=0,
        eos_token_id=1,
        task_specific_params={
            "summarization": {"prefix": "summarize: ", "num_beams": 4},
            "translation_en_to_de": {"prefix": "translate English to German: "},
        },
    )
    return _seq2seq(name, folder, transformers.T5ForConditionalGeneration(config))


def _pegasus(name: str, folder: Path) -> ModelSpec:
    vocabulary = unigram(["<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{at}>" for at in range(2, 5)), "<unk>"])
    tokenizer = transformers.PegasusTokenizer(vocab=vocabulary, offset=5)
    tokenizer.save_pretrained(folder)
    ends = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1}
    config = transformers.PegasusConfig(**STACKS, vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, **ends)
    return _seq2seq(name, folder, transformers.PegasusForConditionalGeneration(config))


def _marian(name: str, folder: Path, *targets: str) -> ModelSpec:
    model_file = pieces()
    (folder / "source.spm").write_bytes(model_file)
    (folder / "target.spm").write_bytes(model_file)
    loaded = sentencepiece.SentencePieceProcessor(model_proto=model_file)
    words = [loaded.id_to_piece(at) for at in range(loaded.get_piece_size())]
    known = [
        "</s>",
        "<unk>",
        *(f">>{each}<<" for each in targets),
        *(w for w in words if w not in ("<unk>", "<s>", "</s>")),
    ]
    vocabulary = {word: at for at, word in enumerate([*known, "<pad>"])}
    write_json(folder / "vocab.json", vocabulary)
    said = {"source_lang": "en", "target_lang": "mul" if targets else "de", "tokenizer_class": "MarianTokenizer"}
    write_json(folder / "tokenizer_config.json", {**said, "model_max_length": 512, "separate_vocabs": False})
    pad = vocabulary["<pad>"]
    ends = {"pad_token_id": pad, "eos_token_id": 0, "decoder_start_token_id": pad, "forced_eos_token_id": 0}
    sizes = {"vocab_size": len(vocabulary), "max_position_embeddings": POSITIONS}
    config = transformers.MarianConfig(**STACKS, **sizes, **ends, tie_word_embeddings=False)
    model = transformers.MarianMTModel(config)
    model.generation_config.update(num_beams=2, bad_words_ids=[[pad]], max_length=24)
    return _seq2seq(name, folder, model)


def _marian_multi(name: str, folder: Path) -> ModelSpec:
    return _marian(name, folder, "fra", "deu")


def _marian_brief(name: str, folder: Path) -> ModelSpec:
    """Ends its texts readily, at different lengths: random weights hardly ever do."""
    spec = _marian(name, folder)
    model = transformers.MarianMTModel.from_pretrained(folder, dtype=torch.float32)
    model.final_logits_bias[0, 0] = 11.0
    model.generation_config.update(num_beams=1, max_length=30, no_repeat_ngram_size=2)
    model.save_pretrained(folder)
    return spec


def _m2m100(name: str, folder: Path) -> ModelSpec:
    model_file = pieces()
    (folder / "sentencepiece.bpe.model").write_bytes(model_file)
    loaded = sentencepiece.SentencePieceProcessor(model_proto=model_file)
    words = [loaded.id_to_piece(at) for at in range(loaded.get_piece_size())]
    known = ["<s>", "<pad>", "</s>", "<unk>", *(w for w in words if w not in ("<unk>", "<s>", "</s>"))]
    write_json(folder / "vocab.json", {word: at for at, word in enumerate(known)})
    said = {"src_lang": "en", "tgt_lang": "de", "language_codes": "m2m100", "num_madeup_words": 0}
    write_json(folder / "tokenizer_config.json", {**said, "tokenizer_class": "M2M100Tokenizer"})
    return _multilingual(name, folder, len(known) + 100)


def _nllb(name: str, folder: Path) -> ModelSpec:
    codes = ["eng_Latn", "deu_Latn", "kor_Hang", "zho_Hans", "zho_Hant", "arb_Arab"]
    base = trained(models.BPE(unk_token="<unk>"), trainers.BpeTrainer, ["<s>", "<pad>", "</s>", "<unk>"], space=True)
    parts = json.loads(base.to_str())["model"]
    merges = [tuple(pair) for pair in parts["merges"]]
    tokenizer = transformers.NllbTokenizer(
        vocab=parts["vocab"], merges=merges, src_lang="eng_Latn", tgt_lang="deu_Latn", extra_special_tokens=codes
    )
    tokenizer.save_pretrained(folder)
    return _multilingual(name, folder, len(tokenizer))


def _mbart(name: str, folder: Path) -> ModelSpec:
    from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES as CODES

    vocabulary = unigram(["<s>", "<pad>", "</s>", "<unk>"], last=[*CODES, "<mask>"])
    tokenizer = transformers.MBartTokenizer(vocab=vocabulary, src_lang="en_XX", tgt_lang="ro_RO")
    return _mbart_model(name, folder, tokenizer, decoder_start_token_id=tokenizer.convert_tokens_to_ids("ro_RO"))


def _mbart50(name: str, folder: Path) -> ModelSpec:
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as CODES

    vocabulary = unigram(["<s>", "<pad>", "</s>", "<unk>"], last=[*CODES, "<mask>"])
    tokenizer = transformers.MBart50Tokenizer(vocab=vocabulary, src_lang="en_XX", tgt_lang="ro_RO")
    return _mbart_model(name, folder, tokenizer, decoder_start_token_id=2)


def _mbart_model(name: str, folder: Path, tokenizer: Any, **ends: int) -> ModelSpec:
    tokenizer.save_pretrained(folder)
    config = transformers.MBartConfig(
        **STACKS, **_common(tokenizer), pad_token_id=1, eos_token_id=2, forced_eos_token_id=2, **ends
    )
    return _seq2seq(name, folder, transformers.MBartForConditionalGeneration(config))


def _multilingual(name: str, folder: Path, words: int) -> ModelSpec:
    ends = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = transformers.M2M100Config(**STACKS, vocab_size=words, max_position_embeddings=POSITIONS, **ends)
    return _seq2seq(name, folder, transformers.M2M100ForConditionalGeneration(config))


BUILDERS: dict[str, Callable[[str, Path], ModelSpec]] = {
    "bert": _bert,
    "relevance": _relevance,
    "distilbert": _distilbert,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
    "albert": _albert,
    "electra": _electra,
    "modernbert": _modernbert,
    "modernbert-mean": _modernbert_mean,
    "mpnet": _mpnet,
    "deberta": _deberta,
    "convbert": _convbert,
    "fnet": _fnet,
    "t5-encoder": _t5_encoder,
    "embedder": _embedder,
    "sentences": _sentences,
    "llama": _llama,
    "gpt2": _gpt2,
    "qwen2": _qwen2,
    **IN_FAMILY,
    "opt": _opt,
    "bart": _bart,
    "bart-classifier": _bart_classifier,
    "t5": _t5,
    "mt5": _mt5,
    "blenderbot": _blenderbot,
    "led": _led,
    "pegasus": _pegasus,
    "marian": _marian,
    "marian-multi": _marian_multi,
    "marian-brief": _marian_brief,
    "m2m100": _m2m100,
    "nllb": _nllb,
    "mbart": _mbart,
    "mbart50": _mbart50,
}
CLASSIFIERS = ("bert", "distilbert", "roberta", "xlm-roberta", "albert", "electra", "modernbert", "modernbert-mean")
CLASSIFIERS += ("mpnet", "deberta")
LOOPED = ("llama", "gpt2", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "gpt-neox", "opt", "olmo2")
LOOPED += ("granite", "cohere", "starcoder2", "gpt-oss")
UNLOOPED = ("bloom", "gptj")
DECODERS = (*LOOPED, *UNLOOPED)
SEQ2SEQ = ("bart", "t5", "pegasus", "marian", "marian-multi", "m2m100", "nllb", "mbart", "mbart50", "mt5", "blenderbot")

# ----- parts ---------------------------------------------------------------------------------------------


def _common(tokenizer: Any) -> dict[str, Any]:
    return {"vocab_size": len(tokenizer), "max_position_embeddings": POSITIONS}


def _ends(tokenizer: Any) -> dict[str, Any]:
    ends = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    return {f"{name}_token_id": number for name, number in ends.items()}


def _labelled(config: Any) -> Any:
    config.id2label = {0: "NEGATIVE", 1: "NEUTRAL", 2: "POSITIVE"}
    return config


def _classifier(name: str, folder: Path, model: Any) -> ModelSpec:
    _save(model, folder)
    return ModelSpec(name=name, path=str(folder), kind="encoder", tasks=("classify",), head="classify")


def _decoder(name: str, folder: Path, model: Any) -> ModelSpec:
    _save(model, folder)
    return ModelSpec(name=name, path=str(folder), kind="causal", tasks=("generate",), head="generate")


def _seq2seq(name: str, folder: Path, model: Any) -> ModelSpec:
    _save(model, folder)
    return ModelSpec(name=name, path=str(folder), kind="seq2seq", tasks=("summarize", "translate"), head="generate")


def _save(model: Any, folder: Path) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.5 if "embed" in name or "shared" in name else 1.0)
        if model.config.model_type == "marian":  # whose decoder starts from a token of zeros
            for stack in (model.get_encoder(), model.get_decoder()):
                stack.embed_tokens.weight[model.config.pad_token_id] = 0.0
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)

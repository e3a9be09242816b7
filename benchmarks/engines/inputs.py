"""What the engines are measured on: models with random weights in real sizes, and texts of known lengths."""

import json
import random
from pathlib import Path
from typing import Any

from jobs.models import ModelSpec

VOCABULARY = 30_522
LABELS = {0: "NEGATIVE", 1: "NEUTRAL", 2: "POSITIVE"}
TOKEN_LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
MINILM: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FRAME = 2
"""Tokens that BERT-like models put around a text."""
SHORTEST, LONGEST = 5, 400
UNIFORM = 64


def skewed(n: int, *, seed: int = 0) -> list[int]:
    """Log-normal lengths in tokens: most texts are short, a few are long."""
    draw = random.Random(seed)
    return [min(LONGEST, max(SHORTEST, round(draw.lognormvariate(3.6, 0.9)))) for _ in range(n)]


def uniform(n: int, *, length: int = UNIFORM) -> list[int]:
    return [length] * n


def texts(lengths: list[int], *, seed: int = 0) -> list[str]:
    """Texts of so many tokens each, frame included, of the words that every model here knows."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=max(1, length - FRAME))) for length in lengths]


WORDS = tuple(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))


def minilm(folder: Path) -> ModelSpec:
    """A BERT of MiniLM's size (6 layers of 384) with a classification head."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {**MINILM, "position_embedding_type": "absolute"}  # what CTranslate2's converter asks for (4.8)
    return _classifier("minilm", folder, BertForSequenceClassification, BertConfig(**sizes, **_common()))


def distilbert(folder: Path) -> ModelSpec:
    """DistilBERT's own size (6 layers of 768) with a classification head."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return _classifier("distilbert", folder, DistilBertForSequenceClassification, DistilBertConfig(**_common()))


def tagger(folder: Path) -> ModelSpec:
    """A BERT of MiniLM's size that labels tokens."""
    from transformers import BertConfig, BertForTokenClassification

    config = BertConfig(**MINILM, **_common(dict(enumerate(TOKEN_LABELS))))
    spec = _classifier("tagger", folder, BertForTokenClassification, config)
    return spec.model_copy(update={"head": "label", "tasks": ("ner",)})


def inference(folder: Path) -> ModelSpec:
    """A BERT of MiniLM's size that tells what follows from a text."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(**MINILM, **_common({0: "entailment", 1: "neutral", 2: "contradiction"}))
    return _classifier("inference", folder, BertForSequenceClassification, config)


def _common(labels: dict[int, str] = LABELS) -> dict[str, Any]:
    names = {"id2label": labels, "label2id": {name: at for at, name in labels.items()}}
    return {"vocab_size": VOCABULARY, "initializer_range": 0.05, **names}


def _classifier(name: str, folder: Path, kind: Any, config: Any) -> ModelSpec:
    import torch
    from transformers import BertTokenizerFast, DistilBertTokenizerFast

    path = folder / name
    path.mkdir()
    vocabulary = path / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL, *WORDS]), encoding="utf-8")
    tokenizer = DistilBertTokenizerFast if name == "distilbert" else BertTokenizerFast
    tokenizer(vocab=str(vocabulary), model_max_length=512).save_pretrained(path)
    torch.manual_seed(0)
    kind(config).eval().save_pretrained(path)
    return ModelSpec(name=name, path=str(path), kind="encoder", tasks=("classify",), head="classify")


def numbers_of(spec: ModelSpec) -> dict[str, Any]:
    """The model's configuration as its file has it."""
    return dict(json.loads((Path(spec.path) / "config.json").read_text(encoding="utf-8")))


# ----- models that generate ------------------------------------------------------------------------------

SHARED = 58
"""Tokens of the instruction that all prompts begin with."""
OWN = 48
"""Tokens of a prompt's own part, on average."""


def smollm2(folder: Path) -> ModelSpec:
    """A Llama of SmolLM2-135M's size (30 layers of 576, 9 heads, 3 of them for keys and values)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    sizes |= {"intermediate_size": 1536, "vocab_size": 49_152, "max_position_embeddings": 2048}
    config = LlamaConfig(**sizes, tie_word_embeddings=True, initializer_range=0.04, **_ends())
    return _generator("smollm2", folder, LlamaForCausalLM, config, kind="causal")


def marian(folder: Path) -> ModelSpec:
    """An opus-mt Marian (6 + 6 layers of 512, 58,101 words)."""
    from transformers import MarianConfig, MarianMTModel

    stacks = {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 2048}
    stacks |= {"decoder_ffn_dim": 2048, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
    config = MarianConfig(
        **stacks,
        vocab_size=58_101,
        max_position_embeddings=512,
        scale_embedding=True,
        init_std=0.04,
        decoder_start_token_id=58_100,
        forced_eos_token_id=None,
        **_ends() | {"pad_token_id": 58_100},
    )
    return _generator("marian", folder, MarianMTModel, config, kind="seq2seq")


def t5(folder: Path) -> ModelSpec:
    """T5-small (6 + 6 layers of 512)."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        vocab_size=32_128,
        decoder_start_token_id=0,
        initializer_factor=2.0,
        **_ends(),
    )
    return _generator("t5", folder, T5ForConditionalGeneration, config, kind="seq2seq")


def prompts(n: int, *, own: list[int], seed: int = 0) -> list[str]:
    """Prompts of one shared instruction and a part of their own."""
    draw = random.Random(seed)
    instruction = " ".join(draw.choices(WORDS[:20_000], k=SHARED))
    return [f"{instruction} " + " ".join(draw.choices(WORDS[:20_000], k=length)) for length in own[:n]]


def sources(lengths: list[int], *, seed: int = 0) -> list[str]:
    """Texts of so many tokens for encoder-decoders, whose tokenizer here adds one end token."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS[:20_000], k=max(1, length - 1))) for length in lengths]


def answers(n: int, *, step: int = 1, longest: int = 68, seed: int = 1) -> list[int]:
    """How many tokens each answer has, about 29 on average: forced, alike for every way. `step`: their common
    divisor."""
    draw = random.Random(seed)
    drawn = (min(longest, max(4, round(draw.lognormvariate(3.2, 0.55)))) for _ in range(n))
    return [max(step, round(each / step) * step) for each in drawn]


def _ends() -> dict[str, Any]:
    return {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _generator(name: str, folder: Path, kind_of_model: Any, config: Any, *, kind: Any) -> ModelSpec:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    path = folder / name
    path.mkdir()
    words = ["<none>", "<s>", "</s>", "<unk>", *WORDS]
    words += [f"x{number}" for number in range(config.vocab_size - len(words))]
    words[config.pad_token_id] = "<pad>"
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words[: config.vocab_size])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if kind == "seq2seq":
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A $B </s>", [("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special).save_pretrained(path)
    torch.manual_seed(0)
    kind_of_model(config).eval().save_pretrained(path)
    tasks = ("generate",) if kind == "causal" else ("summarize", "translate")
    return ModelSpec(name=name, path=str(path), kind=kind, tasks=tasks, head="generate")

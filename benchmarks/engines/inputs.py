"""What the engines are measured on: models with random weights in real sizes, and texts of known lengths."""

import json
import random
from pathlib import Path
from typing import Any

from jobs.models import ModelSpec

VOCABULARY = 30_522
LABELS = {0: "NEGATIVE", 1: "NEUTRAL", 2: "POSITIVE"}
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

    sizes: dict[str, Any] = {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    }
    sizes["position_embedding_type"] = "absolute"  # what CTranslate2's converter asks for (4.8)
    return _classifier("minilm", folder, BertForSequenceClassification, BertConfig(**sizes, **_common()))


def distilbert(folder: Path) -> ModelSpec:
    """DistilBERT's own size (6 layers of 768) with a classification head."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return _classifier("distilbert", folder, DistilBertForSequenceClassification, DistilBertConfig(**_common()))


def _common() -> dict[str, Any]:
    names = {"id2label": LABELS, "label2id": {name: at for at, name in LABELS.items()}}
    return {"vocab_size": VOCABULARY, "initializer_range": 0.05, **names}


def _classifier(name: str, folder: Path, kind: Any, config: Any) -> ModelSpec:
    import torch
    from transformers import BertTokenizerFast, DistilBertTokenizerFast

    path = folder / name
    path.mkdir()
    vocabulary = path / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL, *WORDS]), encoding="utf-8")
    tokenizer = DistilBertTokenizerFast if name == "distilbert" else BertTokenizerFast
    tokenizer(vocab_file=str(vocabulary), model_max_length=512).save_pretrained(path)
    torch.manual_seed(0)
    kind(config).eval().save_pretrained(path)
    return ModelSpec(name=name, path=str(path), kind="encoder", tasks=("classify",), head="classify")


def numbers_of(spec: ModelSpec) -> dict[str, Any]:
    """The model's configuration as its file has it."""
    return dict(json.loads((Path(spec.path) / "config.json").read_text(encoding="utf-8")))

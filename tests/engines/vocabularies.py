"""Tokenizers of each family, trained on a few sentences and saved where a tiny model will look for them."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "a model reads a text and writes another text",
    "Seoul is the capital of Korea and Paris is the capital of France",
    "we like long walks, short talks and good food!",
    "rain falls mainly on the plain; the sun shines on the sea.",
    "who reads this, and why? nobody knows the answer (yet).",
    "numbers such as 12, 345 and 6789 are words as well",
    "überall gibt es schöne Wörter: 한국어 텍스트 und 日本語",
]


def trained(model: Any, trainer: Any, special: list[str], *, space: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if space:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        more: dict[str, Any] = {}
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        more = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    tokenizer.train_from_iterator(
        SENTENCES, trainer(vocab_size=420, special_tokens=special, show_progress=False, **more)
    )
    return tokenizer


def wordpiece(folder: Path, *, types: bool = True) -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    return _wrapped(folder, tokenizer, **names, mask_token="[MASK]", model_input_names=inputs)


def byte_bpe(
    folder: Path, *, frame: bool = False, end: str = "</s>", more: list[str] | None = None, template: str | None = None
) -> Any:
    special = ["<s>", "<pad>", end, *(more or [])] if frame else [end, "<pad>", *(more or [])]
    tokenizer = trained(models.BPE(), trainers.BpeTrainer, special, space=False)
    names = {"eos_token": end, "pad_token": "<pad>"}
    if frame:
        names |= {"bos_token": "<s>", "cls_token": "<s>", "sep_token": end}
        tokenizer.post_processor = processors.RobertaProcessing((end, 2), ("<s>", 0))
    inputs = ["input_ids", "attention_mask"]
    return _wrapped(folder, tokenizer, **names, model_input_names=inputs, chat_template=template)


def metaspace_bpe(folder: Path) -> Any:
    tokenizer = trained(models.BPE(unk_token="<unk>"), trainers.BpeTrainer, ["<unk>", "<s>", "</s>"], space=True)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return _wrapped(folder, tokenizer, **names, model_input_names=["input_ids", "attention_mask"])


def _wrapped(folder: Path, tokenizer: Tokenizer, **names: Any) -> Any:
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    wrapped.save_pretrained(folder)
    return wrapped


def unigram(first: list[str], last: list[str] | None = None) -> list[tuple[str, float]]:
    """A Unigram vocabulary with the model's special words where its tokenizer wants them."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=300, show_progress=False, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(SENTENCES, trainer)
    pieces = [(word, score) for word, score in json.loads(tokenizer.to_str())["model"]["vocab"] if word != "<unk>"]
    return [*((word, 0.0) for word in first), *pieces, *((word, 0.0) for word in last or [])]


def pieces() -> bytes:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=made, vocab_size=150, hard_vocab_limit=False, minloglevel=2
    )
    return made.getvalue()

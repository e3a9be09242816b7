"""What a model's folder says of itself: read from its JSON files, refused before any weight or code is opened."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from jobs.errors import InvalidModel
from jobs.tasks.base import Head, Kind
from jobs.tasks.languages import is_code

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
JSON_BYTES = 64 * 2**20
"""The largest JSON file read; the index of the largest models has some 10 MB."""
MOST_ENTRIES = 10_000
SHOWN = 8

TRANSLATES = ("MarianMTModel", "M2M100ForConditionalGeneration", "MBartForConditionalGeneration")
SUMMARIZES = (
    "PegasusForConditionalGeneration",
    "PegasusXForConditionalGeneration",
    "BigBirdPegasusForConditionalGeneration",
    "LEDForConditionalGeneration",
)
DOES_BOTH = (
    "BartForConditionalGeneration",
    "T5ForConditionalGeneration",
    "MT5ForConditionalGeneration",
    "UMT5ForConditionalGeneration",
    "LongT5ForConditionalGeneration",
)
CONVERSES = ("BlenderbotForConditionalGeneration", "BlenderbotSmallForConditionalGeneration")
HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM", "CausalLM")
CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")
BARE_ENCODERS = (
    "AlbertModel",
    "BertModel",
    "CamembertModel",
    "DebertaModel",
    "DebertaV2Model",
    "DistilBertModel",
    "ElectraModel",
    "ErnieModel",
    "EuroBertModel",
    "ModernBertModel",
    "MPNetModel",
    "NomicBertModel",
    "RobertaModel",
    "XLMRobertaModel",
)


BY_VECTORS = ("embed", "classify", "zero_shot", "rerank")
BY_SCORES = ("generate", "classify", "zero_shot", "rerank", "detect_language")
"""What a sentence encoder serves."""


class Role(NamedTuple):
    """What a model can be used for."""

    kind: Kind
    head: Head
    tasks: tuple[str, ...]


class Facts(NamedTuple):
    """A folder's role, with what limits it."""

    role: Role
    max_input_tokens: int | None
    dimensions: int | None
    """Numbers in an embedding, for models that make them."""
    context_tokens: int | None
    """Positions of a causal model: prompt and answer together."""


def read_facts(folder: Path) -> Facts:
    """What the model in this folder is. Raises InvalidModel for one that cannot, or must not, be loaded."""
    if not folder.is_dir():
        raise InvalidModel(f"{folder}: no such folder")
    if not (folder / CONFIG).is_file():
        raise InvalidModel(f"{folder}: no {CONFIG}; it has {_listed(folder)}")
    _refuse_links(folder)
    config = _json(folder, CONFIG) or {}
    tokenizer = _json(folder, "tokenizer_config.json") or {}
    for name, content in ((CONFIG, config), ("tokenizer_config.json", tokenizer)):
        if content.get("auto_map"):
            raise InvalidModel(f"{folder / name}: 'auto_map' asks for code from the folder, which is never run")
    _check_weights(folder)
    chats = bool(tokenizer.get("chat_template")) or (folder / "chat_template.jinja").is_file()
    modules = (folder / "modules.json").is_file()
    role = _role(folder, _architecture(folder, config), config, embeds=modules, chats=chats)
    width = _number(config, "hidden_size", "dim") if role.head == "embed" else None
    context = _number(config, "max_position_embeddings", "n_positions") if role.kind == "causal" else None
    return Facts(role, _limit(folder), width, context)


def check_adapter(folder: Path) -> None:
    """Raises InvalidModel unless the folder holds a LoRA adapter in safetensors."""
    if not folder.is_absolute() or not folder.is_dir():
        raise InvalidModel(f"{folder}: an adapter is named by its folder's absolute path")
    if not all((folder / name).is_file() for name in ("adapter_config.json", "adapter_model.safetensors")):
        raise InvalidModel(
            f"{folder}: an adapter has adapter_config.json and adapter_model.safetensors; it has {_listed(folder)}"
        )
    _refuse_links(folder)


def _role(folder: Path, architecture: str, config: Mapping[str, Any], *, embeds: bool, chats: bool) -> Role:
    if embeds:
        return Role("encoder", "embed", BY_VECTORS)
    if architecture.endswith("ForSequenceClassification"):
        return Role("encoder", "classify", _by_head(config))
    if architecture.endswith("ForTokenClassification"):
        return Role("encoder", "label", ("ner",))
    if architecture.endswith("ForQuestionAnswering"):
        return Role("encoder", "answer", ("qa",))
    if architecture.endswith("ForMaskedLM"):
        return Role("encoder", "fill", ("fill_mask",))
    if architecture in BARE_ENCODERS:
        return Role("encoder", "embed", BY_VECTORS)
    if architecture.endswith(CAUSAL_ENDINGS):
        return Role(
            "causal",
            "generate",
            (*BY_SCORES, *(("summarize", "translate", "qa", "ner") if chats else ())),
        )
    for group, tasks in (
        (TRANSLATES, ("translate", "generate")),
        (SUMMARIZES, ("summarize", "generate")),
        (DOES_BOTH, ("generate", "summarize", "translate")),
        (CONVERSES, ("generate",)),
    ):
        if architecture in group:
            return Role("seq2seq", "generate", tasks)
    heads = ", ".join(f"...For{head}" for head in HEADS)
    raise InvalidModel(
        f"{folder}: no task runs a {architecture}; known are {heads}, encoders ({', '.join(BARE_ENCODERS[:3])}, ...), "
        f"sentence-transformers folders and {', '.join((*TRANSLATES, *SUMMARIZES, *DOES_BOTH, *CONVERSES))}"
    )


def _by_head(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a classification head serves, told by its labels. (A configuration without labels has two, as Transformers
    has it.)"""
    named = config.get("id2label")
    labels = [str(label) for label in named.values()] if isinstance(named, dict) else ["LABEL_0", "LABEL_1"]
    infers = len(labels) > 1 and any(label.lower().startswith("entail") for label in labels)
    languages = len(labels) > 2 and all(is_code(label) for label in labels)
    return (
        "classify",
        *(("zero_shot",) if infers else ()),
        *(("rerank",) if len(labels) == 1 else ()),
        *(("detect_language",) if languages else ()),
    )


def _architecture(folder: Path, config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise InvalidModel(f"{folder / CONFIG}: 'architectures' does not name a model class")
    return named[0]


def _limit(folder: Path) -> int | None:
    """Sentence encoders are better within what they were trained on than within what they can read."""
    limit = (_json(folder, "sentence_bert_config.json") or {}).get("max_seq_length")
    return limit if isinstance(limit, int) and limit > 0 else None


def _number(config: Mapping[str, Any], *names: str) -> int | None:
    """A size that the configuration names, of its text part where it has several. None when it leaves it to a default:
    those are known only to the library that loads the model."""
    inner = config.get("text_config")
    found = (inner if isinstance(inner, dict) else config).get
    return next((value for name in names if isinstance(value := found(name), int) and value > 0), None)


def _check_weights(folder: Path) -> None:
    """Raises InvalidModel unless the weights are safetensors inside the folder."""
    if (folder / WEIGHTS).is_file():
        return
    index = _json(folder, INDEX)
    if index is None:
        raise InvalidModel(
            f"{folder}: no {WEIGHTS} and no {INDEX}; pickled weights are never opened; it has {_listed(folder)}"
        )
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise InvalidModel(f"{folder / INDEX}: no 'weight_map'")
    for shard in sorted({str(name) for name in shards.values()}):
        if not _plain(shard) or not shard.endswith(".safetensors"):
            raise InvalidModel(f"{folder / INDEX}: shard {shard!r} is not the plain name of a .safetensors file")
        if not (folder / shard).is_file():
            raise InvalidModel(f"{folder / INDEX}: shard {shard!r} is not there")


def _plain(name: str) -> bool:
    return name not in ("", ".", "..") and not any(sign in name for sign in ("/", "\\", "\0"))


def _refuse_links(folder: Path) -> None:
    """Raises InvalidModel for a link that leads out of the folder, but for those of a Hugging Face cache."""
    inside = [Path(os.path.realpath(folder)), *_blobs(folder)]
    for count, path in enumerate(_entries(folder)):
        if count == MOST_ENTRIES:
            raise InvalidModel(
                f"{folder}: has more than {MOST_ENTRIES:,} files; a model's folder holds the model alone"
            )
        target = Path(os.path.realpath(path))
        if path.is_symlink() and not any(target.is_relative_to(root) for root in inside):
            raise InvalidModel(f"{path}: a link that leads out of the model's folder")


def _entries(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(root, name)


def _blobs(folder: Path) -> Iterator[Path]:
    """Where the files of `models--owner--name/snapshots/<commit>` lie."""
    real = Path(os.path.realpath(folder))
    if real.parent.name == "snapshots" and real.parent.parent.name.startswith("models--"):
        yield real.parent.parent / "blobs"


def _json(folder: Path, name: str) -> dict[str, Any] | None:
    """The object in a JSON file, None when there is no such file. Raises InvalidModel."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > JSON_BYTES:
            raise InvalidModel(f"{path}: larger than {JSON_BYTES:,} bytes")
        content = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InvalidModel(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InvalidModel(f"{path}: is not a JSON object")
    return content


def _listed(folder: Path) -> str:
    names = sorted(entry.name for entry in os.scandir(folder))
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "no files") + more

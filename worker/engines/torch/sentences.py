"""What a sentence-transformers folder says about making one vector of a text's tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.errors import ModelFailed
from worker.engines.torch.loading import inside, read_json

Pooling = Literal["mean", "cls", "max", "last"]
MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
NAMED: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
UNDERSTOOD = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class Sentences:
    """How a model's folder wants its texts and its vectors."""

    folder: Path
    """Where the transformer itself lies."""
    pooling: Pooling = "mean"
    max_tokens: int | None = None
    lowercase: bool = False
    prompt: str = ""
    """Put before every text."""


def sentences_of(folder: Path) -> Sentences:
    """The folder's own configuration; the defaults for a model that has none. Raises ModelFailed for a module that
    would change the vectors and is not understood."""
    if not (folder / "modules.json").exists():
        return Sentences(folder)
    modules = {_kind(module): module.get("path", "") for module in read_json(folder / "modules.json")}
    strange = [kind for kind in modules if kind not in UNDERSTOOD]
    if strange or "Transformer" not in modules:
        raise ModelFailed(f"the sentence encoder has a module {(strange or ['none'])[0]!r}; known: {UNDERSTOOD}")
    inner = inside(folder, modules["Transformer"]) if modules["Transformer"] else folder
    said = _read(inner, "sentence_bert_config.json")
    return Sentences(
        inner,
        pooling=_pooling(_read(folder, f"{modules.get('Pooling', '1_Pooling')}/config.json")),
        max_tokens=said.get("max_seq_length"),
        lowercase=bool(said.get("do_lower_case")),
        prompt=_prompt(_read(folder, "config_sentence_transformers.json")),
    )


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _pooling(config: dict[str, Any]) -> Pooling:
    if isinstance(config.get("pooling_mode"), str):
        modes = [NAMED.get(config["pooling_mode"])]
    else:
        modes = [MODES.get(name) for name, on in config.items() if name.startswith("pooling_mode_") and on]
    if not modes:
        return "mean"
    if len(modes) > 1 or modes[0] is None:
        raise ModelFailed(f"the sentence encoder pools in a way that is not understood: {config}")
    return modes[0]


def _prompt(config: dict[str, Any]) -> str:
    name = config.get("default_prompt_name")
    return str((config.get("prompts") or {}).get(name, "")) if name else ""


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = inside(folder, name)
    return dict(read_json(path)) if path.exists() else {}

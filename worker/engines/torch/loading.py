"""Model files into Transformers objects: safetensors only, no remote code, nothing outside the model's folder."""

import json
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download

from jobs.errors import ModelFailed, TextmillError
from jobs.models import ModelSpec
from worker.engines.base import OutOfMemory

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja"]
NOT_FETCHED = ["original/*", "onnx/*", "openvino/*", "consolidated*", "*.fp16.safetensors"]
UNUSED_PARTS = ("pooler", "position_ids")
"""Weights that may be missing: what embeddings never look at."""
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number in a safetensors file; other types are stored as they are computed with."""


def folder_of(spec: ModelSpec) -> Path:
    """Where the model's files lie; a Hub id is fetched first, at its revision. Raises ModelFailed."""
    if os.path.isabs(spec.path):
        if not Path(spec.path).is_dir():
            raise ModelFailed(f"model {spec.name!r}: there is no folder {spec.path!r}")
        return Path(spec.path)
    with failures(spec):
        return Path(
            snapshot_download(spec.path, revision=spec.revision, allow_patterns=FETCHED, ignore_patterns=NOT_FETCHED)
        )


def inside(folder: Path, name: str) -> Path:
    """The file `name` of the model's folder. Raises ModelFailed for a name or a link that leads out of it."""
    pure = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or pure.is_absolute() or ".." in pure.parts:
        raise ModelFailed(f"file name {name!r} leads out of the model's folder")
    target = (folder / name).resolve()
    if not any(target.is_relative_to(home) for home in _homes(folder)):
        raise ModelFailed(f"{name!r} is a link that leads out of the model's folder")
    return target


def weights_of(folder: Path) -> list[Path]:
    """The model's safetensors files, all of them there. Raises ModelFailed."""
    for entry in folder.iterdir():
        inside(folder, entry.name)
    if (folder / INDEX).exists():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
    else:
        names = [WEIGHTS]
    files = [inside(folder, name) for name in names]
    missing = [name for name, file in zip(names, files, strict=True) if not file.is_file()]
    if missing or not files:
        lacking = ", ".join(map(repr, missing or [INDEX]))
        raise ModelFailed(f"no safetensors weights in {str(folder)!r} (missing: {lacking}); pickled ones are not read")
    return files


def read_json(path: Path) -> Any:
    """The content of a JSON file of the model. Raises ModelFailed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFailed(f"{path.name} cannot be read: {error}") from error


def config_of(spec: ModelSpec, folder: Path) -> Any:
    """The model's configuration, after its files were found to be harmless. Raises ModelFailed."""
    weights_of(folder)
    with failures(spec):
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def tokenizer_of(spec: ModelSpec, folder: Path) -> Any:
    """The model's tokenizer. Raises ModelFailed."""
    with failures(spec), warnings.catch_warnings():
        # Marian asks for sacremoses when it is made, and never uses it (Transformers 5.23).
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def generation_of(spec: ModelSpec, folder: Path, config: Any) -> Any:
    """The model's own generation defaults, overridden by the registry's. Raises ModelFailed."""
    with failures(spec):
        if (folder / "generation_config.json").exists():
            found = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
        else:
            found = transformers.GenerationConfig.from_model_config(config)
        unknown = sorted(name for name in spec.generation if not hasattr(found, name))
        if unknown:
            raise ModelFailed(f"model {spec.name!r}: unknown generation settings: {', '.join(unknown)}")
        found.update(**spec.generation)
    if found.token_healing:
        raise ModelFailed(
            f"model {spec.name!r}: token_healing would rewrite prompts; set it to false in the entry's `generation`"
        )
    return found


def model_of(spec: ModelSpec, folder: Path, config: Any, *, dtype: str, device: torch.device) -> Any:
    """The model on its device, in the given precision, ready to answer. Raises ModelFailed."""
    weights_of(folder)
    auto = _auto_class(spec, config)
    with failures(spec):
        model, info = auto.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(key for key in info["missing_keys"] if not any(part in key for part in UNUSED_PARTS))
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ModelFailed(
            f"model {spec.name!r} has no weights for {', '.join(missing[:5])}{more}: not a {auto.__name__}"
        )
    if spec.adapter:
        model = _adapted(spec, model)
    return model.to(device).eval().requires_grad_(False)


def bytes_of(folder: Path, dtype: str) -> int:
    """Bytes the weights take in that precision, from the headers of the files."""
    width = torch.finfo(getattr(torch, dtype)).bits // 8
    return sum(_bytes_of_file(file, width) for file in weights_of(folder))


class Folders:
    """Where models lie, as `folder_of` says; the Hub is asked once for each."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], Path] = {}

    def __call__(self, spec: ModelSpec) -> Path:
        key = (spec.path, spec.revision)
        if key not in self._known:
            self._known[key] = folder_of(spec)
        return self._known[key]


@contextmanager
def failures(spec: ModelSpec) -> Iterator[None]:
    """What the model libraries raise, as ModelFailed with the model's name."""
    try:
        yield
    except (TextmillError, OutOfMemory):
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"[:2000]
        raise ModelFailed(f"model {spec.name!r} cannot be loaded: {text}") from error


def _homes(folder: Path) -> list[Path]:
    """Where a model's files may really lie: in its folder, or where the Hub's cache keeps what snapshots link to."""
    home = folder.resolve()
    caches = [parent.parent / "blobs" for parent in home.parents[:2] if parent.name == "snapshots"]
    return [home, *caches]


def _auto_class(spec: ModelSpec, config: Any) -> Any:
    if spec.head == "classify":
        return transformers.AutoModelForSequenceClassification
    if spec.head == "label":
        return transformers.AutoModelForTokenClassification
    if spec.head == "answer":
        return transformers.AutoModelForQuestionAnswering
    if spec.head == "fill":
        return transformers.AutoModelForMaskedLM
    if spec.head == "embed":
        return transformers.AutoModel
    return transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM


def _adapted(spec: ModelSpec, model: Any) -> Any:
    try:
        from peft import PeftModel  # type: ignore[import-not-found]
    except ImportError as error:
        raise ModelFailed(f"model {spec.name!r} has an adapter: install peft to merge it") from error
    folder = Path(spec.adapter or "")
    if not inside(folder, "adapter_model.safetensors").is_file():
        raise ModelFailed(f"no adapter_model.safetensors in {spec.adapter!r}")
    with failures(spec):
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


def _bytes_of_file(file: Path, width: int) -> int:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        try:
            tensors = json.loads(stream.read(min(length, file.stat().st_size)))
        except ValueError as error:
            raise ModelFailed(f"{file.name} is no safetensors file: {error}") from error
    total = 0
    for name, tensor in tensors.items():
        if name != "__metadata__":
            start, end = tensor["data_offsets"]
            total += (end - start) * width // BYTES.get(tensor["dtype"], width)
    return total

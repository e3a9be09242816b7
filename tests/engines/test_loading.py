"""Model folders: what is loaded, and what is refused before any of it is opened."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.errors import ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Classified, Classify
from tests.engines.conftest import Subject, module_of
from tests.engines.tiny import BUILDERS, Tiny, write_json
from worker.engines import engine
from worker.engines.base import Room
from worker.engines.torch import loading
from worker.engines.torch.linear import PackedLinear

ROOM = Room(device="cpu", memory_bytes=2**30, threads=1, max_batch_tokens=512)


@pytest.fixture
def spoilt(tiny: Tiny, tmp_path: Path) -> tuple[ModelSpec, Path]:
    """A classifier in a folder of its own."""
    spec = tiny.copy("bert", tmp_path / "model")
    return spec, Path(spec.path)


def load(spec: ModelSpec) -> Subject:
    return Subject(spec)


@pytest.mark.parametrize("name", list(BUILDERS))
def test_the_size_of_a_model_is_that_of_its_weights(name: str, tiny: Tiny) -> None:
    spec = tiny(name)

    size = engine("torch").size(spec)
    model = Subject(spec).model

    # Buffers and weights that the model computes itself are not in the files, nor second copies of tied weights.
    layers = module_of(model).modules() if spec.kind == "causal" else []
    copies = sum(each.packed_bytes for each in layers if isinstance(each, PackedLinear) and each.weight.numel())
    assert size == pytest.approx(model.stats()["memory_bytes"] - copies, rel=0.2)
    assert engine("torch").size(spec.model_copy(update={"dtype": "bfloat16"})) == size // 2


def test_a_checkpoint_in_half_precision_runs_in_the_precision_that_is_asked_for(
    spoilt: tuple[ModelSpec, Path],
) -> None:
    spec, folder = spoilt
    halves = {name: value.to(torch.bfloat16) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "dtype": "bfloat16"})

    whole, half = load(spec), load(spec.model_copy(update={"dtype": "bfloat16"}))

    assert (whole.model.stats()["dtype"], half.model.stats()["dtype"]) == ("float32", "bfloat16")
    assert module_of(whole.model).dtype is torch.float32
    assert module_of(half.model).dtype is torch.bfloat16
    assert engine("torch").size(spec) == 2 * engine("torch").size(spec.model_copy(update={"dtype": "bfloat16"}))


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_precision_that_the_device_has_no_instructions_for_is_warned_of(
    has_bf16: bool, tiny: Tiny, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)

    for dtype in ("float32", "bfloat16"):
        load(tiny("bert", dtype=dtype))

    assert ("cpu has no instructions for bfloat16" in caplog.text) == (not has_bf16)
    assert "float32" not in caplog.text


def test_weights_in_several_files_are_found_through_their_index(spoilt: tuple[ModelSpec, Path]) -> None:
    spec, folder = spoilt
    expected = load(spec)(Classify("the fox"))
    _shard(folder, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")

    assert load(spec)(Classify("the fox")) == expected


@pytest.mark.parametrize(
    "name",
    ["../elsewhere.safetensors", "/etc/passwd", "deep/../../elsewhere.safetensors", "..\\elsewhere.safetensors", ""],
)
def test_a_shard_name_that_leads_out_of_the_folder_is_refused(name: str, spoilt: tuple[ModelSpec, Path]) -> None:
    spec, folder = spoilt
    weights = folder / "model.safetensors"
    (folder.parent / "elsewhere.safetensors").write_bytes(weights.read_bytes())
    weights.rename(folder / "model-1.safetensors")
    names = dict.fromkeys(load_file(folder / "model-1.safetensors"), name)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": names})

    with pytest.raises(ModelFailed, match="leads out of the model's folder"):
        load(spec)


def test_a_link_that_leads_out_of_the_folder_is_refused(spoilt: tuple[ModelSpec, Path]) -> None:
    spec, folder = spoilt
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere.safetensors")

    with pytest.raises(ModelFailed, match="link that leads out"):
        load(spec)


def test_the_links_of_the_hubs_cache_are_followed(tiny: Tiny, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    spec = tiny.copy("bert", snapshot)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    (snapshot / "model.safetensors").rename(blobs / "abc")
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blobs / "abc", snapshot))

    assert isinstance(load(spec)(Classify("the fox"))[0], Classified)


def test_pickled_weights_are_not_read(spoilt: tuple[ModelSpec, Path]) -> None:
    spec, folder = spoilt
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelFailed, match="no safetensors weights"):
        load(spec)
    with pytest.raises(ModelFailed, match="no safetensors weights"):
        engine("torch").size(spec)


def test_code_in_a_model_folder_is_not_run(spoilt: tuple[ModelSpec, Path]) -> None:
    spec, folder = spoilt
    (folder / "evil.py").write_text("raise SystemExit('ran')\nclass Config: pass\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    write_json(folder / "config.json", {**config, "model_type": "evil", "auto_map": code})

    with pytest.raises(ModelFailed, match="cannot be loaded"):
        load(spec)


def test_a_model_without_the_head_that_is_asked_for_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelFailed, match=r"no weights for classifier"):
        load(tiny("embedder", head="classify"))


@pytest.mark.parametrize("spoil", ["config.json", "tokenizer.json"])
def test_a_broken_file_fails_the_model_by_its_name(spoil: str, spoilt: tuple[ModelSpec, Path]) -> None:
    spec, folder = spoilt
    (folder / spoil).write_text("{")

    with pytest.raises(ModelFailed, match="bert"):
        load(spec)


def test_cut_off_weights_fail_the_model(spoilt: tuple[ModelSpec, Path]) -> None:
    spec, folder = spoilt
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])

    with pytest.raises(ModelFailed):
        load(spec)


def test_a_folder_that_is_not_there_is_named(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match="nowhere"):
        load(tiny("bert", path=str(tmp_path / "nowhere")))


def test_an_adapter_without_its_library_is_refused_clearly(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match="install peft"):
        load(tiny("bert", adapter=str(tmp_path)))


def test_a_device_that_is_not_here_fails_the_model(tiny: Tiny) -> None:
    with pytest.raises(ModelFailed, match="not available here"):
        Subject(tiny("bert"), device="mps")


def test_a_hub_id_goes_through_the_same_checks(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tiny.copy("bert", tmp_path / "fetched").path)
    asked: dict[str, Any] = {}

    def fetched(name: str, **how: Any) -> str:
        asked.update(name=name, **how)
        return str(folder)

    monkeypatch.setattr(loading, "snapshot_download", fetched)
    spec = tiny("bert", path="someone/bert", revision="abc")

    assert isinstance(load(spec)(Classify("the fox"))[0], Classified)
    assert (asked["name"], asked["revision"]) == ("someone/bert", "abc")
    assert not any(pattern.endswith((".bin", ".pt", ".py", ".pkl")) for pattern in asked["allow_patterns"])
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelFailed, match="no safetensors"):
        load(spec)


def test_a_hub_id_that_cannot_be_fetched_fails_the_model(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, **how: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(loading, "snapshot_download", refused)

    with pytest.raises(ModelFailed, match="no network"):
        load(tiny("bert", path="someone/bert"))


def test_an_unknown_generation_setting_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelFailed, match="warmth"):
        load(tiny("gpt2", generation={"warmth": 3}))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"num_return_sequences": 3}, "num_return_sequences"), ({"token_healing": True}, "rewrite")],
)
def test_generation_settings_that_cannot_be_kept_fail_the_model_by_its_name(
    settings: dict[str, Any], reason: str, tiny: Tiny
) -> None:
    with pytest.raises(ModelFailed, match=f"(?s)'qwen2'.*{reason}"):
        load(tiny("qwen2", generation=settings))


def test_a_codec_of_another_engine_is_refused(tiny: Tiny) -> None:
    fake = ModelSpec(name="fake", path="fake", kind="any", tasks=(), engine="fake", head="classify")

    with pytest.raises(ModelFailed, match="codec"):
        engine("torch").load(tiny("bert"), engine("fake").codec(fake), ROOM)


def test_closing_a_model_lets_go_of_its_weights(tiny: Tiny) -> None:
    subject = Subject(tiny("bert"))

    subject.model.close()

    assert not [each for each in vars(subject.model).values() if isinstance(each, torch.nn.Module)]
    assert subject.model._net is None  # type: ignore[attr-defined]


def _shard(folder: Path, *names: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {key: names[at % len(names)] for at, key in enumerate(sorted(tensors))}
    for name in names:
        save_file(
            {key: tensors[key] for key in tensors if where[key] == name}, folder / name, metadata={"format": "pt"}
        )
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})

"""The registry: which folders become models of which tasks, and which are refused before a weight is opened."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from jobs import model_folder
from jobs.errors import InvalidModel, InvalidParams, InvalidSettings, ModelMismatch, UnknownModel
from jobs.models import ModelSpec, Registry, inspect
from jobs.store import Store
from jobs.tasks import all_tasks, find

MakeModel = Callable[..., Path]
CHAT = {"chat_template": "{{ messages }}"}
BY_SCORES = {"generate", "classify", "zero_shot", "rerank", "detect_language"}


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Makes a model folder; further files by name, a dict as JSON."""

    def make(architecture: str | None = "BertForSequenceClassification", name: str = "model", **files: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = {"architectures": [architecture]} if architecture else {}
        for file, content in {"config.json": config, "model.safetensors": b"never opened", **files}.items():
            if content is not None:
                path = folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
        return folder

    return make


@pytest.fixture
def registry(sqlite_url: str) -> Iterator[Registry]:
    opened = Store.open(sqlite_url)
    yield Registry(opened)
    opened.close()


@pytest.mark.parametrize(
    ("architecture", "kind", "head", "tasks"),
    [
        ("DistilBertForSequenceClassification", "encoder", "classify", {"classify"}),
        ("BertModel", "encoder", "embed", {"embed", "classify", "zero_shot", "rerank"}),
        ("XLMRobertaModel", "encoder", "embed", {"embed", "classify", "zero_shot", "rerank"}),
        ("LlamaForCausalLM", "causal", "generate", BY_SCORES),
        ("GPT2LMHeadModel", "causal", "generate", BY_SCORES),
        ("XLMRobertaForTokenClassification", "encoder", "label", {"ner"}),
        ("BertForQuestionAnswering", "encoder", "answer", {"qa"}),
        ("RobertaForMaskedLM", "encoder", "fill", {"fill_mask"}),
        ("MarianMTModel", "seq2seq", "generate", {"translate", "generate"}),
        ("M2M100ForConditionalGeneration", "seq2seq", "generate", {"translate", "generate"}),
        ("MBartForConditionalGeneration", "seq2seq", "generate", {"translate", "generate"}),
        ("PegasusForConditionalGeneration", "seq2seq", "generate", {"summarize", "generate"}),
        ("BartForConditionalGeneration", "seq2seq", "generate", {"summarize", "translate", "generate"}),
        ("T5ForConditionalGeneration", "seq2seq", "generate", {"summarize", "translate", "generate"}),
    ],
)
def test_an_architecture_tells_what_a_model_can_do(
    make_model: MakeModel, architecture: str, kind: str, head: str, tasks: set[str]
) -> None:
    spec = inspect(make_model(architecture, name="My Model.v2"))

    assert (spec.name, spec.kind, spec.head, set(spec.tasks)) == ("My-Model.v2", kind, head, tasks)
    assert all(spec.kind in find(task).kinds for task in spec.tasks)


@pytest.mark.parametrize("files", [{"tokenizer_config.json": CHAT}, {"chat_template.jinja": b"{{ messages }}"}])
def test_a_chat_template_makes_a_causal_model_summarize_and_translate(make_model: MakeModel, files: Any) -> None:
    spec = inspect(make_model("LlamaForCausalLM", **files))

    assert set(spec.tasks) == BY_SCORES | {"summarize", "translate", "qa", "ner"}


@pytest.mark.parametrize(
    ("labels", "tasks"),
    [
        (["contradiction", "neutral", "ENTAILMENT"], ("classify", "zero_shot")),
        (["LABEL_0"], ("classify", "rerank")),
        (["ar", "de", "pt-BR", "zh"], ("classify", "detect_language")),
        (["de", "sad", "joy"], ("classify",)),
    ],
)
def test_the_labels_of_a_classification_head_tell_what_else_it_serves(
    make_model: MakeModel, labels: list[str], tasks: tuple[str, ...]
) -> None:
    config = {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {str(at): label for at, label in enumerate(labels)},
    }

    spec = inspect(make_model(**{"config.json": config}))

    assert spec.tasks == tasks


def test_a_sentence_encoder_is_known_by_its_modules_and_keeps_its_limit(make_model: MakeModel) -> None:
    files = {"modules.json": b"[]", "sentence_bert_config.json": {"max_seq_length": 256}}

    spec = inspect(make_model("Qwen3ForCausalLM", **files))

    assert (spec.kind, spec.head, spec.max_input_tokens) == ("encoder", "embed", 256)
    assert spec.tasks == ("embed", "classify", "zero_shot", "rerank")


@pytest.mark.parametrize(
    ("architecture", "config", "sizes"),
    [
        ("BertModel", {"hidden_size": 384, "max_position_embeddings": 512}, (384, None)),
        ("DistilBertModel", {"dim": 768}, (768, None)),
        ("BertForSequenceClassification", {"hidden_size": 384}, (None, None)),
        ("LlamaForCausalLM", {"hidden_size": 576, "max_position_embeddings": 8192}, (None, 8192)),
        ("GPT2LMHeadModel", {"n_positions": 1024}, (None, 1024)),
        ("Gemma3ForCausalLM", {"text_config": {"max_position_embeddings": 32}, "n_positions": 7}, (None, 32)),
        ("LlamaForCausalLM", {"max_position_embeddings": "many"}, (None, None)),
        ("LlamaForCausalLM", {}, (None, None)),
    ],
)
def test_a_configuration_tells_the_sizes_that_params_are_checked_against(
    make_model: MakeModel, architecture: str, config: dict[str, Any], sizes: tuple[int | None, int | None]
) -> None:
    spec = inspect(make_model(**{"config.json": {"architectures": [architecture], **config}}))

    assert (spec.dimensions, spec.context_tokens) == sizes


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": None}, r"no config\.json; it has model\.safetensors"),
        ({"config.json": b"{"}, r"config\.json: cannot be read"),
        ({"config.json": b"[1]"}, "is not a JSON object"),
        ({"config.json": {}}, "'architectures' does not name"),
        ({"config.json": {"architectures": [7]}}, "'architectures' does not name"),
        ({"config.json": {"architectures": ["WhisperForConditionalGeneration"]}}, "no task runs a Whisper"),
        ({"config.json": {"architectures": ["BertModel"], "auto_map": {"AutoModel": "evil.Model"}}}, "'auto_map'"),
        ({"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.T", None]}}}, "'auto_map'"),
        ({"model.safetensors": None}, r"pickled weights are never opened; it has config\.json"),
        ({"model.safetensors": None, "pytorch_model.bin": b"pickle"}, r"it has config\.json, pytorch_model\.bin"),
    ],
)
def test_what_cannot_or_must_not_be_loaded_is_refused(make_model: MakeModel, files: Any, said: str) -> None:
    folder = make_model(**files)

    with pytest.raises(InvalidModel, match=said):
        inspect(folder)


@pytest.mark.parametrize(
    ("shard", "said"),
    [
        ("../../etc/passwd.safetensors", "not the plain name"),
        ("/etc/passwd.safetensors", "not the plain name"),
        ("..\\evil.safetensors", "not the plain name"),
        ("a\0.safetensors", "not the plain name"),
        ("..", "not the plain name"),
        ("", "not the plain name"),
        ("model-00001.bin", "not the plain name"),
        ("model-00002.safetensors", "is not there"),
    ],
)
def test_shard_names_cannot_lead_elsewhere(make_model: MakeModel, shard: str, said: str) -> None:
    index = {"weight_map": {"a": "model-00001.safetensors", "b": shard}}
    files = {"model.safetensors": None, "model-00001.safetensors": b"x", "model-00001.bin": b"x"}
    folder = make_model(**files, **{"model.safetensors.index.json": index})

    with pytest.raises(InvalidModel, match=said):
        inspect(folder)


def test_shards_in_the_folder_are_fine(make_model: MakeModel) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files = {"model.safetensors": None, "model-1.safetensors": b"x", "model-2.safetensors": b"x"}

    assert inspect(make_model(**files, **{"model.safetensors.index.json": index})).tasks == ("classify",)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "sub/vocab.txt", "sub2"])
def test_a_link_out_of_the_folder_is_refused(make_model: MakeModel, tmp_path: Path, name: str) -> None:
    folder = make_model(**{"sub/other": b"x"})
    (tmp_path / "outside").write_bytes(orjson.dumps({"architectures": ["BertModel"]}))
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "outside")

    with pytest.raises(InvalidModel, match="leads out of the model's folder"):
        inspect(folder)


def test_a_link_within_the_folder_is_fine(make_model: MakeModel) -> None:
    folder = make_model(**{"weights": b"x", "model.safetensors": None})
    (folder / "model.safetensors").symlink_to("weights")

    assert inspect(folder).tasks == ("classify",)


@pytest.fixture
def cached(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot in a Hugging Face cache, all its files links into `blobs`."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = make_model(name=f"hub/models--owner--bert-tiny/snapshots/{commit}")
    model = snapshot.parents[1]
    (model / "blobs").mkdir()
    for file in list(snapshot.iterdir()):
        shutil.move(file, model / "blobs" / file.name)
        file.symlink_to(Path("../../blobs") / file.name)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_snapshot_of_the_hub_cache_is_found_by_id_and_by_path(cached: Path) -> None:
    by_id, by_path = inspect("owner/bert-tiny"), inspect(cached)

    assert by_id == by_path
    assert (by_id.name, by_id.path, by_id.revision) == ("bert-tiny", str(cached), cached.name)


def test_a_snapshot_cannot_link_past_its_own_blobs(cached: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    (cached / "vocab.txt").symlink_to(tmp_path / "secret")

    with pytest.raises(InvalidModel, match="leads out"):
        inspect(cached)


@pytest.mark.parametrize("path", ["owner/unknown", "../../etc", "/etc", "nul\0", "", "/missing", "owner/../../x"])
@pytest.mark.usefixtures("cached")
def test_what_is_no_model_is_refused(path: str) -> None:
    with pytest.raises(InvalidModel):
        inspect(path)


def test_the_fake_model_is_always_there_and_serves_every_task(registry: Registry) -> None:
    assert set(registry.get("fake").tasks) == {task.name for task in all_tasks()}
    assert [spec.name for spec in registry.list()] == ["fake", "langid"]
    for task in all_tasks():
        params = {"translate": {"target": "de"}, "zero_shot": {"labels": ["a", "b"]}}.get(task.name, {})
        assert registry.check(task, "fake", params).engine == "fake"


def test_a_model_is_added_listed_replaced_and_removed(registry: Registry, make_model: MakeModel) -> None:
    spec = inspect(make_model(name="senti"))

    registry.add(spec)
    registry.add(spec.model_copy(update={"note": "better"}))
    listed = registry.list()

    assert [each.name for each in listed] == ["fake", "langid", "senti"]
    assert registry.get("senti").note == "better"
    assert registry.remove("senti")
    assert not registry.remove("senti")
    assert not registry.remove("nul\0")


@pytest.mark.parametrize(
    "name", ["senty", "", "../../etc", "/etc/passwd", "nul\0", "\ud800", "a' OR 1=1 --", "x" * 10_000, "./senti"]
)
def test_a_name_from_outside_is_only_looked_up(registry: Registry, make_model: MakeModel, name: str) -> None:
    registry.add(inspect(make_model(name="senti")))

    with pytest.raises(UnknownModel, match="registered models: fake, langid, senti"):
        registry.get(name)


def test_a_model_that_does_not_serve_the_task_is_refused_with_those_that_do(
    registry: Registry, make_model: MakeModel
) -> None:
    registry.add(inspect(make_model(name="senti")))

    with pytest.raises(ModelMismatch, match=r"'senti' does not serve summarize; it serves: classify; .*: fake"):
        registry.check(find("summarize"), "senti")


def test_params_that_do_not_fit_the_model_are_refused(registry: Registry, make_model: MakeModel) -> None:
    registry.add(inspect(make_model("LlamaForCausalLM", name="llama")))

    with pytest.raises(InvalidParams, match="labels"):
        registry.check(find("classify"), "llama")
    with pytest.raises(InvalidParams, match="top_k"):
        registry.check(find("classify"), "llama", {"labels": ["a", "b"], "top_k": -1})
    assert registry.check(find("classify"), "llama", {"labels": ["a", "b"]}).name == "llama"


def test_params_beyond_the_models_sizes_are_refused(registry: Registry, make_model: MakeModel) -> None:
    bert = {"architectures": ["BertModel"], "hidden_size": 384}
    llama = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 8192}
    registry.add(inspect(make_model(name="bert", **{"config.json": bert})))
    registry.add(inspect(make_model(name="llama", **{"config.json": llama})))
    registry.add(registry.get("llama").model_copy(update={"name": "short", "max_input_tokens": 512}))

    registry.check(find("embed"), "bert", {"dimensions": 384})
    with pytest.raises(InvalidParams, match="5000 is more than the 384 that the model has"):
        registry.check(find("embed"), "bert", {"dimensions": 5000})
    registry.check(find("generate"), "llama", {"max_new_tokens": 8191})
    with pytest.raises(InvalidParams, match="context is 8192 tokens"):
        registry.check(find("generate"), "llama", {"max_new_tokens": 100_000})
    with pytest.raises(InvalidParams, match="context is 512 tokens"):
        registry.check(find("generate"), "short", {"max_tokens": 512})


def test_the_only_model_of_a_task_need_not_be_named(registry: Registry, make_model: MakeModel) -> None:
    with pytest.raises(UnknownModel, match="no registered model serves classify"):
        registry.only(find("classify"))

    registry.add(inspect(make_model(name="one")))
    assert registry.only(find("classify")).name == "one"

    registry.add(inspect(make_model(name="two")))
    with pytest.raises(UnknownModel, match="several models serve classify, so one must be named: one, two"):
        registry.only(find("classify"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "fake"}, "taken by a built-in model"),
        ({"path": "relative/model"}, "absolute path"),
        ({"path": "/nul\0"}, "absolute path"),
        ({"path": "/missing"}, "no such folder"),
        ({"tasks": ("translate",)}, "translate is not served by models of kind 'encoder'"),
        ({"adapter": "lora"}, "absolute path"),
        ({"adapter": "/etc"}, "an adapter has adapter_config.json"),
        ({"engine": "openvino", "path": "/missing"}, "no such folder"),
        ({"dtype": "int8"}, "engine 'torch' computes in float32, bfloat16 and float16, not in int8"),
        ({"engine": "remote"}, "go together"),
        ({"remote": {"python": "/usr/bin/python3", "engine": "torch"}}, "go together"),
    ],
)
def test_a_spec_that_no_worker_could_load_is_not_registered(
    registry: Registry, make_model: MakeModel, changes: Any, said: str
) -> None:
    spec = inspect(make_model())

    with pytest.raises(InvalidModel, match=said):
        registry.add(ModelSpec.model_validate({**spec.model_dump(), **changes}))

    assert [each.name for each in registry.list()] == ["fake", "langid"]


def test_a_folder_of_everything_is_no_model(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "MOST_ENTRIES", 3)

    with pytest.raises(InvalidModel, match="more than 3 files"):
        inspect(make_model(a=b"", b=b""))


def test_an_adapter_in_safetensors_is_registered(registry: Registry, make_model: MakeModel, tmp_path: Path) -> None:
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").touch()

    registry.add(inspect(make_model()).model_copy(update={"adapter": str(adapter)}))

    assert registry.get("model").adapter == str(adapter)


def test_a_models_file_is_synced_and_other_entries_stay(
    registry: Registry, make_model: MakeModel, tmp_path: Path
) -> None:
    registry.add(inspect(make_model(name="other")))
    make_model("MarianMTModel", name="folder")
    file = tmp_path / "models.toml"
    file.write_text(
        '[models."opus-mt.ko-en"]\npath = "folder"\ntasks = ["translate"]\n[models.dry]\n'
        'engine = "fake"\nkind = "any"\nhead = "generate"\ntasks = ["generate"]\n'
    )

    registry.sync(file)
    again = registry.sync(file)

    assert [spec.name for spec in registry.list()] == ["dry", "fake", "langid", "opus-mt.ko-en", "other"]
    found = registry.get("opus-mt.ko-en")
    assert (found.path, found.kind, found.tasks) == (str(tmp_path / "folder"), "seq2seq", ("translate",))
    assert found in again


def prompted(registry: Registry, folder: Path, prompts: str) -> ModelSpec:
    file = folder.parent / "models.toml"
    file.write_text(f'[models.mine]\npath = "{folder.name}"\n{prompts}\n')
    return registry.sync(file)[0]


def test_a_models_file_declares_prompts_with_versions_and_examples(registry: Registry, make_model: MakeModel) -> None:
    folder = make_model("LlamaForCausalLM", name="chat")

    spec = prompted(
        registry,
        folder,
        'prompts.summarize = "Short: {text}"\n[models.mine.prompts.classify]\nversion = "2"\n'
        'text = "{labels}? {text}"\nsystem = "You sort."\nexamples = [{ text = "a", answer = "b" }]',
    )

    assert spec == registry.get("mine")
    assert spec.prompts["summarize"].text == "Short: {text}"
    assert (spec.prompts["classify"].version, spec.prompts["classify"].examples) == (
        "2",
        ({"text": "a", "answer": "b"},),
    )


def test_what_is_as_ever_is_not_stored_so_that_older_workers_read_it(
    registry: Registry, make_model: MakeModel, sqlite_url: str
) -> None:
    prompted(registry, make_model("LlamaForCausalLM", name="chat"), 'prompts.summarize = "Short: {text}"')

    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        ((stored,),) = connection.execute("SELECT spec FROM models")
    connection.close()

    spec = orjson.loads(stored)
    assert spec["prompts"] == {"summarize": "Short: {text}"}
    assert {"encoder", "adapter", "remote"} & spec.keys() == set()
    assert ModelSpec.model_validate(spec) == registry.get("mine")


def test_a_version_of_a_prompt_says_one_thing_for_ever(registry: Registry, make_model: MakeModel) -> None:
    folder = make_model("LlamaForCausalLM", name="chat")
    prompted(registry, folder, 'prompts.summarize = { version = "1", text = "Short: {text}" }')

    with pytest.raises(InvalidSettings, match=r"prompts\.summarize has changed and is version '1' as before"):
        prompted(registry, folder, 'prompts.summarize = { version = "1", text = "Shorter: {text}" }')
    spec = prompted(registry, folder, 'prompts.summarize = { version = "2", text = "Shorter: {text}" }')
    unnamed = prompted(registry, folder, 'prompts.summarize = "Shortest: {text}"')

    assert spec.prompts["summarize"].version == "2"
    assert unnamed == registry.get("mine")


@pytest.mark.parametrize(
    ("architecture", "prompts", "said"),
    [
        ("LlamaForCausalLM", 'prompts.sumarize = "{text}"', "did you mean 'summarize'"),
        ("MarianMTModel", 'prompts.translate = { text = "{text}", system = "Hi" }', "are for causal models"),
        (
            "LlamaForCausalLM",
            'prompts.qa = { text = "{text}", examples = [{ text = "a" }] }',
            "example 1 has no answer",
        ),
    ],
)
def test_a_prompt_that_cannot_be_asked_is_refused(
    registry: Registry, make_model: MakeModel, architecture: str, prompts: str, said: str
) -> None:
    with pytest.raises(InvalidSettings, match=said):
        prompted(registry, make_model(architecture, name="chat"), prompts)


@pytest.mark.parametrize(
    "more", ['engine = "openvino"\ndtype = "int8"\n', 'engine = "remote"\nremote = {python = "/p", engine = "torch"}\n']
)
def test_other_engines_of_a_models_file_are_completed_from_its_folder(
    registry: Registry, make_model: MakeModel, tmp_path: Path, more: str
) -> None:
    make_model(name="folder")
    file = tmp_path / "models.toml"
    file.write_text(f'[models.mine]\npath = "folder"\n{more}')

    (spec,) = registry.sync(file)

    assert (spec.kind, spec.head, spec.tasks) == ("encoder", "classify", ("classify",))
    assert spec == registry.get("mine")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[models", "cannot be read"),
        ("[other]\n", r"one table \[models\.NAME\]"),
        ("models = 3\n", r"one table \[models\.NAME\]"),
        ("[models]\na = 3\n", r"a is not a table"),
        ("[models.a]\n", r"\[models\.a\]: no 'path'"),
        ('[models.a]\npath = "/missing"\n', r"\[models\.a\]: /missing: no such folder"),
        ("[models.a]\npath = 3\n", r"\[models\.a\]"),
        ('[models."a b"]\npath = "folder"\n', r"\[models\.a b\].*\n.*name"),
        ('[models.a]\npath = "folder"\ncolour = "red"\n', r"(?s)\[models\.a\].*colour"),
        ('[models.fake]\npath = "folder"\n', "taken by a built-in model"),
        ('[models.a]\npath = "folder"\ntasks = ["clasify"]\n', "unknown task 'clasify'"),
    ],
)
def test_a_wrong_models_file_is_refused_by_entry(
    registry: Registry, make_model: MakeModel, tmp_path: Path, content: str, said: str
) -> None:
    make_model(name="folder")
    (tmp_path / "models.toml").write_text(content)

    with pytest.raises(InvalidSettings, match=said):
        registry.sync(tmp_path / "models.toml")

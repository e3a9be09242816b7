"""The model registry: what a model is called, where it lies, which tasks it serves. No weights are touched here."""

import builtins
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import InvalidModel, InvalidSettings, ModelMismatch, UnknownModel, UnknownTask
from jobs.model_folder import check_adapter, read_facts
from jobs.patterns import ENGINE, Pattern, is_pattern
from jobs.tasks import all_tasks, find, validate_params
from jobs.tasks.base import Head, Kind, Known, Task
from jobs.tasks.templates import Prompt

FAKE = "fake"
"""A key that always exists: the fake engine, for every task."""
FAKE_TOKENS = 512
LANGID = "langid"
"""A key that always exists: languages are told apart without a model."""
BUILT_IN = (FAKE, LANGID)
PAIRED = "paired"
FOLDER_ENGINES = ("torch", "ctranslate2", "openvino", PAIRED)
"""Engines that begin with a folder as Transformers writes them."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@-]{0,190}")
NAME_OR_PATTERN = r"^[A-Za-z0-9{][A-Za-z0-9._/@{}-]{0,190}$"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Remote(BaseModel):
    """Where an engine runs that has a process and an environment of its own (engine `remote`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str = Field(pattern=r"^/")
    """The environment's interpreter, by its absolute path. Textmill is installed there, without extras."""
    engine: str = Field(pattern=r"^[\w.-]+$")
    """The engine it runs; its text side is ours where we have it too, else that of `torch`."""


class ModelSpec(BaseModel):
    """One entry of the registry (table `models`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME_OR_PATTERN)
    """What jobs call it. A pattern (`opus-mt-{source}-{target}`) stands for several and is not registered."""
    path: str
    """A local folder (absolute) or a Hub id `owner/name`. In jobs only `name` is ever given."""
    revision: str | None = None
    kind: Kind
    tasks: tuple[str, ...]
    engine: str = "torch"
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None
    """None: the `dtype` setting. int8: engines `ctranslate2` and `openvino` only."""
    device: str | None = None
    remote: Remote | None = None
    """For engine `remote` only."""
    head: Head
    """Which model class is loaded: sequence or token classification, question answering, masked words, bare
    encoder, generation."""
    encoder: str | None = None
    """For engine `paired` only: the folder of the sentence encoder that goes with this NLI model."""
    adapter: str | None = None
    """A LoRA folder, merged at load."""
    prompts: Mapping[str, Prompt] = Field(default_factory=dict)
    """How the model is asked in words, by task: a template, or a table with a version, a system text and examples."""
    generation: Mapping[str, Any] = Field(default_factory=dict)
    """Overrides of the model's own generation defaults."""
    max_input_tokens: int | None = Field(default=None, ge=1)
    """Below what the architecture allows, where a model is better so (MiniLM: 256)."""
    dimensions: int | None = Field(default=None, ge=1)
    """Numbers in an embedding; None: not known before the model is loaded."""
    context_tokens: int | None = Field(default=None, ge=1)
    """What a causal model's positions hold, prompt and answer together; None: not known before it is loaded."""
    note: str = ""
    """Said to people beside the name, e.g. that a 135 M model is for show."""

    @property
    def known(self) -> Known:
        """What a task may check params against at submit."""
        if self.kind == "any":
            return Known("any", prompts=self.prompts, engine=self.engine)
        limits = (self.context_tokens, self.max_input_tokens) if self.kind == "causal" else ()
        context = min((limit for limit in limits if limit is not None), default=None)
        return Known(self.kind, self.head, self.dimensions, context, self.prompts, self.engine)


class Specs(Protocol):
    """What the registry asks of `store.models`."""

    def list(self) -> list[ModelSpec]: ...

    def get(self, name: str) -> ModelSpec | None: ...

    def put(self, spec: ModelSpec) -> None: ...

    def remove(self, name: str) -> bool: ...


class Stored(Protocol):
    @property
    def models(self) -> Specs: ...


class Registry:
    """The models that jobs may name. A name is only ever looked up in the table, never on disk.

    `allows`: of what there is, only this is seen.
    """

    def __init__(self, store: Stored, allows: Callable[[str], bool] = lambda name: True) -> None:
        self._specs, self._allows = store.models, allows

    def list(self) -> builtins.list[ModelSpec]:
        """Every model, by name; the built-in ones are always among them."""
        specs = {spec.name: spec for spec in (*self._specs.list(), *map(_built_in, BUILT_IN))}
        return [specs[name] for name in sorted(specs) if self._allows(name)]

    def get(self, name: str) -> ModelSpec:
        """The model of that name. Raises UnknownModel with the names there are."""
        if name in BUILT_IN and self._allows(name):
            return _built_in(name)
        if is_pattern(name):
            return _of_pattern(self.pattern(name))
        spec = self._specs.get(name) if NAME.fullmatch(name) and self._allows(name) else None
        if spec is None:
            known = ", ".join(spec.name for spec in self.list())
            raise UnknownModel(f"unknown model {name[:200]!r}; registered models: {known}")
        return spec

    def pattern(self, name: str) -> Pattern:
        """The models that a name with open languages stands for. Raises UnknownModel when there is none."""
        return Pattern(name, (spec.name for spec in self.list() if "translate" in spec.tasks and spec.name != FAKE))

    def check(self, task: Task[Any, Any, Any], name: str, params: Mapping[str, Any] | None = None) -> ModelSpec:
        """The model, when it serves the task under these params.

        Raises UnknownModel, ModelMismatch, and InvalidParams.
        """
        return self.serves(self.get(name), task, params)

    def serves(self, spec: ModelSpec, task: Task[Any, Any, Any], params: Mapping[str, Any] | None = None) -> ModelSpec:
        """The same of a model that need not be registered."""
        if task.name not in spec.tasks or spec.kind not in {*task.kinds, "any"}:
            serving = ", ".join(other.name for other in self.list() if task.name in other.tasks)
            raise ModelMismatch(
                f"model {spec.name!r} does not serve {task.name}; it serves: {', '.join(spec.tasks)}; "
                f"models that serve {task.name}: {serving}"
            )
        task.check(validate_params(task, params), spec.known)
        return spec

    def only(self, task: Task[Any, Any, Any]) -> ModelSpec:
        """The one model that serves a task when a job names none. Raises UnknownModel when it is not one."""
        serving = [spec for spec in self.list() if task.name in spec.tasks and spec.name != FAKE]
        if len(serving) == 1:
            return serving[0]
        if serving:
            names = ", ".join(spec.name for spec in serving)
            raise UnknownModel(f"several models serve {task.name}, so one must be named: {names}")
        raise UnknownModel(
            f"no registered model serves {task.name}: add one with `textmill models add`, or name {FAKE!r} to try"
        )

    def add(self, spec: ModelSpec) -> ModelSpec:
        """Register the model, or replace the one of its name. Raises InvalidModel, UnknownTask."""
        if is_pattern(spec.name):
            raise InvalidModel(f"the name {spec.name!r} is a pattern of names: a model's own has no braces")
        if spec.name in BUILT_IN:
            raise InvalidModel(f"the name {spec.name!r} is taken by a built-in model")
        for name in spec.tasks:
            if spec.kind not in find(name).kinds:
                raise InvalidModel(f"{spec.name}: {name} is not served by models of kind {spec.kind!r}")
        if (spec.engine == "remote") != (spec.remote is not None):
            raise InvalidModel(f"{spec.name}: engine 'remote' and a 'remote' Python go together, or neither is named")
        if (spec.engine == PAIRED) != (spec.encoder is not None):
            raise InvalidModel(f"{spec.name}: engine {PAIRED!r} and an 'encoder' go together, or neither is named")
        if spec.engine in FOLDER_ENGINES:
            read_facts(_folder(spec.path))
        if spec.encoder is not None and read_facts(_folder(spec.encoder)).role.head != "embed":
            raise InvalidModel(f"{spec.name}: {spec.encoder} is no sentence encoder")
        if (spec.engine, spec.dtype) == ("torch", "int8"):
            raise InvalidModel(f"{spec.name}: engine 'torch' computes in float32, bfloat16 and float16, not in int8")
        if spec.adapter is not None:
            check_adapter(Path(spec.adapter))
        self._check_prompts(spec)
        self._specs.put(spec)
        return spec

    def _check_prompts(self, spec: ModelSpec) -> None:
        """Raises InvalidModel for a prompt of no task, for one a model cannot be asked with, and for a version that
        said something else before: results could no longer be traced to a wording."""
        before = self._specs.get(spec.name)
        for name, prompt in spec.prompts.items():
            find(name)
            if spec.kind == "seq2seq" and (prompt.system or prompt.examples):
                raise InvalidModel(f"{spec.name}: prompts.{name}: 'system' and 'examples' are for causal models")
            was = before.prompts.get(name) if before is not None else None
            if was is not None and was != prompt and was.version == prompt.version:
                raise InvalidModel(
                    f"{spec.name}: prompts.{name} has changed and is version {prompt.version!r} as before: "
                    "give it another version"
                )

    def remove(self, name: str) -> bool:
        """Take the model out; its files stay. False when there was none of that name."""
        return bool(NAME.fullmatch(name)) and self._specs.remove(name)

    def sync(self, file: Path) -> builtins.list[ModelSpec]:
        """Register what a TOML file lists, one table `[models.NAME]` each; other entries stay.

        A table needs `path` (absolute, or from the file's folder) and may set any field of ModelSpec; what it does
        not set is read from the model's configuration. Raises InvalidSettings that names the entry.
        """
        return [self._sync_one(file, name, entry) for name, entry in _tables(file).items()]

    def _sync_one(self, file: Path, name: str, entry: Mapping[str, Any]) -> ModelSpec:
        try:
            spec = _declared(file, name, entry)
            return spec if self._specs.get(spec.name) == spec else self.add(spec)
        except (ValidationError, InvalidModel, UnknownTask, TypeError) as error:
            raise InvalidSettings(f"{file}: [models.{name}]: {error}") from error


def inspect(path: str | Path, *, name: str | None = None) -> ModelSpec:
    """What a model folder, or a Hub id in the local Hugging Face cache, can be registered as.

    Reads JSON files only. Raises InvalidModel for what cannot, or must not, be loaded. `name`: default is the
    folder's, or the last part of the Hub id.
    """
    if not str(path) or "\0" in str(path):
        raise InvalidModel(f"{str(path)!r} is no path of a folder")
    given = Path(path).expanduser()
    folder = given.absolute() if given.is_dir() else _cached(str(path))
    facts = read_facts(folder)
    cached = folder.parent.name == "snapshots"
    title = str(path).rpartition("/")[2] if folder != given.absolute() else _title(folder)
    return ModelSpec(
        name=_tidy(name or title),
        path=str(folder),
        revision=folder.name if cached else None,
        kind=facts.role.kind,
        head=facts.role.head,
        tasks=facts.role.tasks,
        max_input_tokens=facts.max_input_tokens,
        dimensions=facts.dimensions,
        context_tokens=facts.context_tokens,
    )


def _built_in(name: str) -> ModelSpec:
    if name == LANGID:
        note = "140 languages told apart by py3langid, on any CPU"
        tasks: tuple[str, ...] = ("detect_language",)
        return ModelSpec(name=name, path=name, kind="encoder", head="classify", tasks=tasks, engine=name, note=note)
    tasks = tuple(task.name for task in all_tasks())
    note = "the fake engine: made-up answers, for dry runs and tests"
    return ModelSpec(
        name=FAKE,
        path=FAKE,
        kind="any",
        head="generate",
        tasks=tasks,
        engine=FAKE,
        max_input_tokens=FAKE_TOKENS,
        note=note,
    )


def _of_pattern(pattern: Pattern) -> ModelSpec:
    return ModelSpec(
        name=pattern.text,
        path=pattern.text,
        kind="seq2seq",
        head="generate",
        tasks=("translate",),
        engine=ENGINE,
        note=f"the models there are: {pattern.shown}",
    )


def _folder(path: str) -> Path:
    """A registered path, which must not depend on the folder a worker happens to run in."""
    if "\0" in path or not os.path.isabs(path):
        raise InvalidModel(f"{path!r}: a model is registered by the absolute path of its folder")
    return Path(path)


def _title(folder: Path) -> str:
    """`models--owner--name` of a cache snapshot is `name`; any other folder is called as it is."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name


def _tidy(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", name).strip("._@-")[:190] or "model"


def _cached(given: str) -> Path:
    """The snapshot of a Hub id in the local cache; nothing is downloaded. Raises InvalidModel."""
    if not HUB_ID.fullmatch(given):
        raise InvalidModel(f"{given}: no such folder")
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    model = cache / f"models--{given.replace('/', '--')}"
    try:
        commit = (model / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{given}: no such folder, and no such model in the Hugging Face cache {cache}") from error
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise InvalidModel(f"{model / 'refs' / 'main'}: does not name a commit")
    return (model / "snapshots" / commit).absolute()


def _tables(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """The entries of a models file. Raises InvalidSettings."""
    try:
        with file.open("rb") as stream:
            content = tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{file}: the models file cannot be read: {error}") from error
    tables = content.get("models")
    if content.keys() - {"models"} or not isinstance(tables, dict):
        raise InvalidSettings(f"{file}: a models file has one table [models.NAME] for each model, and nothing else")
    if wrong := [name for name, table in tables.items() if not isinstance(table, dict)]:
        raise InvalidSettings(f"{file}: {wrong[0]} is not a table [models.{wrong[0]}]")
    return tables


def _declared(file: Path, name: str, entry: Mapping[str, Any]) -> ModelSpec:
    """The entry, completed by what the model's configuration says unless another engine loads it."""
    fields = {"path": "", **entry, "name": name}
    local = (file.parent / Path(fields["path"]).expanduser()).absolute()
    if fields.get("engine", "torch") not in FOLDER_ENGINES and not (fields.get("remote") and local.is_dir()):
        return ModelSpec.model_validate(fields)
    if not fields["path"]:
        raise InvalidModel("no 'path'")
    if fields.get("encoder"):
        fields["encoder"] = str((file.parent / Path(fields["encoder"]).expanduser()).absolute())
    found = inspect(local if local.is_dir() else str(fields["path"]))
    return ModelSpec.model_validate({**found.model_dump(), **fields, "path": found.path})

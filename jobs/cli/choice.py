"""Which model a local run uses: the one named, a folder or Hub id to register, or the only one there is."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import InvalidModel, UnknownModel

if TYPE_CHECKING:
    from jobs.models import ModelSpec, Registry
    from jobs.store import Store
    from jobs.tasks import AnyTask

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def choose(store: "Store", registry: "Registry", task: "AnyTask", wanted: str | None) -> str:
    """The registry's name of the model to use. Raises UnknownModel or InvalidModel saying what could be typed."""
    from jobs.models import BUILT_IN

    if wanted is None:
        return only_one(registry.list(), task.name)
    if wanted in BUILT_IN or store.models.get(wanted) is not None:
        return wanted
    if Path(wanted).is_dir() or HUB_ID.fullmatch(wanted):
        return _registered(store, registry, wanted)
    if wanted.startswith((".", "/", "~")):
        raise InvalidModel(f"{wanted}: no such folder")
    return registry.get(wanted).name


def only_one(specs: "list[ModelSpec]", task: str) -> str:
    from jobs.models import FAKE

    names = [spec.name for spec in specs if task in spec.tasks and spec.name != FAKE]
    if len(names) == 1:
        return names[0]
    if names:
        raise UnknownModel(f"several models serve {task}; choose one with --model: {', '.join(names)}")
    raise UnknownModel(
        f"no model serves {task} yet. `textmill models fetch demo` gets two small ones, `--model FOLDER` takes one of"
        " yours, and `--model fake` tries things out without a model"
    )


def _registered(store: "Store", registry: "Registry", wanted: str) -> str:
    """Register a folder or Hub id under its own name, or beside another model of that name."""
    from jobs.models import BUILT_IN, inspect

    spec = inspect(wanted)
    there = store.models.get(spec.name)
    if there is not None and there.path == spec.path:
        return there.name
    if there is not None or spec.name in BUILT_IN:
        spec = spec.model_copy(update={"name": f"{spec.name}-{hashlib.sha256(spec.path.encode()).hexdigest()[:6]}"})
    if store.models.get(spec.name) is None:
        registry.add(spec)
    return spec.name

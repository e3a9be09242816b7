"""What stands for an item and all that decides its result: the same fingerprint, the same answer."""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel

from jobs.models import ModelSpec
from jobs.schemas import Item
from jobs.tasks import AnyTask, merge
from jobs.tasks.base import Generate, Request

VERSION = 1
"""Raised when results come out differently although nobody asked otherwise: a default or a task's wording changed."""
BYTES = 16
"""Of SHA-256, kept: two of a billion items are the same by chance once in 10^20."""
PREFIXES_KEPT = 1024
NO_PART = {"name", "tasks", "kind", "head", "device", "dimensions", "context_tokens", "note"}
"""What a registry's entry says that changes no result, or only says again what others say."""

_PLAIN = attrgetter("__dict__")


class Print(NamedTuple):
    """What an item is known by from one job to the next."""

    key: bytes
    """Which item it is: by its `custom_id`, else by its own fields, wherever it stands in its input."""
    fingerprint: bytes
    """What is asked about what: task, model, params and the item's own fields."""


class Fingerprints:
    """The fingerprints of one job's items. Safe to use from several threads."""

    def __init__(
        self,
        task: AnyTask,
        params: BaseModel,
        model: ModelSpec,
        *,
        find: Callable[[str], ModelSpec] | None = None,
        computed: str = "",
    ) -> None:
        """`params`: the job's, checked. `find`: the entry of another model, for jobs whose items go to several.
        `computed`: what else decides the result, where it is known."""
        fields = [name for name in task.input.model_fields if name not in Item.model_fields]
        self._values = attrgetter(*fields)
        self._task, self._params, self._model, self._find, self._computed = task, params, model, find, computed
        self._prefix = lru_cache(PREFIXES_KEPT)(self._new_prefix)

    def of(self, items: Sequence[Item], models: Sequence[str | None] = ()) -> list[bytes]:
        """One for each item, in order. `models`: where items have their own. Raises InvalidParams for an item's."""
        return [self._whole(item, content, models[at] if models else None) for at, (item, content) in self._all(items)]

    def prints(self, items: Sequence[Item], models: Sequence[str | None] = ()) -> list[Print]:
        """The same, each with the item's key."""
        return [
            Print(_key(item, content), self._whole(item, content, models[at] if models else None))
            for at, (item, content) in self._all(items)
        ]

    def _all(self, items: Sequence[Item]) -> "enumerate[tuple[Item, bytes]]":
        sha, dumps, values = hashlib.sha256, orjson.dumps, self._values
        return enumerate([(item, sha(dumps(values(item), default=_PLAIN)).digest()) for item in items])

    def _whole(self, item: Item, content: bytes, model: str | None) -> bytes:
        own = orjson.dumps(item.params, option=orjson.OPT_SORT_KEYS) if item.params else None
        return hashlib.sha256(self._prefix(model, own) + content).digest()[:BYTES]

    def _new_prefix(self, model: str | None, own: bytes | None) -> bytes:
        """A digest of all but the item's own fields."""
        params = merge(self._params, orjson.loads(own)) if own else self._params
        asked = params.model_dump(mode="json", exclude_defaults=True)
        spec = self._model if model is None or self._find is None else self._find(model)
        parts = [VERSION, self._task.name, identity(spec), asked, self._computed]
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()


def identity(model: ModelSpec) -> dict[str, Any]:
    """What decides a model's results. A model that names a revision is that revision, wherever it lies."""
    path = {"path"} if model.revision is not None else set()
    said = model.model_dump(mode="json", exclude_defaults=True, exclude=NO_PART | path)
    return {"name": model.name, **said}


def deterministic(request: Request, in_force: Any) -> bool:
    """Whether the same request gives the same answer at any place of any job: nothing is drawn by chance.

    `in_force`: the model's own generation defaults.
    """
    if not isinstance(request, Generate):
        return True
    sampling = request.sampling
    if sampling.temperature is not None:
        return sampling.temperature == 0
    return sampling.top_p is None and sampling.top_k is None and not in_force.get("do_sample")


def _key(item: Item, content: bytes) -> bytes:
    if item.custom_id is None:
        return content[:BYTES]
    # The word before it keeps a name from ever being taken for a text.
    return hashlib.sha256(b"custom_id:" + item.custom_id.encode()).digest()[:BYTES]

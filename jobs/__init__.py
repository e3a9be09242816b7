"""Textmill: bulk NLP jobs on your own machines. These are the public names; each is loaded when first used."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.client import Client as Client
    from jobs.corpus import Named as Named
    from jobs.corpus import open_sink as open_sink
    from jobs.corpus import open_source as open_source
    from jobs.errors import TextmillError as TextmillError
    from jobs.handle import JobHandle as JobHandle
    from jobs.remote.aio import AsyncClient as AsyncClient
    from jobs.schemas import Item as Item
    from jobs.schemas import Job as Job
    from jobs.schemas import Result as Result
    from jobs.settings import Settings as Settings
    from jobs.settings import load_settings as load_settings
    from jobs.states import JobState as JobState

__all__ = ["AsyncClient", "Client", "Item", "Job", "JobHandle", "JobState", "Named", "Result", "Settings"]
__all__ += ["TextmillError", "load_settings", "open_sink", "open_source"]

_HOMES = {
    "AsyncClient": "jobs.remote.aio",
    "Client": "jobs.client",
    "Item": "jobs.schemas",
    "Job": "jobs.schemas",
    "JobHandle": "jobs.handle",
    "JobState": "jobs.states",
    "Named": "jobs.corpus",
    "Result": "jobs.schemas",
    "Settings": "jobs.settings",
    "TextmillError": "jobs.errors",
    "load_settings": "jobs.settings",
    "open_sink": "jobs.corpus",
    "open_source": "jobs.corpus",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Finds an engine by its name: a file or folder here, or an entry point `textmill.engines` of another distribution."""

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from jobs.errors import ModelFailed
from worker.engines.base import Engine

GROUP = "textmill.engines"
NOT_ENGINES = frozenset({"base", "batch", "converted", "loop", "routes"})
EXTRAS = {"ctranslate2": "ctranslate2", "openvino": "openvino"}
"""The extra that brings an engine's libraries; `worker` for the others."""


def engine(name: str) -> Engine:
    """A new engine of that name. Raises ModelFailed when there is none, or when its libraries are not installed."""
    plugins = _plugins()
    if name not in names():
        raise ModelFailed(f"unknown engine {name!r}; known engines: {', '.join(names())}")
    try:
        factory = plugins[name].load() if name in plugins else _module(name).ENGINE
    except ImportError as error:
        extra = EXTRAS.get(name, "worker")
        raise ModelFailed(f"engine {name!r} cannot be loaded here: {error}; install textmill[{extra}]") from error
    return cast(Engine, factory())


def names() -> list[str]:
    """Every engine there is, its libraries installed or not."""
    return sorted({*_shipped(), *_plugins()})


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _shipped() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__)} - NOT_ENGINES


def _plugins() -> dict[str, EntryPoint]:
    """Entry points by name; a shipped engine cannot be replaced by accident."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in _shipped()}

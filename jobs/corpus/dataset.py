"""Datasets as Hugging Face's `save_to_disk` leaves them: a folder of Arrow files in an order that it notes."""

import os
from pathlib import Path
from typing import Any

import orjson

from jobs.errors import InvalidInput

STATE, SPLITS = "state.json", "dataset_dict.json"


def files(name: str) -> list[Path] | None:
    """The Arrow files of a saved dataset, or of one split of several (`folder#split`); None: it is neither.

    Raises InvalidInput when no split is named, or another one, or the folder is not as it was saved.
    """
    folder, split = _split(name)
    if folder is None:
        return None
    if (folder / SPLITS).is_file():
        splits = _read(folder / SPLITS).get("splits") or []
        if split not in splits:
            said = f"no split {split!r}" if split else "a dataset of several splits; name one"
            named = ", ".join(f"{folder}#{each}" for each in splits)
            raise InvalidInput(f"{folder}: {said}: {named}")
        folder = folder / str(split)
    elif split is not None:
        raise InvalidInput(f"{folder}: has no splits, and {split!r} is named")
    if not (folder / STATE).is_file():
        return None
    return [_inside(folder, each) for each in _read(folder / STATE).get("_data_files") or []]


def _split(name: str) -> tuple[Path | None, str | None]:
    if os.path.isdir(name):
        return Path(name), None
    folder, sign, split = name.rpartition("#")
    is_split = sign and any((Path(folder) / each).is_file() for each in (SPLITS, STATE))
    return (Path(folder), split) if is_split else (None, None)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{path}: is no JSON object")
    if found.get("_indices_data_files") or found.get("_indices_files"):
        raise InvalidInput(f"{path}: only some rows are chosen; save the dataset again after flatten_indices()")
    return found


def _inside(folder: Path, entry: Any) -> Path:
    """Raises InvalidInput for a name that leads elsewhere: the dataset may be another person's."""
    name = entry.get("filename") if isinstance(entry, dict) else None
    if not isinstance(name, str) or Path(name).name != name:
        raise InvalidInput(f"{folder / STATE}: {name!r} is no name of a file beside it")
    return folder / name

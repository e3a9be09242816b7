"""What a glob or a folder of files stands for: the files in it, sorted by path, hidden ones left out."""

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.errors import InvalidInput

Known = Callable[[Path], bool]
"""Whether a file's name tells a format."""


def is_glob(name: str) -> bool:
    """Whether it is a pattern of paths; a file or folder of that very name is no pattern."""
    return glob.has_magic(name) and not os.path.lexists(name)


def matched(pattern: str) -> list[str]:
    """The files that a pattern fits (`**`: any folders), sorted. Raises InvalidInput when there is none."""
    found = sorted(set(glob.glob(pattern, recursive=True)))
    files = [path for path in found if not os.path.isdir(path)]
    if not files:
        why = (
            "matches folders alone; end it with a name of files, as in" if found else "matches no file; one that does:"
        )
        raise InvalidInput(f"{pattern}: the pattern {why} 'data/**/*.jsonl'")
    return files


def known_files(folder: Path, known: Known) -> tuple[list[Path], list[OSError]]:
    """The files of known formats in a folder and the folders inside, sorted by path, and which of those cannot be
    read."""
    unreadable: list[OSError] = []
    return sorted(path for path in _visible(folder, unreadable) if known(path)), unreadable


def is_hidden(name: str) -> bool:
    """Whether files and folders of this name are left out of folders."""
    return name.startswith(".")


def _visible(folder: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (Path(root, name) for name in names if not is_hidden(name))

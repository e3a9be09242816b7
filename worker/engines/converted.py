"""Models converted for another library: made once, and found again by what they were made from."""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from jobs.errors import ModelFailed

log = logging.getLogger("textmill.worker")

JSON_BYTES = 2**20
"""Files of up to this size count by their content, larger ones by size and time of change."""


def converted(cache: Path | None, sources: list[Path], recipe: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled from the `sources` by this recipe, now or at an earlier time.

    Safe for several processes at once: one makes it while the others wait, and a half-made folder never has the
    final name. Raises ModelFailed without a cache, and what `make` raises.
    """
    if cache is None:
        raise ModelFailed("this engine converts models, and was given no folder to keep them in")
    folder = cache / _key(sources, recipe)
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(folder.with_suffix(".lock")):
            if not folder.exists():
                _make(folder, make)
    return folder


def _key(sources: list[Path], recipe: str) -> str:
    digest = sha256(recipe.encode())
    for source in sources:
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            digest.update(_identity(file, str(file.relative_to(source))))
    return digest.hexdigest()[:40]


def _identity(file: Path, name: str) -> bytes:
    """What changes when the file does, without reading gigabytes of weights."""
    state = file.stat()
    if state.st_size <= JSON_BYTES:
        return f"{name}\0".encode() + sha256(file.read_bytes()).digest()
    return f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode()


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    aside = folder.with_suffix(".making")
    shutil.rmtree(aside, ignore_errors=True)  # left by a process that was killed
    aside.mkdir()
    try:
        log.info("converting a model into %s, once", folder)
        make(aside)
        _to_disk(aside)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    """A power cut after the rename must not leave the name without the bytes."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

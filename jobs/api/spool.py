"""Where bodies lie while they arrive: beside the database, on the disk that is looked after."""

import tempfile
from pathlib import Path


def spool(home: Path) -> Path:
    """The folder, made if it is not there."""
    folder = home / "uploads"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def spool_all_in(home: Path) -> None:
    """Have this process keep all its temporary files there, those of parsed forms too: /tmp may be memory."""
    tempfile.tempdir = str(spool(home))

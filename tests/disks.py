"""A small file system of a test's own, to be filled and freed. Only root may mount one."""

import os
import subprocess
from pathlib import Path
from typing import Self


class SmallDisk:
    """A tmpfs on `folder`, if it could be mounted: see `mounted`."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self._filler = folder / "filler"
        self.folder = folder
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
        self.mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Leave no byte."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                return

    def free(self) -> None:
        self._filler.unlink()

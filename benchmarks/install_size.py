"""How large a plain install is, without extras: the files as the wheels hold them, and with Python's byte code."""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.report import show

ROOT = Path(__file__).parent.parent
LARGEST = 8


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="textmill-size-") as folder:
        packages = _install(Path(folder) / "venv")
        sources, byte_code = _weigh(packages, code=False), _weigh(packages, code=True)
    rows = [_row("all", sum(sources.values()), sum(byte_code.values()))]
    rows += [_row(name, sources[name], byte_code[name]) for name, _ in (sources + byte_code).most_common(LARGEST)]
    show("install_size", rows, note="MB of 1,000,000 bytes")


def _install(venv: Path) -> Path:
    """A fresh environment that holds Textmill and its dependencies, not even pip; its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "-qq", "--compile"]
    subprocess.run([*pip, "-c", "constraints.txt", "."], cwd=ROOT, check=True)
    return next((venv / "lib").glob("python*/site-packages"))


def _weigh(folder: Path, *, code: bool) -> Counter[str]:
    """Bytes by package; byte code or everything else."""
    sizes: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and (path.suffix == ".pyc") is code:
            sizes[path.relative_to(folder).parts[0].split("-")[0].lower()] += path.stat().st_size
    return sizes


def _row(name: str, files: int, code: int) -> dict[str, object]:
    return {
        "package": name,
        "files, MB": round(files / 1e6, 1),
        "byte code, MB": round(code / 1e6, 1),
        "together, MB": round((files + code) / 1e6, 1),
    }


if __name__ == "__main__":
    main()

"""Turns `pip freeze --all` on stdin into constraints.txt on stdout; `make constraints` runs it."""

import re
import sys
from collections.abc import Iterable, Iterator

HEADER = """\
# Every dependency of every extra, transitive ones included, at the version the tests ran with.
# Renewed by `make constraints`; not edited by hand. torch is the same pin for a laptop and a GPU machine;
# the CUDA packages that its Linux wheel brings along follow from it and are left to it.
"""
LEFT_OUT = re.compile(r"^(textmill|pip|triton|nvidia-[\w.-]+|cuda-[\w.-]+)\b", re.IGNORECASE)
OTHER_PYTHONS = ("async-timeout==5.0.1",)
"""Needed on Python below 3.11.3 only (redis 8), so a resolution on a later one does not see it."""


def pins(frozen: Iterable[str]) -> Iterator[str]:
    """The pins, sorted by name, without local version labels such as `+cpu`."""
    kept = {line.strip().split("+")[0] for line in frozen if "==" in line and not LEFT_OUT.match(line)}
    yield from sorted(kept.union(OTHER_PYTHONS), key=str.lower)


if __name__ == "__main__":
    print(HEADER + "\n".join(pins(sys.stdin)))

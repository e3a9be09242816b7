"""Made-up inputs: reproducible English-looking lines of a chosen length."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

_COMMON = """\
the of and to in a is that for it was on are as with his they at be this from have or by one had not
but what all were when we there can an your which their said if do will each about how up out them
then she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may water long little very
after words called just where most know price service delivery late broken great excellent terrible
refund quality arrived package support answer friendly slow quick recommend"""
WORDS = _COMMON.split()


def lines(n: int, *, characters: int = 170, seed: int = 0) -> Iterator[str]:
    """`n` texts of about `characters` each."""
    source = random.Random(seed)
    for _ in range(n):
        yield " ".join(source.choices(WORDS, k=max(1, round(characters / 5.2))))


def mixed(n: int, *, shortest: int = 5, longest: int = 400, seed: int = 0) -> list[str]:
    """`n` texts whose number of words is log-normal: most are short, a few are long."""
    source = random.Random(seed)
    counts = (min(longest, max(shortest, round(source.lognormvariate(3.6, 0.9)))) for _ in range(n))
    return [" ".join(source.choices(WORDS, k=count)) for count in counts]


def write_jsonl(path: Path, n: int) -> int:
    """Write `n` items of about 200 bytes; the bytes of the whole file."""
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(lines(n)):
            file.write(json.dumps({"custom_id": f"item-{number}", "text": text}) + "\n")
    return path.stat().st_size

"""How fast one core reads a corpus into items, format by format, as it is, mapped and filtered, beside the plain loop
of the library that is made for it; and how much memory that takes. Each reading has a process of its own."""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.report import show
from benchmarks.texts import lines
from jobs.corpus import Rows, open_source

FORMATS = ("jsonl", "csv", "tsv", "parquet")
LENGTHS = {"60-200": (60, 200), "1k-4k": (1000, 4000)}
"""Bytes of a text."""
COLUMNS = ("nr", "text", "lang", "stars")
DISTINCT_BYTES = 32 * 2**20
"""Of the texts a file is made of: many more than a compressor looks back."""
ROWS_OF_A_GROUP = 100_000
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "mapped": {"main_field": "prompt", "rows": Rows(map={"prompt": "text", "custom_id": "nr"})},
    "filtered, template": {"rows": Rows(template="{lang}: {text}", where="stars >= 2 and lang != 'xx'")},
}
PLAIN = "plain loop"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=500, help="Of texts in each corpus.")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=LENGTHS)
    parser.add_argument("--ways", nargs="+", choices=(*WAYS, PLAIN), default=(*WAYS, PLAIN))
    parser.add_argument("--folder", help="Where the corpora are written; by default a temporary folder.")
    parser.add_argument("--read", nargs=2, metavar=("FILE", "WAY"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        print(json.dumps(measured(Path(asked.read[0]), asked.read[1])))
        return
    rows = []
    for length in asked.lengths:
        for form in asked.formats:
            with tempfile.TemporaryDirectory(prefix="textmill-corpora-", dir=asked.folder) as folder:
                path = Path(folder) / f"corpus.{form}"
                write(path, length, asked.mb * 10**6)
                rows += [told(form, length, way, asked.mb, in_a_process(path, way)) for way in asked.ways]
    show("corpora", rows, note=f"{asked.mb} MB of texts, one core")


def write(path: Path, length: str, size: int) -> None:
    """A corpus with that many bytes of texts, in the format of its suffix."""
    if path.suffix == ".jsonl":
        with path.open("wb") as file:
            file.writelines(
                json.dumps(dict(zip(COLUMNS, row, strict=True))).encode() + b"\n" for row in made(length, size)
            )
    elif path.suffix == ".parquet":
        write_parquet(path, length, size)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(made(length, size))


def write_parquet(path: Path, length: str, size: int) -> None:
    import pyarrow
    from pyarrow import parquet

    rows, writer = made(length, size), None
    while group := list(islice(rows, ROWS_OF_A_GROUP)):
        table = pyarrow.table(dict(zip(COLUMNS, zip(*group, strict=True), strict=True)))
        writer = writer or parquet.ParquetWriter(path, table.schema, use_dictionary=["lang"])
        writer.write_table(table)
    assert writer is not None
    writer.close()


def made(length: str, size: int) -> Iterator[tuple[int, str, str, int]]:
    """Rows of texts with commas and now and then a quote."""
    shortest, longest = LENGTHS[length]
    source = random.Random(0)
    average = (shortest + longest) // 2
    wide = next(lines(1, characters=DISTINCT_BYTES)).replace(" this ", ", ").replace(" who ", ' "who" ')
    for nr in range(size // average):
        at = source.randrange(len(wide) - longest)
        yield nr, wide[at : at + source.randint(shortest, longest)], source.choice(("en", "de", "xx")), nr % 5


def told(form: str, length: str, way: str, mb: int, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": form,
        "bytes of a text": length,
        "read": way,
        "MB": found["mb"],
        "items": found["items"],
        "MB/s of CPU": round(found["mb"] / found["took_s"], 1),
        "of text": round(mb / found["took_s"], 1),
        "peak MB": found["peak_mb"],
    }


def in_a_process(path: Path, way: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.corpora", "--read", str(path), way]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def measured(path: Path, way: str) -> dict[str, Any]:
    """What reading the file to its end takes, in this process."""
    read = plain_loop(path) if way == PLAIN else lambda: sum(1 for _ in open_source(path, **WAYS[way]))
    with path.open("rb") as file:
        while file.read(1 << 24):  # so that the disk is no part of it
            pass
    before = time.process_time()
    items = read()
    took = time.process_time() - before
    return {"mb": round(path.stat().st_size / 1e6), "items": items, "took_s": took, "peak_mb": peak_mb()}


def peak_mb() -> int:
    """The most memory that this process had. `ru_maxrss` would begin with that of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) // 1000


def plain_loop(path: Path) -> Callable[[], int]:
    """Reads every row as the library gives it, and does nothing with it."""
    if path.suffix == ".jsonl":

        def read() -> int:
            with path.open("rb") as file:
                return sum(1 for _ in map(json.loads, file))
    elif path.suffix == ".parquet":
        from pyarrow import parquet

        def read() -> int:
            with parquet.ParquetFile(path) as file:
                return sum(len(batch.to_pylist()) for batch in file.iter_batches(4096))
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","

        def read() -> int:
            with path.open(newline="", encoding="utf-8") as file:
                return sum(1 for _ in csv.DictReader(file, delimiter=delimiter))

    return read


if __name__ == "__main__":
    main()

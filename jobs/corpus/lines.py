"""Bytes to lines: bounded in memory, without byte order mark and line ends."""

import codecs
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from jobs.corpus.base import Line
from jobs.errors import InvalidInput, Problem

BLOCK_BYTES = 1 << 18
"""How much is read at a time: what fits a processor's cache is split fastest. A slow pipe gives less, and waits for no
more."""

Run = tuple[int, list[bytes] | Problem]
"""The 1-based number of the first of some lines, with these; or a line that is too long."""


def read_lines(stream: BinaryIO, name: str, max_bytes: int) -> Iterator[Line]:
    """Each line without its line end (LF or CRLF), or a Problem for one of more than `max_bytes`."""
    for number, run in read_runs(stream, name, max_bytes):
        if isinstance(run, Problem):
            yield number, run
        else:
            yield from enumerate(run, number)


def read_runs(stream: BinaryIO, name: str, max_bytes: int) -> Iterator[Run]:
    """The same, many lines at a time."""
    number = 1
    for lines in _split(_blocks(stream, name), max_bytes + 1):
        for run in _cut(lines, max_bytes):
            yield number, _too_long(number, max_bytes) if run is None else run
            number += 1 if run is None else len(run)


def not_utf8(line: int, error: UnicodeDecodeError) -> Problem:
    """The problem of a line that is not UTF-8, with the first offending byte."""
    byte = error.object[error.start]
    return Problem(line, "not_utf8", f"not UTF-8: byte 0x{byte:02x} at offset {error.start} of the line")


def _blocks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """The stream without its UTF-8 byte order mark, as it comes."""
    read = getattr(stream, "read1", stream.read)
    start = read(BLOCK_BYTES)
    while 0 < len(start) < len(codecs.BOM_UTF8) and (more := read(BLOCK_BYTES)):
        start += more
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidInput(f"{name}: the file is UTF-16; convert it to UTF-8")
    yield start.removeprefix(codecs.BOM_UTF8)
    while block := read(BLOCK_BYTES):
        yield block


def _split(blocks: Iterator[bytes], most: int) -> Iterator[list[bytes] | None]:
    """The lines that each block ends, without their ends. None: one of more than `most` bytes, which are not held."""
    begun: list[bytes] = []
    size = 0
    for block in blocks:
        first, *rest = block.split(b"\n")
        size += len(first)
        begun = [*begun, first] if size <= most else []
        if rest:
            last = rest.pop()
            if size > most:
                yield None
            else:
                rest.insert(0, b"".join(begun))
            if rest:
                yield [line.rstrip(b"\r") for line in rest] if b"\r" in block or rest[0].endswith(b"\r") else rest
            begun, size = [last] if len(last) <= most else [], len(last)
    if size > most:
        yield None
    elif size:
        yield [b"".join(begun).rstrip(b"\r")]


def _cut(lines: list[bytes] | None, max_bytes: int) -> Iterable[list[bytes] | None]:
    """Where some of them are too long, one by one."""
    if lines is None or max(map(len, lines)) <= max_bytes:
        return [lines]
    return [[line] if len(line) <= max_bytes else None for line in lines]


def _too_long(number: int, max_bytes: int) -> Problem:
    return Problem(number, "line_too_long", f"the line is longer than {max_bytes:,} bytes (setting max_line_bytes)")

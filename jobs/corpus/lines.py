"""Bytes to lines: bounded in memory, without byte order mark and line ends."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from jobs.corpus.base import Line
from jobs.errors import InvalidInput, Problem

DRAIN_BYTES = 1 << 20
"""How much of an overlong line is held at a time while it is passed over."""


def read_lines(stream: BinaryIO, name: str, max_bytes: int) -> Iterator[Line]:
    """Each line without its line end (LF or CRLF), or a Problem for one of more than `max_bytes`."""
    number, limit = 1, max_bytes + 2
    line = _without_mark(stream.readline(limit), name)
    while line:
        text = line.rstrip(b"\r\n")
        if len(text) <= max_bytes:
            yield number, text
        else:
            _pass_over(stream, line)
            message = f"the line is longer than {max_bytes:,} bytes (setting max_line_bytes)"
            yield number, Problem(number, "line_too_long", message)
        line = stream.readline(limit)
        number += 1


def not_utf8(line: int, error: UnicodeDecodeError) -> Problem:
    """The problem of a line that is not UTF-8, with the first offending byte."""
    byte = error.object[error.start]
    return Problem(line, "not_utf8", f"not UTF-8: byte 0x{byte:02x} at offset {error.start} of the line")


def _without_mark(line: bytes, name: str) -> bytes:
    """The first line without a UTF-8 byte order mark. A file of only the mark is empty."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidInput(f"{name}: the file is UTF-16; convert it to UTF-8")
    return line.removeprefix(codecs.BOM_UTF8)


def _pass_over(stream: BinaryIO, line: bytes) -> None:
    """Read to the end of a line of which this is the start, without holding it."""
    while line and not line.endswith(b"\n"):
        line = stream.readline(DRAIN_BYTES)

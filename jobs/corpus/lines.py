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
        if len(line) == limit and not line.endswith(b"\n"):
            yield number, _too_long(stream, number, max_bytes)
        else:
            yield number, line.rstrip(b"\r\n")
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


def _too_long(stream: BinaryIO, number: int, max_bytes: int) -> Problem:
    """Pass over the rest of the line without holding it."""
    piece = stream.readline(DRAIN_BYTES)
    while piece and not piece.endswith(b"\n"):
        piece = stream.readline(DRAIN_BYTES)
    return Problem(number, "line_too_long", f"the line is longer than {max_bytes:,} bytes (setting max_line_bytes)")

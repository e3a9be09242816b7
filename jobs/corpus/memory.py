"""Items that a program hands over: texts, dicts or Item objects."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from jobs.corpus.base import Line
from jobs.errors import InvalidInput, Problem
from jobs.schemas import Item

Given = str | dict[str, Any] | Item


class ItemSource:
    """The items of an iterable; its position, from 1, stands for the line."""

    def __init__(self, items: Iterable[Given], main: str) -> None:
        if isinstance(items, str | bytes | dict):
            raise InvalidInput(f"items is one {type(items).__name__}; give a list of items")
        self._items, self._main = items, main

    def __iter__(self) -> Iterator[Line]:
        return ((number, self._line(number, item)) for number, item in enumerate(self._items, start=1))

    def fingerprint(self) -> str | None:
        """SHA-256 of a list's items; None for an iterator, which can be read only once."""
        if not isinstance(self._items, Sequence):
            return None
        digest = hashlib.sha256()
        for _, line in self:
            digest.update((line if isinstance(line, bytes) else str(line).encode()) + b"\n")
        return digest.hexdigest()

    def locate(self, line: int) -> tuple[str | None, int]:
        return None, line

    def _line(self, number: int, item: Given) -> bytes | Problem:
        try:
            return self._dumped(item)
        except TypeError as error:
            code = "invalid_text" if "surrogates" in str(error) else "invalid_type"
            return Problem(number, code, str(error))
        except ValueError as error:
            return Problem(number, "malformed_json", str(error))

    def _dumped(self, item: Given) -> bytes:
        if isinstance(item, str):
            return orjson.dumps({self._main: item})
        if isinstance(item, Item):
            item = item.model_dump(exclude_none=True)
        if not isinstance(item, dict):
            raise TypeError(f"an item is a text or a dict, not {type(item).__name__}")
        line = orjson.dumps(item)
        if b"null" in line:
            # orjson writes NaN as null, which would silently be another item.
            json.dumps(item, allow_nan=False, default=str)
        return line

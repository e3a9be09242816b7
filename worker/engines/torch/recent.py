"""What was used last, up to a number of entries."""

from collections import OrderedDict
from typing import TypeVar

Value = TypeVar("Value")


class Recent(OrderedDict[str, Value]):
    """Entries by name; the one used longest ago goes first."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def get(self, key: str) -> Value | None:  # type: ignore[override]
        value = super().get(key)
        if value is not None:
            self.move_to_end(key)
        return value

    def put(self, key: str, value: Value) -> None:
        self[key] = value
        if len(self) > self._most:
            self.popitem(last=False)

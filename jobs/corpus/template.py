"""One text made of several columns: `Title: {title}\\n\\n{body}`."""

import re

from jobs.corpus.columns import Row, as_text, columns
from jobs.errors import InvalidInput

MOST_CHARS = 65_536
MOST_FILLED = 16 * 2**20
"""Characters of the text of one row: a long column that stands in it a thousand times would fill the memory."""
PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<column>[^{}]+)\}|(?P<text>[^{}]+)")


class Template:
    """Names of columns in braces, `{{` and `}}` for braces themselves; nothing else has a meaning.

    Raises InvalidInput for braces that are not a pair.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARS:
            raise InvalidInput(f"the template has {len(text):,} characters; it may have {MOST_CHARS:,}")
        self._texts = [""]
        """What stands before, between and after the columns: one more than these."""
        names: list[str] = []
        at = 0
        while at < len(text):
            found = PIECE.match(text, at)
            if found is None:
                raise InvalidInput(
                    f"the template cannot be read at character {at + 1}, {text[at : at + 20]!r}: "
                    "a column's name stands in braces, and a brace itself is {{ or }}"
                )
            if found["column"]:
                names.append(found["column"])
                self._texts.append("")
            else:
                self._texts[-1] += found["brace"][0] if found["brace"] else found["text"]
            at = found.end()
        if not names:
            raise InvalidInput(f"the template {text[:100]!r} names no column, so that all items would be the same")
        self.columns = tuple(dict.fromkeys(names))
        self._values = columns(names)

    def fill(self, row: Row) -> str:
        """The text of a row. A value that is null leaves nothing. Raises KeyError for a column that is not there,
        ValueError for a text that is too long."""
        pieces, size = [self._texts[0]], 0
        for value, text in zip(self._values(row), self._texts[1:], strict=True):
            piece = value if type(value) is str else as_text(value)
            size += len(piece)
            if size > MOST_FILLED:
                raise ValueError(f"the template makes a text of more than {MOST_FILLED:,} characters")
            pieces += (piece, text)
        return "".join(pieces)

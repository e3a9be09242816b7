"""Cuts a text into windows that fit a model, on its own token borders."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Codec, Request

Ask = Callable[[str], Request]
"""The request for one piece of a text; asked with "" it tells how much room the rest of it takes."""

OVERLAP = 8
"""One token in so many is repeated in the next window, so that what a border cuts is seen whole once."""
MAX_OVERLAP = 32

_ABBREVIATED = """
al approx art bzw ca cf dr e.g ed eds eq fig figs i.e inc jr ltd messrs mr mrs ms mt nos nr op pp prof rev sec sr st u.s
vol vs z.b
"""
ABBREVIATIONS = frozenset(_ABBREVIATED.split())
"""Words, in lower case, whose full stop does not end a sentence."""
_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？｡][」』”’）]*|[।؟۔]|\n""")


class Window(NamedTuple):
    """A piece of a text, cut on token borders."""

    text: str
    tokens: int
    gap: str = ""
    """The white space between this part and the next."""
    start: int = 0
    """Where it begins in the text, in characters."""


class Cut(NamedTuple):
    """A text made shorter: what is left, and how many tokens are gone."""

    text: str
    tokens: int
    dropped: int


def split(text: str, ask: Ask, codec: Codec) -> list[Window]:
    """Overlapping windows that cover the text, as large as fit beside the rest of the request. Raises ItemError."""
    document = _Document(text, ask, codec)
    overlap = min(document.room // OVERLAP, MAX_OVERLAP)
    windows: list[Window] = []
    lo, end = 0, len(document.spans)
    while lo < end:
        hi, window = document.forward(lo, min(lo + document.room, end))
        if window.text.strip():
            windows.append(window)
        lo = hi if hi == end else document.after(max(hi - overlap, lo + 1), hi)
    return windows


def parts(text: str, ask: Ask, codec: Codec, *, limit: int | None = None, by_line: bool = False) -> list[Window]:
    """Pieces that cover the text once, of whole sentences where they fit (at most `limit` tokens); `by_line`: each of
    one line. Raises ItemError."""
    document = _Document(text, ask, codec, limit)
    borders, lines = document.sentences(), document.lines() if by_line else []
    found: list[Window] = []
    lo, end, right = 0, len(document.spans), 0
    while lo < end:
        following = bisect_right(lines, lo)
        line_end = lines[following] if following < len(lines) else end
        hi, window = document.forward(lo, min(lo + document.room, line_end), borders)
        body = window.text.strip()
        if body:
            left = document.start(lo) + window.text.index(body)
            if found:
                found[-1] = found[-1]._replace(gap=text[right:left])
            found.append(Window(body, window.tokens))
            right = left + len(body)
        lo = hi
    return found


def truncate(text: str, ask: Ask, codec: Codec, *, keep_end: bool = False, limit: int | None = None) -> Cut:
    """As much of the text's start (or end) as fits beside the rest of the request. Raises ItemError."""
    document = _Document(text, ask, codec, limit)
    total = len(document.spans)
    window = document.backward(total) if keep_end else document.forward(0, min(document.room, total))[1]
    return Cut(window.text, window.tokens, max(total - window.tokens, 0))


class _Document:
    """A text with the characters of each of its tokens, and the room a window of it has."""

    def __init__(self, text: str, ask: Ask, codec: Codec, limit: int | None = None) -> None:
        self.text, self._ask, self._codec = text, ask, codec
        self.spans = codec.spans(text)
        room = codec.room(ask(""))
        self.room = room if limit is None else min(room, max(limit, 1))
        if self.room < 1:
            raise ItemError(ItemErrorCode.TOO_LONG, "what stands beside the text leaves no room for any of it")

    def start(self, token: int) -> int:
        return self.spans[token][0]

    def after(self, token: int, at_most: int) -> int:
        """The first border between characters from `token` on."""
        return next((at for at in range(token, at_most) if self._parts_characters(at)), at_most)

    def forward(self, lo: int, hi: int, preferred: list[int] | None = None) -> tuple[int, Window]:
        """The longest window from token `lo`, at most to `hi`, that still fits when it is tokenized by itself."""
        while hi > lo:
            hi = self._border(lo, hi, preferred)
            window, over = self._window(lo, hi)
            if over <= 0:
                return hi, window
            hi -= over
        raise self._no_piece()

    def backward(self, hi: int) -> Window:
        """The longest window that ends at token `hi` and still fits when it is tokenized by itself."""
        lo = self.after(max(hi - self.room, 1), hi) if hi > self.room else 0
        while lo < hi:
            window, over = self._window(lo, hi)
            if over <= 0:
                return window
            lo = self.after(lo + over, hi)
        raise self._no_piece()

    def sentences(self) -> list[int]:
        """The tokens at which a sentence begins, and the end."""
        starts = self._words
        ends = (match.end() for match in _END.finditer(self.text) if _ends_sentence(self.text, match))
        return sorted({bisect_left(starts, end) for end in ends} | {len(starts)})

    def lines(self) -> list[int]:
        """The tokens at which a line begins."""
        return sorted({bisect_left(self._words, at + 1) for at, char in enumerate(self.text) if char == "\n"})

    @cached_property
    def _words(self) -> list[int]:
        """Where each token's first character stands that is no white space, which SentencePiece counts to the word
        behind it."""
        return [end - len(self.text[start:end].lstrip()) for start, end in self.spans]

    def _window(self, lo: int, hi: int) -> tuple[Window, int]:
        """The window, and by how many tokens it is too long: cut out, a text may tokenize into more of them."""
        piece = self.text[self.spans[lo][0] : self.spans[hi - 1][1]]
        tokens = len(self._codec.spans(piece))
        return Window(piece, tokens, start=self.spans[lo][0]), max(
            tokens - self.room, -self._codec.room(self._ask(piece))
        )

    def _border(self, lo: int, hi: int, preferred: list[int] | None) -> int:
        """The best place to cut at or before `hi`: a preferred one, else before a word, else between characters."""
        if hi == len(self.spans):
            return hi
        if preferred is not None:
            at = bisect_right(preferred, hi) - 1
            if at >= 0 and preferred[at] > lo:
                return preferred[at]
            return self._before_word(lo, hi)
        return self._between(lo, hi)

    def _before_word(self, lo: int, hi: int) -> int:
        for token in range(hi, lo, -1):
            start = self.start(token)
            if self._parts_characters(token) and any(map(str.isspace, self.text[start - 1 : start + 1])):
                return token
        return self._between(lo, hi)

    def _between(self, lo: int, hi: int) -> int:
        return next((token for token in range(hi, lo, -1) if self._parts_characters(token)), hi)

    def _parts_characters(self, token: int) -> bool:
        """Whether no token before this one reaches into what follows: one character can be several tokens."""
        return self.start(token) >= self.spans[token - 1][1]

    def _no_piece(self) -> ItemError:
        return ItemError(
            ItemErrorCode.TOO_LONG, f"not one character of the text fits: there is room for {self.room} token(s)"
        )


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    """False for `Dr.`, `e.g.`, the initial in `J. Smith`, and a stop before a word in lower case."""
    mark, rest = match.group(), text[match.end() : match.end() + 2].lstrip()
    if mark[0] != ".":
        return True
    if rest[:1].islower():
        return False
    words = text[max(match.start() - 12, 0) : match.start()].split()
    word = words[-1].lstrip("(\"'“‘[") if words else ""
    return word.lower() not in ABBREVIATIONS and not (len(word) == 1 and word.isupper())

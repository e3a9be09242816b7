"""A model's tokenizer as the engine uses it: thread-safe, with the characters of each token, and user text is never
control: special tokens in it are encoded as the plain text they are."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from tokenizers import Tokenizer

from jobs.errors import ModelFailed

MARKUP = "<[", ">]"
"""First and last characters of an added token that steers a model although it is not declared special
(`<think>`, `<｜User｜>`)."""


class Plain(NamedTuple):
    """A text's own tokens, without any that the model adds."""

    ids: list[int]
    spans: list[tuple[int, int]]


class Tokens(Protocol):
    """What differs between the two families of tokenizers."""

    control: frozenset[int]
    """Tokens that steer the model; never made from user text."""
    prefix: list[int]
    suffix: list[int]
    """What stands before and after a single text."""
    has_types: bool

    def plain(self, texts: Sequence[str]) -> list[Plain]:
        """The tokens of each text, with their characters. Raises UnicodeError or TypeError for lone surrogates."""
        ...

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text alone, which are found quicker than with their characters."""
        ...

    def pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Ids and segment types of two texts, with what the model puts between and around them."""
        ...

    def words(self, text: str, plain: Plain) -> list[tuple[int, int]]:
        """Characters of the word that each token of `plain`, the text's own, belongs to."""
        ...

    def whole(self, text: str) -> list[int]:
        """Ids of a text of our own making, in which special tokens are meant."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        ...


def tokens_of(tokenizer: Any) -> Tokens:
    """The tokenizer, wrapped. Raises ModelFailed for one that cannot say which characters a token stands for."""
    if getattr(tokenizer, "is_fast", False):
        return FastTokens(tokenizer)
    if hasattr(tokenizer, "encoder") and (hasattr(tokenizer, "spm_source") or hasattr(tokenizer, "sp_model")):
        return PieceTokens(tokenizer)
    raise ModelFailed(f"tokenizer {type(tokenizer).__name__} has neither a fast form nor a SentencePiece model")


class FastTokens:
    """Over the `tokenizers` library. Works on copies of its own, whose settings never change."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._whole = _copy(tokenizer.backend_tokenizer)
        self._plain = _copy(tokenizer.backend_tokenizer)
        self._plain.encode_special_tokens = True
        added = tokenizer.added_tokens_decoder
        steering = {number for number, token in added.items() if token.special or _is_markup(token.content)}
        self.control = frozenset((steering | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id})
        self.has_types = "token_type_ids" in tokenizer.model_input_names
        self.prefix, self.suffix = self._frame()

    def plain(self, texts: Sequence[str]) -> list[Plain]:
        found = self._plain.encode_batch(list(texts), add_special_tokens=False)
        return [
            Plain(each.ids, each.offsets) if self.control.isdisjoint(each.ids) else self._disarmed(text)
            for text, each in zip(texts, found, strict=True)
        ]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        found = [each.ids for each in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]
        return [
            ids if self.control.isdisjoint(ids) else self._disarmed(text).ids
            for text, ids in zip(texts, found, strict=True)
        ]

    def pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        both = self._plain.encode(first, second, add_special_tokens=True)
        expected = self._plain.num_special_tokens_to_add(True)
        if sum(each in self.control for each in both.ids) <= expected:
            return both.ids, both.type_ids
        left, right = self.plain([first, second])
        middle = self._between()
        ids = [*self.prefix, *left.ids, *middle, *right.ids, *self.suffix]
        second_from = len(ids) - len(right.ids) - len(self.suffix)
        return ids, [int(self.has_types and at >= second_from) for at in range(len(ids))]

    def words(self, text: str, plain: Plain) -> list[tuple[int, int]]:
        found = self._plain.encode(text, add_special_tokens=False)
        if found.ids != plain.ids:  # disarmed: no longer the tokenizer's own words
            return plain.spans
        words = [found.token_to_word(at) for at in range(len(found.ids))]
        return [
            span if word is None else found.word_to_chars(word) or span
            for word, span in zip(words, plain.spans, strict=True)
        ]

    def whole(self, text: str) -> list[int]:
        ids: list[int] = self._whole.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _disarmed(self, text: str) -> Plain:
        """Cut inside each control token, so that none is left: `</s>` as `<` and `/s>`. A vocabulary may hold them as
        ordinary pieces (T5), and normalization may write them (full-width characters)."""
        found = self._plain.encode(text, add_special_tokens=False)
        pairs = list(zip(found.ids, found.offsets, strict=True))
        borders = {start + 1 for number, (start, _) in pairs if number in self.control}
        pieces = _pieces(text, borders)
        if len(pieces) < 2:
            kept = [(number, span) for number, span in pairs if number not in self.control]
            return Plain([number for number, _ in kept], [span for _, span in kept])
        parts = [(at, self._disarmed(piece)) for at, piece in pieces]
        return Plain(
            [number for _, part in parts for number in part.ids],
            [(start + at, end + at) for at, part in parts for start, end in part.spans],
        )

    def _frame(self) -> tuple[list[int], list[int]]:
        bare, framed = (self._plain.encode("a", add_special_tokens=added).ids for added in (False, True))
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return framed[:start], framed[start + len(bare) :]
        raise ModelFailed(f"tokenizer {type(self._tokenizer).__name__} frames texts in a way that is not understood")

    def _between(self) -> list[int]:
        """What stands between the two texts of a pair."""
        bare = self._plain.encode("a", add_special_tokens=False).ids
        ids = self._plain.encode("a", "a", add_special_tokens=True).ids
        return ids[len(self.prefix) + len(bare) : len(ids) - len(self.suffix) - len(bare)]


class PieceTokens:
    """Over SentencePiece, for the tokenizers that Transformers has in Python only (Marian, M2M100)."""

    has_types = False

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pieces = getattr(tokenizer, "spm_source", None) or tokenizer.sp_model
        self._ids: dict[str, int] = tokenizer.encoder
        self._unknown: int = tokenizer.unk_token_id
        codes = {number for piece, number in self._ids.items() if piece.startswith(">>") and piece.endswith("<<")}
        languages = set(getattr(tokenizer, "lang_token_to_id", {}).values())
        self.control = frozenset((set(tokenizer.all_special_ids) | codes | languages) - {self._unknown})
        self.prefix: list[int] = list(getattr(tokenizer, "prefix_tokens", []))
        self.suffix: list[int] = list(getattr(tokenizer, "suffix_tokens", [tokenizer.eos_token_id]))

    def plain(self, texts: Sequence[str]) -> list[Plain]:
        return [self._plain(text) for text in texts]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._plain(text).ids for text in texts]

    def pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        left, right = self.plain([first, second])
        ids = [*self.prefix, *left.ids, *right.ids, *self.suffix]
        return ids, [0] * len(ids)

    def words(self, text: str, plain: Plain) -> list[tuple[int, int]]:
        return plain.spans

    def whole(self, text: str) -> list[int]:
        return self._plain(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        # M2M100's languages are no special tokens to its own tokenizer (Transformers 5.23).
        said = [number for number in ids if number not in self.control]
        text: str = self._tokenizer.decode(said, skip_special_tokens=True)
        return text

    def _plain(self, text: str) -> Plain:
        text.encode()  # a lone surrogate: UnicodeError here, an obscure RuntimeError inside SentencePiece
        found = self._pieces.encode(text, return_type="offset_mapping")
        numbers = [self._ids.get(piece, self._unknown) for piece in found["pieces"]]
        return Plain([self._unknown if number in self.control else number for number in numbers], found["offsets"])


def _copy(backend: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _is_markup(token: str) -> bool:
    return len(token) > 2 and token[0] in MARKUP[0] and token[-1] in MARKUP[1]


def _pieces(text: str, borders: Iterable[int]) -> list[tuple[int, str]]:
    cuts = [*sorted({0, *(at for at in borders if 0 < at < len(text))}), len(text)]
    return [(lo, text[lo:hi]) for lo, hi in pairwise(cuts)]

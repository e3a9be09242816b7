"""Which tokens may follow where a text keeps to a grammar: llguidance (1.9) over a model's vocabulary."""

from typing import Any

import numpy

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Grammar
from jobs.tasks.formats import compiled

NOT_INSTALLED = "answers of a given form need llguidance: pip install 'textmill[structured]'"
Allowed = numpy.ndarray[Any, Any]
"""Whether each word may follow, [words]."""


class Grammars:
    """Grammars over one vocabulary. Raises ItemError where llguidance is not installed or cannot read the tokenizer."""

    def __init__(self, tokenizer: Any, words: int, ends: frozenset[int]) -> None:
        """`words`: how many the model gives scores to; `ends`: tokens that end a text."""
        try:
            from llguidance import LLTokenizer
        except ImportError:
            raise ItemError(ItemErrorCode.INVALID_ITEM, NOT_INSTALLED) from None
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not ends:
            lacking = "an end token" if backend is not None else "a fast form"
            raise ItemError(ItemErrorCode.INVALID_ITEM, f"the model's tokenizer has not {lacking}, which forms need")
        self._words = words
        try:
            known = max(words, len(tokenizer))
            self._tokenizer = LLTokenizer(backend.to_str(), n_vocab=known, eos_token=sorted(ends))
        except ValueError as error:
            said = f"llguidance cannot read the model's tokenizer, which forms need: {error}"
            raise ItemError(ItemErrorCode.INVALID_ITEM, said[:500]) from None

    def follow(self, grammar: Grammar) -> "Follower":
        """A text that begins. Raises ItemError for a grammar that this vocabulary cannot keep to."""
        from llguidance import LLMatcher

        try:
            matcher = LLMatcher(self._tokenizer, compiled(grammar))
        except ValueError as error:
            raise _unsatisfied(str(error)) from None
        if matcher.is_error():
            raise _unsatisfied(matcher.get_error())
        return Follower(matcher, self._words)


class Follower:
    """One text on its way through a grammar."""

    def __init__(self, matcher: Any, words: int) -> None:
        self._matcher, self._words = matcher, words

    def allowed(self) -> Allowed:
        """What may come next; where nothing more may, the end."""
        bits = numpy.frombuffer(self._matcher.compute_bitmask(), numpy.uint8)
        found: Allowed = numpy.unpackbits(bits, bitorder="little")[: self._words].astype(bool)
        return found

    def take(self, token: int) -> None:
        """Go on with this token."""
        self._matcher.consume_token(token)


def _unsatisfied(why: str) -> ItemError:
    return ItemError(ItemErrorCode.SCHEMA_UNSATISFIED, f"the response_format cannot be kept to: {why[:500]}")

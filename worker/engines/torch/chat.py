"""Chat messages into ids through the model's own template, in which a message's text can never forge a turn."""

import re
from collections.abc import Sequence
from typing import Any

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Message
from worker.engines.torch.tokens import Tokens

MARK = re.compile("\ue000(\\d+)\ue001")
"""Stands for a message's text while the template is rendered; private characters that no template looks at."""

PROBE = (Message("user", ""), Message("assistant", ""), Message("user", ""))
"""A conversation that shows how a template goes from turn to turn."""
SHORTEST = 3
"""Characters of a mark that is looked for: a template that sets turns apart by less has none."""


class Chat:
    """The template of one tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Any, tokens: Tokens) -> None:
        self._tokenizer, self._tokens = tokenizer, tokens
        self._turns: dict[tuple[str, ...], list[int]] = {}
        self._marks: dict[tuple[str, ...], frozenset[str]] = {}
        words = sorted(map(str, tokenizer.convert_ids_to_tokens(sorted(tokens.control))), key=len, reverse=True)
        self._words = re.compile("(" + "|".join(map(re.escape, words)) + ")") if words else re.compile(r"(?!)")

    def ids(self, messages: Sequence[Message], answer: str = "") -> list[int]:
        """The conversation up to the start of the model's turn, and what that turn begins with. Raises ItemError."""
        text = self._render(messages) + answer
        self._refuse_forged(messages)
        ids = self._tokens.whole(text)
        if self._control(ids) == self._expected(messages):
            return ids
        return self._kept_apart(messages, answer, text)

    def _render(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise what they like: an unknown role, an order they do not take
            raise ItemError(ItemErrorCode.INVALID_ITEM, f"the model's chat template refuses this: {error}") from error
        return text

    def _refuse_forged(self, messages: Sequence[Message]) -> None:
        """Marks that are special tokens cannot be forged; those of plain text (`ASSISTANT:`, `[/INST]`) could be."""
        roles = tuple(message.role for message in messages)
        if roles not in self._marks:
            self._marks[roles] = self._marks_of(messages) | self._marks_of(PROBE)
        for mark in self._marks[roles]:
            if any(mark in message.content for message in messages):
                raise ItemError(
                    ItemErrorCode.INVALID_TEXT,
                    f"a message contains {mark!r}, with which the model's chat template sets turns apart",
                )

    def _marks_of(self, messages: Sequence[Message]) -> frozenset[str]:
        """What the template writes behind a message that is plain text as a whole."""
        try:
            between = MARK.split(self._render(_marked(messages)))[2::2]
        except ItemError:  # the template does not take a conversation like this
            return frozenset()
        plain = (text.strip() for text in between if not self._words.search(text))
        return frozenset(text for text in plain if len(text) >= SHORTEST)

    def _control(self, ids: Sequence[int]) -> list[int]:
        return [number for number in ids if number in self._tokens.control]

    def _expected(self, messages: Sequence[Message]) -> list[int]:
        """The special tokens that the template itself writes for a conversation of these roles."""
        roles = tuple(message.role for message in messages)
        if roles not in self._turns:
            self._turns[roles] = self._control(self._tokens.whole(self._render(_marked(messages))))
        return self._turns[roles]

    def _kept_apart(self, messages: Sequence[Message], answer: str, text: str) -> list[int]:
        """The same text, special tokens recognized only in what the template wrote."""
        parts = self._own_and_given(messages, answer, text)
        ids: list[int] = []
        run = ""
        for part, own in parts:
            for at, word in enumerate(self._words.split(part) if own else [part]):
                if at % 2 == 0:
                    run += word
                    continue
                ids += [*self._plain(run), *self._tokens.whole(word)]
                run = ""
        return ids + self._plain(run)

    def _plain(self, run: str) -> list[int]:
        return self._tokens.plain([run])[0].ids if run else []

    def _own_and_given(self, messages: Sequence[Message], answer: str, text: str) -> list[tuple[str, bool]]:
        """The rendered text in pieces, each with whether the template wrote it."""
        pieces = MARK.split(self._render(_marked(messages)))
        for tidy in (str, str.strip):
            given = [tidy(message.content) for message in messages]
            parts = [(piece, True) if at % 2 == 0 else (given[int(piece)], False) for at, piece in enumerate(pieces)]
            if "".join(part for part, _ in parts) + answer == text:
                return [*parts, (answer, False)]
        raise ItemError(
            ItemErrorCode.INVALID_TEXT,
            "a message contains special tokens of the model, and its chat template rewrites messages: "
            "the two cannot be told apart",
        )


def _marked(messages: Sequence[Message]) -> list[Message]:
    return [Message(message.role, f"\ue000{at}\ue001") for at, message in enumerate(messages)]

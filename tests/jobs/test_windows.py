"""Windows are as large as a model allows, end on token borders, and together hold the whole text."""

import re
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks import windows
from jobs.tasks.base import Classify, Generate, Request

TEXTS = st.text(alphabet="ab .!\n。漢é👍ß", max_size=120)


class Words:
    """Tokens are words; a request has `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]

    def room(self, request: Any) -> int:
        text = request.text + " " + (request.pair or "") if isinstance(request, Classify) else request.source
        return self.limit - len(self.spans(text))


class Bytes(Words):
    """Tokens are bytes: one character is up to four tokens, all with that character's span."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [(at, at + 1) for at, char in enumerate(text) for _ in char.encode()]


class Merging(Words):
    """Tokens are pairs of letters counted from the beginning of a word, so a text cut elsewhere has other tokens;
    a piece that begins inside a word costs one token more."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        words = [match.span() for match in re.finditer(r"\S+", text)]
        return [(at, min(at + 2, end)) for start, end in words for at in range(start, end, 2)]

    def room(self, request: Any) -> int:
        return super().room(request) - (1 if request.text[:1] in ("b", "é") else 0)


CODECS = [Words, Bytes, Merging]


def ask(text: str) -> Request:
    return Classify(text)


@pytest.mark.parametrize("codec_type", CODECS)
@settings(max_examples=120, deadline=None)
@given(text=TEXTS, limit=st.integers(5, 30))
def test_every_window_fits_and_no_token_is_lost(codec_type: type[Words], text: str, limit: int) -> None:
    codec = codec_type(limit)

    found = windows.split(text, ask, codec)  # type: ignore[arg-type]

    assert all(codec.room(ask(window.text)) >= 0 for window in found)
    assert all(window.tokens == len(codec.spans(window.text)) for window in found)
    assert _covers(found, text)


@pytest.mark.parametrize("codec_type", CODECS)
@settings(max_examples=120, deadline=None)
@given(text=TEXTS, limit=st.integers(5, 30))
def test_parts_with_their_gaps_are_the_text_again(codec_type: type[Words], text: str, limit: int) -> None:
    codec = codec_type(limit)

    found = windows.parts(text, ask, codec)  # type: ignore[arg-type]

    assert "".join(part.text + part.gap for part in found) == text.strip()
    assert not any(part.gap.strip() for part in found)
    assert all(codec.room(ask(part.text)) >= 0 for part in found)


@pytest.mark.parametrize("codec_type", CODECS)
@pytest.mark.parametrize("keep_end", [False, True])
@settings(max_examples=80, deadline=None)
@given(text=TEXTS.filter(lambda text: bool(text.strip())), limit=st.integers(5, 30))
def test_truncation_keeps_one_end_and_counts_the_rest(
    codec_type: type[Words], keep_end: bool, text: str, limit: int
) -> None:
    codec = codec_type(limit)

    cut = windows.truncate(text, ask, codec, keep_end=keep_end)  # type: ignore[arg-type]

    assert codec.room(ask(cut.text)) >= 0
    assert text.rstrip().endswith(cut.text.rstrip()) if keep_end else text.lstrip().startswith(cut.text.lstrip())
    assert cut.dropped == max(len(codec.spans(text)) - cut.tokens, 0)


def test_windows_overlap_a_little_and_are_otherwise_full() -> None:
    text = " ".join(map(str, range(100)))

    found = windows.split(text, ask, Words(40))  # type: ignore[arg-type]

    assert [window.tokens for window in found] == [40, 40, 30]
    assert [window.text.split()[0] for window in found] == ["0", "35", "70"]


def test_room_is_what_the_request_leaves() -> None:
    text, pair = "a " * 20, "x y z"

    found = windows.split(text, partial(Classify, pair=pair), Words(10))  # type: ignore[arg-type]

    assert {window.tokens for window in found[:-1]} == {7}


def test_parts_end_where_sentences_end() -> None:
    text = "One two three. Four five? Six seven eight nine! Ten."

    found = windows.parts(text, ask, Words(5))  # type: ignore[arg-type]

    assert [part.text for part in found] == ["One two three. Four five?", "Six seven eight nine! Ten."]


def test_only_a_sentence_that_does_not_fit_is_cut_and_then_before_a_word() -> None:
    text = "Short one. Aaaa bbbb cccc dddd eeee. Short two."

    found = windows.parts(text, ask, Bytes(16))  # type: ignore[arg-type]

    assert [part.text for part in found] == ["Short one.", "Aaaa bbbb cccc", "dddd eeee.", "Short two."]


def test_a_limit_makes_parts_smaller_than_the_model_allows() -> None:
    text = "One two. Three four. Five six."

    found = windows.parts(text, ask, Words(100), limit=4)  # type: ignore[arg-type]

    assert [part.text for part in found] == ["One two. Three four.", "Five six."]


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith came home again.",
        "It cost 3.5 dollars, e.g. yesterday.",
        "So said J. K. Rowling of it.",
        "He left... and came back.",
        "See Fig. 3 of this paper.",
    ],
)
def test_stops_that_end_no_sentence_cut_none(text: str) -> None:
    document = windows._Document(text, ask, Words(100))  # type: ignore[arg-type]

    assert document.sentences() == [len(text.split())]


@pytest.mark.parametrize("text", ["他来了。他走了。", "हाँ। नहीं।", "A line\nanother line", "Really?! Yes."])
def test_sentences_end_in_other_scripts_too(text: str) -> None:
    document = windows._Document(text, ask, Bytes(1000))  # type: ignore[arg-type]

    assert len(document.sentences()) == 2


def test_a_request_without_room_is_too_long() -> None:
    with pytest.raises(ItemError, match="leaves no room") as caught:
        windows.split("a b", partial(Classify, pair="x y z"), Words(1))  # type: ignore[arg-type]

    assert caught.value.code is ItemErrorCode.TOO_LONG


def test_a_character_of_more_tokens_than_there_is_room_is_too_long() -> None:
    with pytest.raises(ItemError) as caught:
        windows.split("👍👍", ask, Bytes(3))  # type: ignore[arg-type]

    assert caught.value.code is ItemErrorCode.TOO_LONG


def test_a_blank_text_has_no_parts() -> None:
    found = windows.parts(" \n ", lambda text: Generate(source=text), Words(5))  # type: ignore[arg-type]

    assert found == []


def _covers(found: list[windows.Window], text: str) -> bool:
    """Whether the windows can lie in the text, in order, with nothing but white space between them."""
    ends = {0}
    for window in found:
        places = [match.start() for match in re.finditer(f"(?={re.escape(window.text)})", text)]
        ends = {
            max(at + len(window.text), end) for at in places for end in ends if at <= end or not text[end:at].strip()
        }
    return any(not text[end:].strip() for end in ends)

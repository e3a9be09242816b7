"""What every task refuses: in a text before a model sees it, and in what the model gives back."""

from collections.abc import Iterable

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Codec, FinishReason, Generated, Outcome, Request


def check_text(text: str, field: str = "text") -> str:
    """The text itself. Raises ItemError when it is blank, or holds what no database or tokenizer can keep."""
    if not text or text.isspace():
        raise ItemError(ItemErrorCode.EMPTY_TEXT, f"'{field}' is blank")
    # The common case, plain ASCII, is spared a call: this runs once for every item.
    return text if text.isascii() and "\0" not in text else check_characters(text, field)


def check_characters(text: str, field: str) -> str:
    """The text itself, blank or not. Raises ItemError when it holds a NUL character or a lone surrogate."""
    if "\0" in text:
        raise ItemError(ItemErrorCode.INVALID_TEXT, f"'{field}' holds a NUL character at {text.index(chr(0))}")
    if not text.isascii():
        _check_surrogates(text, field)
    return text


def need(codec: Codec, request: type[Request], task: str) -> None:
    """Raises ItemError when the model does not answer this kind of request."""
    if request not in codec.heads:
        known = ", ".join(sorted(head.__name__ for head in codec.heads)) or "none"
        raise ItemError(
            ItemErrorCode.INVALID_ITEM,
            f"{task} asks the model for {request.__name__}, which it does not answer; it answers: {known}",
        )


def first_text(outcome: Outcome) -> str:
    """The text of a generation's first sample, without white space around it. Raises ItemError when there is none."""
    if not isinstance(outcome, Generated) or not outcome.samples:
        raise ItemError(ItemErrorCode.MODEL_ERROR, "the model gave no text")
    return outcome.samples[0].text.strip()


def finish_reason(outcomes: Iterable[Outcome]) -> FinishReason:
    """`length` when the token limit ended the first sample of any of them."""
    firsts = (outcome.samples[0] for outcome in outcomes if isinstance(outcome, Generated))
    return "length" if any(sample.finish_reason == "length" for sample in firsts) else "stop"


def _check_surrogates(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ItemError(
            ItemErrorCode.INVALID_TEXT, f"'{field}' holds a lone surrogate at {error.start}, which is no character"
        ) from None

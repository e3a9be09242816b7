"""Which language a text is in: py3langid 0.4 (BSD; naive Bayes over byte n-grams, 140 languages), no model needed."""

from functools import cache
from typing import Any

from jobs.errors import ItemError, ItemErrorCode

NOT_INSTALLED = "languages are detected by py3langid, which is not installed here: pip install 'textmill[worker]'"


def detect(text: str) -> list[tuple[str, float]]:
    """All languages (ISO 639 codes) with their probabilities, best first.

    None is likelier than the others in a text without letters. Raises ItemError when py3langid is not installed.
    """
    found: list[tuple[str, float]] = _identifier().rank(text)
    return found


def languages() -> list[str]:
    """The codes that can be detected."""
    labels: list[str] = _identifier().labels
    return labels


@cache
def _identifier() -> Any:
    """Loading takes two seconds, and one serves all threads: asking it changes nothing in it."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ItemError(ItemErrorCode.MODEL_ERROR, NOT_INSTALLED) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

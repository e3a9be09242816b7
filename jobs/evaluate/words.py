"""Texts as words, for exact match, token F1 and ROUGE."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
WORD = re.compile(r"\w+")
LATIN_PUNCTUATION = frozenset(string.punctuation)


def normal(text: str) -> str:
    """As SQuAD compares answers (Rajpurkar et al. 2016): lower case, without punctuation, articles and needless
    spaces; punctuation of other scripts counts too."""
    bare = "".join(
        each for each in text.lower() if each not in LATIN_PUNCTUATION and unicodedata.category(each)[0] != "P"
    )
    return " ".join(ARTICLES.sub(" ", bare).split())


def exact(found: str, golds: Sequence[str]) -> float:
    """1 where it is one of the answers, else 0."""
    return float(any(normal(found) == normal(gold) for gold in golds))


def token_f1(found: str, golds: Sequence[str]) -> float:
    """The best F1 of words in common with one of the answers, as SQuAD's script counts it."""
    return max((_f1_of(normal(found).split(), normal(gold).split()) for gold in golds), default=0.0)


def rouge(found: str, golds: Sequence[str]) -> dict[str, float]:
    """F1 of ROUGE-1, -2 and -L (Lin 2004), the best over the references. Words are runs of letters and digits of any
    script in lower case, without stemming."""
    ours = WORD.findall(found.lower())
    theirs = [WORD.findall(gold.lower()) for gold in golds]
    return {
        "rouge1": max((_overlap(ours, each, 1) for each in theirs), default=0.0),
        "rouge2": max((_overlap(ours, each, 2) for each in theirs), default=0.0),
        "rougeL": max((_subsequence(ours, each) for each in theirs), default=0.0),
    }


def _f1_of(ours: Sequence[str], theirs: Sequence[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)  # no answer is right where there is none
    return _f1(sum((Counter(ours) & Counter(theirs)).values()), len(ours), len(theirs))


def _overlap(ours: Sequence[str], theirs: Sequence[str], size: int) -> float:
    some, others = (
        Counter(tuple(each[at : at + size]) for at in range(len(each) - size + 1)) for each in (ours, theirs)
    )
    return _f1(sum((some & others).values()), some.total(), others.total())


def _subsequence(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """By the longest common subsequence, 64 words of the shorter text at a step (Hyyro 2004, "Bit-parallel LCS-length
    computation revisited"): word by word, two long texts would take minutes."""
    short, long = sorted((ours, theirs), key=len)
    places = Counter[str]()
    for at, word in enumerate(short):
        places[word] |= 1 << at
    whole = row = (1 << len(short)) - 1
    for word in long:
        shared = row & places[word]
        row = ((row + shared) | (row - shared)) & whole
    return _f1(len(short) - row.bit_count(), len(ours), len(theirs))


def _f1(common: float, ours: float, theirs: float) -> float:
    return 2 * common / (ours + theirs) if ours + theirs else 0.0

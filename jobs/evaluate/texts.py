"""Texts beside the right ones."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from jobs.errors import InvalidInput, NotInstalled
from jobs.evaluate import words
from jobs.evaluate.cases import Case
from jobs.evaluate.chance import Array
from jobs.evaluate.measured import Measured, means, share


def answers(some: Sequence[Case], read: Callable[[dict[str, Any]], str]) -> Measured:
    found = ["" if case.output is None else read(case.output) for case in some]
    golds = [_texts(case) for case in some]
    exact = [words.exact(*pair) for pair in zip(found, golds, strict=True)]
    shared = [words.token_f1(*pair) for pair in zip(found, golds, strict=True)]
    return means({"exact_match": exact, "token_f1": shared}, "exact_match")


def first_answer(output: dict[str, Any]) -> str:
    return str(output["answers"][0]["answer"]) if output["answers"] else ""


def masks(some: Sequence[Case]) -> Measured:
    """Gold is the word of the gap, or a list with one for each."""
    first, among = [], []
    for case in some:
        golds = case.gold if isinstance(case.gold, list) else [case.gold]
        masks = (case.output or {}).get("masks", [])
        ranked = [[str(each["token_str"]).strip().lower() for each in mask] for mask in masks]
        pairs = [(str(gold).strip().lower(), row) for gold, row in zip(golds, ranked, strict=False)]
        first.append(share(sum(row[:1] == [gold] for gold, row in pairs), len(golds)))
        among.append(share(sum(gold in row for gold, row in pairs), len(golds)))
    return means({"accuracy": first, "among_those_given": among}, "accuracy")


def summaries(some: Sequence[Case]) -> Measured:
    rows = [words.rouge((case.output or {}).get("summary_text", ""), _texts(case)) for case in some]
    return means({name: [row[name] for row in rows] for name in rows[0]}, "rougeL")


def translations(some: Sequence[Case]) -> Measured:
    """BLEU and chrF as sacrebleu counts them (2.6, its defaults)."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise NotInstalled("translations are evaluated by sacrebleu: pip install 'textmill[evaluate]'") from None
    found = [(case.output or {}).get("translation_text", "") for case in some]
    golds = [_texts(case) for case in some]
    bleu, chrf = BLEU(effective_order=True), CHRF()
    each = [bleu.sentence_score(text, refs) for text, refs in zip(found, golds, strict=True)]
    counts = numpy.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in each], dtype=float)
    many = max(map(len, golds))
    columns = [[row[at] if at < len(row) else None for row in golds] for at in range(many)]

    def scores(sums: Array) -> dict[str, float]:
        ours = [int(number) for number in sums]
        made = BLEU.compute_bleu(ours[:4], ours[4:8], ours[8], ours[9], smooth_method="exp")
        return {"bleu": float(made.score)}

    right = numpy.array([chrf.sentence_score(text, refs).score / 100 for text, refs in zip(found, golds, strict=True)])
    whole = {"chrf": float(chrf.corpus_score(found, columns).score)}
    return Measured(counts, scores, "bleu", right, whole=whole)


def _texts(case: Case) -> list[str]:
    """One right text, or several."""
    golds = case.gold if isinstance(case.gold, list) else [case.gold]
    if not all(isinstance(each, str | int | float) for each in golds):
        raise InvalidInput(f"item {case.custom_id}: gold is a text or a list of texts, not {case.gold!r}")
    return [str(each) for each in golds] or [""]

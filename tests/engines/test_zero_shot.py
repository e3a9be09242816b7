"""zero_shot and rerank on real model classes: what the pipeline, or the class by hand, says of the same items."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import TextClassificationOutputElement, ZeroShotClassificationOutputElement

from jobs.models import inspect
from tests.engines.conftest import Subject
from tests.engines.task_on_model import run
from tests.engines.tiny import Tiny

TEXTS = ["the fox jumps over the lazy dog", "rain", "we like long walks, short talks and good food; ", "한국어 fox!"]
LABELS = ["food", "the weather", "a fox"]
CLOSE = 1e-3
"""Weights are drawn so wide here that the plain model's logits are 1e-4 from what they are in double precision."""
Relabelled = Callable[[str, dict[int, str]], Subject]


@pytest.fixture
def relabelled(tiny: Tiny, tmp_path: Path) -> Relabelled:
    """A tiny classifier with other labels, as many as it has classes."""

    def make(name: str, labels: dict[int, str]) -> Subject:
        folder = Path(tiny.copy(name, tmp_path / name).path)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config |= {"id2label": labels, "label2id": {label: at for at, label in labels.items()}}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return Subject(inspect(folder))

    return make


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "deberta", "bart-classifier"])
@pytest.mark.parametrize(
    "labels",
    [{0: "contradiction", 1: "neutral", 2: "entailment"}, {0: "ENTAILMENT", 1: "NEUTRAL", 2: "CONTRADICTION"}],
)
def test_labels_score_as_in_the_pipeline(name: str, labels: dict[int, str], relabelled: Relabelled) -> None:
    subject = relabelled(name, labels)
    folder = subject.codec.folder  # type: ignore[attr-defined]
    plain = transformers.pipeline("zero-shot-classification", model=str(folder), dtype=torch.float32, device="cpu")

    for multi_label in (False, True):
        for text in TEXTS:
            wanted: Any = plain(text, LABELS, multi_label=multi_label)
            found = run(subject, "zero_shot", text, {"labels": LABELS, "multi_label": multi_label}).labels
            assert {each["label"]: each["score"] for each in found} == {
                label: pytest.approx(score, abs=CLOSE)
                for label, score in zip(wanted["labels"], wanted["scores"], strict=True)
            }
            assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)


def test_a_text_longer_than_the_model_is_read_in_windows_beside_every_label(relabelled: Relabelled) -> None:
    subject = relabelled("bert", {0: "contradiction", 1: "neutral", 2: "entailment"})

    found = run(subject, "zero_shot", "the fox jumps " * 60, {"labels": LABELS}).labels

    assert {each["label"] for each in found} == set(LABELS)
    assert sum(each["score"] for each in found) == pytest.approx(1)


def test_a_document_scores_as_the_model_class_by_hand(tiny: Tiny) -> None:
    subject = Subject(tiny("relevance"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tiny("relevance").path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("relevance").path)
    query, documents = "what does a fox eat?", [*TEXTS]
    with torch.inference_mode():
        logits = [model(**tokenizer(query, each, return_tensors="pt")).logits[0, 0] for each in documents]

    found = run(subject, "rerank", {"query": query, "documents": documents}).ranking

    wanted = {at: float(torch.sigmoid(logit)) for at, logit in enumerate(logits)}
    assert {each["index"]: each["score"] for each in found} == {
        at: pytest.approx(s, abs=CLOSE) for at, s in wanted.items()
    }
    assert [each["index"] for each in found] == sorted(wanted, key=lambda at: -wanted[at])


def test_fields_are_called_as_in_hugging_faces_types(relabelled: Relabelled) -> None:
    subject = relabelled("bert", {0: "contradiction", 1: "neutral", 2: "entailment"})

    (best, *_) = run(subject, "zero_shot", "rain", {"labels": LABELS}).labels

    assert set(best) == {"label", "score"}
    assert set(best) == set(ZeroShotClassificationOutputElement.__dataclass_fields__)
    assert set(best) == set(TextClassificationOutputElement.__dataclass_fields__)

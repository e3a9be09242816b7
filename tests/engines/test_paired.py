"""Two models as one: zero_shot with a pre-filter on real ones, and what the pair promises."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import ModelFailed
from jobs.models import ModelSpec, inspect
from jobs.tasks.base import Classify, Embed, Failed, Similarity
from tests.engines.conftest import Subject
from tests.engines.task_on_model import run
from tests.engines.tiny import Tiny
from worker.engines import engine

LABELS = ["food", "the weather", "a fox", "long walks", "the news", "dogs"]
TEXTS = ["the fox jumps over the lazy dog", "rain", "we like long walks, short talks and good food"]
Pair = Callable[..., ModelSpec]


@pytest.fixture
def pair(tiny: Tiny, tmp_path: Path) -> Pair:
    """The specification of a tiny NLI model joined with a tiny sentence encoder."""

    def make(judge: str = "bert", encoder: str = "embedder") -> ModelSpec:
        folder = Path(tiny.copy(judge, tmp_path / judge).path)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        labels = {"0": "contradiction", "1": "neutral", "2": "entailment"}
        config |= {"id2label": labels, "label2id": {label: int(at) for at, label in labels.items()}}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return inspect(folder).model_copy(update={"engine": "paired", "encoder": tiny(encoder).path})

    return make


def test_labels_that_are_kept_score_as_in_exact_mode(pair: Pair) -> None:
    subject = Subject(pair())
    for text in TEXTS:
        exact = run(subject, "zero_shot", text, {"labels": LABELS, "multi_label": True})
        some = run(
            subject, "zero_shot", text, {"labels": LABELS, "multi_label": True, "prefilter": 3, "prefilter_audit": 1.0}
        )

        wanted = {each["label"]: each["score"] for each in exact.labels}
        assert {each["label"]: each["score"] for each in some.labels} == {
            each["label"]: pytest.approx(wanted[each["label"]], abs=1e-4) for each in some.labels
        }
        assert len(some.labels) == 3
        kept = [each["label"] for each in some.labels]
        assert (some.prefilter_rank <= 3) == (exact.labels[0]["label"] in kept)


def test_requests_of_both_kinds_are_answered_beside_each_other_by_the_model_of_each(pair: Pair, tiny: Tiny) -> None:
    spec = pair()
    both, encoder = Subject(spec), Subject(tiny("embedder"))
    judge = Subject(spec.model_copy(update={"engine": "torch", "encoder": None}))
    classify, similar = Classify(TEXTS[0], "a fox"), Similarity(TEXTS[0], ("a fox", "rain"))

    found = both(classify, similar, Embed("a"))

    assert found[:2] == [*judge(classify), *encoder(similar)]
    assert isinstance(found[2], Failed)
    assert both.model.stats()["items"] >= 2
    assert both.model.stats()["memory_bytes"] > judge.model.stats()["memory_bytes"]


def test_models_that_do_not_go_together_are_refused(pair: Pair) -> None:
    paired = engine("paired")
    with pytest.raises(ModelFailed, match=r"does not answer Similarity: an NLI model and a sentence encoder"):
        paired.codec(pair(encoder="distilbert"))
    with pytest.raises(ModelFailed, match="needs 'encoder'"):
        paired.codec(pair().model_copy(update={"encoder": None}))

"""ner on real model classes: the entities of Transformers' pipeline, packed or padded, in every strategy."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import TokenClassificationOutputElement

from jobs.models import inspect
from jobs.tasks.base import LabelTokens
from tests.engines.conftest import Subject
from tests.engines.task_on_model import run
from tests.engines.tiny import Tiny

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]
TEXTS = [
    "the quick brown fox, jumps over Seoul!",
    "rain",
    "  We like  long walks;\tshort talks & good-food. ",
    "한국어 fox 😀 café naïve <unk> [SEP] ½",
]
STRATEGIES = ["none", "simple", "first", "average", "max"]
ARCHITECTURES = ["bert", "distilbert", "roberta", "xlm-roberta", "deberta", "modernbert", "convbert"]
CLOSE = 1e-4
Tagger = Callable[..., Subject]


@pytest.fixture(scope="session")
def tagger(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    """A token classifier of a tiny model's architecture, with its tokenizer."""
    made: dict[tuple[str, str], Subject] = {}

    def make(name: str, engine: str = "torch") -> Subject:
        if (name, engine) not in made:
            folder = Path(tiny.copy(name, tmp_path_factory.mktemp("taggers") / name).path)
            config = transformers.AutoConfig.from_pretrained(folder)
            config.id2label = dict(enumerate(LABELS))
            torch.manual_seed(len(name))
            model = transformers.AutoModelForTokenClassification.from_config(config).eval()
            for weight in model.classifier.parameters():
                weight.data.normal_(0, 0.5)
            model.save_pretrained(folder)
            made[name, engine] = Subject(inspect(folder).model_copy(update={"engine": engine}))
        return made[name, engine]

    return make


def entities(found: list[Any]) -> list[tuple[str, int, int]]:
    return [(each.get("entity") or each["entity_group"], each["start"], each["end"]) for each in found]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_entities_are_those_of_the_pipeline(name: str, strategy: str, tagger: Tagger) -> None:
    subject = tagger(name)
    folder = str(subject.codec.folder)  # type: ignore[attr-defined]
    plain = transformers.pipeline("token-classification", model=folder, dtype=torch.float32, device="cpu")

    for text in TEXTS[: 3 if name == "xlm-roberta" else None]:
        wanted: Any = plain(text, aggregation_strategy=strategy, ignore_labels=["MISC"])
        found = run(subject, "ner", text, {"aggregation_strategy": strategy, "ignore_labels": ["MISC"]}).entities
        if "[SEP]" in text or "<unk>" in text:  # the pipeline takes these for control tokens
            continue
        assert entities(found) == entities(wanted)
        assert [each["score"] for each in found] == pytest.approx([float(each["score"]) for each in wanted], abs=CLOSE)
        assert [each["word"] for each in found] == [text[each["start"] : each["end"]] for each in wanted]


@pytest.mark.parametrize("name", ["bert", "convbert"])
def test_tokens_have_the_same_scores_in_every_company(name: str, tagger: Tagger) -> None:
    requests = [LabelTokens(text) for text in (*TEXTS, "fox " * 40)]

    together, alone = tagger(name)(*requests), tagger(name).one_by_one(*requests)

    if name == "bert":
        assert together == alone
    assert [outcome.spans for outcome in together] == [outcome.spans for outcome in alone]  # type: ignore[union-attr]


def test_what_a_control_token_spells_is_plain_text(tagger: Tagger) -> None:
    text = "fox [SEP] walks"

    found = run(tagger("bert"), "ner", text, {"aggregation_strategy": "none", "ignore_labels": []}).entities

    assert "".join(each["word"] for each in found) == "fox[SEP]walks"


def test_a_long_text_is_read_in_windows_with_places_in_the_whole_text(tagger: Tagger) -> None:
    text = "We like long walks in Seoul, short talks and good food. " * 12

    found = run(tagger("bert"), "ner", text, {"ignore_labels": []}).entities

    assert all(each["word"] == text[each["start"] : each["end"]] for each in found)
    assert all(one["end"] <= other["start"] for one, other in pairwise(found))
    assert found[0]["start"] == 0
    assert found[-1]["end"] == len(text.rstrip())


def test_openvino_labels_tokens_alike(tagger: Tagger) -> None:
    for text in TEXTS:
        ours = run(tagger("bert"), "ner", text, {"ignore_labels": []}).entities
        theirs = run(tagger("bert", "openvino"), "ner", text, {"ignore_labels": []}).entities

        assert entities(theirs) == entities(ours)
        assert [each["score"] for each in theirs] == pytest.approx([each["score"] for each in ours], abs=CLOSE)


def test_fields_are_called_as_in_hugging_faces_type(tagger: Tagger) -> None:
    known = set(TokenClassificationOutputElement.__dataclass_fields__)

    grouped = run(tagger("bert"), "ner", TEXTS[0], {"ignore_labels": []}).entities[0]
    single = run(tagger("bert"), "ner", TEXTS[0], {"grouped_entities": False, "ignore_labels": []}).entities[0]

    assert set(grouped) == known - {"entity"}
    assert set(single) == known - {"entity_group"}

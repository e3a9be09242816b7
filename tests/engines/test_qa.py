"""qa on real model classes: what the class by hand says, decoded in the plainest way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import QuestionAnsweringOutputElement

from jobs.models import inspect
from jobs.tasks.base import Answer
from tests.engines.conftest import Subject
from tests.engines.task_on_model import run
from tests.engines.tiny import Tiny

CONTEXTS = [
    "the quick brown fox, jumps over Seoul!",
    "rain",
    "  We like  long walks;\tshort talks & good-food. ",
    "한국어 fox 😀 café naïve ½",
]
QUESTION = "what does the fox like?"
CLOSE = 1e-3
"""Weights are drawn so wide that the plain model's logits are 1e-4 from what they are in double precision."""
Searcher = Callable[[str], Subject]


@pytest.fixture(scope="session")
def searcher(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """A model with a question-answering head, of a tiny model's architecture and with its tokenizer."""
    made: dict[str, Subject] = {}

    def make(name: str) -> Subject:
        if name not in made:
            folder = Path(tiny.copy(name, tmp_path_factory.mktemp("searchers") / name).path)
            config = transformers.AutoConfig.from_pretrained(folder)
            config.num_labels = 2
            torch.manual_seed(len(name))
            model = transformers.AutoModelForQuestionAnswering.from_config(config).eval()
            for weight in model.qa_outputs.parameters():
                weight.data.normal_(0, 1.0)
            model.save_pretrained(folder)
            made[name] = Subject(inspect(folder))
        return made[name]

    return make


def by_hand(folder: Path, question: str, context: str, longest: int) -> tuple[dict[tuple[int, int], float], float]:
    """Every answer with its score, and the score of none, by brute force over the pairs of tokens."""
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given: Any = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    spans, parts = given.pop("offset_mapping")[0].tolist(), given.sequence_ids(0)
    with torch.inference_mode():
        made = model(**given)
    mine = [at for at, part in enumerate(parts) if part == 1]
    chosen = torch.tensor([0, *mine])
    begins, ends = made.start_logits[0][chosen].softmax(0), made.end_logits[0][chosen].softmax(0)
    found: dict[tuple[int, int], float] = {}
    for i, first in enumerate(mine):
        for j, last in list(enumerate(mine))[i : i + longest]:
            words = [given.token_to_word(0, at) for at in (first, last)]
            low, high = (given.word_to_chars(0, word, sequence_index=1) for word in words)
            if low.start < high.end:
                found[low.start, high.end] = found.get((low.start, high.end), 0.0) + float(begins[i + 1] * ends[j + 1])
    assert spans
    return found, float(begins[0] * ends[0])


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "xlm-roberta", "deberta"])
def test_answers_are_those_of_the_model_class_by_hand(name: str, searcher: Searcher) -> None:
    subject = searcher(name)
    params = {"top_k": 1000, "max_answer_len": 4, "handle_impossible_answer": True}

    for context in CONTEXTS[: 3 if name == "xlm-roberta" else None]:
        wanted, nothing = by_hand(subject.codec.folder, QUESTION, context, longest=4)  # type: ignore[attr-defined]
        found = run(subject, "qa", {"question": QUESTION, "context": context}, params).answers

        scores = {(each["start"], each["end"]): each["score"] for each in found if each["answer"]}
        assert scores == {place: pytest.approx(score, abs=CLOSE) for place, score in wanted.items() if place in scores}
        assert sum(score for place, score in wanted.items() if place not in scores) < CLOSE
        assert [each["score"] for each in found if not each["answer"]] == [pytest.approx(nothing, abs=CLOSE)]
        assert all(each["answer"] == context[each["start"] : each["end"]] for each in found)


def test_an_answer_is_the_same_in_every_company(searcher: Searcher) -> None:
    requests = [Answer(QUESTION, context) for context in (*CONTEXTS, "fox " * 20)]

    assert searcher("bert")(*requests) == searcher("bert").one_by_one(*requests)


def test_a_long_context_is_read_in_windows(searcher: Searcher) -> None:
    context = "We like long walks in Seoul, short talks and good food. " * 12

    (found,) = run(searcher("bert"), "qa", {"question": QUESTION, "context": context}).answers

    assert found["answer"] == context[found["start"] : found["end"]]


def test_fields_are_called_as_in_hugging_faces_type(searcher: Searcher) -> None:
    (found,) = run(searcher("bert"), "qa", {"question": QUESTION, "context": CONTEXTS[0]}).answers

    assert set(found) == set(QuestionAnsweringOutputElement.__dataclass_fields__)


def test_openvino_finds_the_same_answers(searcher: Searcher) -> None:
    ours = searcher("bert")
    spec = inspect(ours.codec.folder)  # type: ignore[attr-defined]
    theirs = Subject(spec.model_copy(update={"engine": "openvino"}))

    for context in CONTEXTS:
        item = {"question": QUESTION, "context": context}
        params = {"top_k": 3, "handle_impossible_answer": True}
        one, other = (run(subject, "qa", item, params).answers for subject in (ours, theirs))

        assert [(each["start"], each["end"]) for each in other] == [(each["start"], each["end"]) for each in one]
        assert [each["score"] for each in other] == pytest.approx([each["score"] for each in one], abs=CLOSE)

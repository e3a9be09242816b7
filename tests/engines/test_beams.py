"""Beam search: the texts that Transformers' own finds, over its settings; a search by itself, step by step."""

from typing import Any

import pytest
import torch
import transformers

from jobs.tasks.base import Generate, Generated, Sampling
from tests.engines.conftest import Subject
from tests.engines.tiny import Tiny
from worker.engines.routes import RoutedModel
from worker.engines.torch.beams import Candidate, Search
from worker.engines.torch.best import best

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

TEXTS = ["the quick brown fox", "a", "Seoul is the capital of Korea and Paris is the capital of France", "rain"]
SETTINGS: list[dict[str, Any]] = [
    {"num_beams": 4},
    {"num_beams": 4, "early_stopping": True},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": 2.0},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": -1.0},
    {"num_beams": 3, "length_penalty": 0.0},
    {"num_beams": 2, "no_repeat_ngram_size": 1, "min_length": 6},
    {"num_beams": 5, "repetition_penalty": 1.3, "early_stopping": True},
    {"num_beams": 4, "max_new_tokens": 2},
    {"num_beams": 3, "forced_bos_token_id": 7, "suppress_tokens": [11, 12]},
    {"num_beams": 3, "forced_eos_token_id": None, "renormalize_logits": True},
    {"num_beams": 3, "eos_token_id": [0, 5, 9, 20]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_beams_find_what_transformers_finds(settings: dict[str, Any], tiny: Tiny) -> None:
    spec = tiny("marian-brief", generation={"max_new_tokens": 20, **settings})
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(spec.path, dtype=torch.float32).eval()
    subject = Subject(spec)
    requests = [Generate(source=text, n=2) for text in TEXTS]
    encoded: Any = subject.codec.encode(requests)
    wanted = []
    for each in encoded:
        given = {"max_new_tokens": 20, **settings, "num_return_sequences": 2}
        made = model.generate(input_ids=torch.tensor([each.payload.ids]), **given)
        wanted.append([_decoded(subject, row, settings) for row in made[:, 1:].tolist()])

    found = subject(*requests)

    assert isinstance(subject.model, RoutedModel)
    assert subject.model.second.stats()["items"] == 0
    assert [[sample.text for sample in each.samples] for each in found if isinstance(each, Generated)] == wanted


def test_texts_of_different_lengths_are_among_those_compared(tiny: Tiny) -> None:
    found = Subject(tiny("marian-brief"))(*(Generate(source=text, sampling=Sampling(num_beams=4)) for text in TEXTS))

    lengths = {each.output_tokens for each in found if isinstance(each, Generated)}
    assert len(lengths) > 2
    assert max(lengths) < 29


def test_only_the_best_candidates_may_finish() -> None:
    search = _search(num_beams=2)

    search.take([Candidate(-1.0, 0, 5), Candidate(-2.0, 0, 6), Candidate(-3.0, 0, 0), Candidate(-4.0, 0, 7)])

    assert search.finished == []
    assert (search.tokens, search.parents, search.scores) == ([5, 6], [0, 0], [-1.0, -2.0])


def test_what_finished_makes_room_for_the_next_best() -> None:
    search = _search(num_beams=2)

    search.take([Candidate(-1.0, 0, 0), Candidate(-2.0, 0, 6), Candidate(-3.0, 0, 5), Candidate(-4.0, 0, 7)])

    assert [each.ids for each in search.finished] == [[0]]
    assert search.tokens == [6, 5]
    assert not search.done


def test_where_short_texts_are_favoured_a_search_is_judged_by_its_length_so_far() -> None:
    search = _search(num_beams=2, length_penalty=-1.0, early_stopping="never")

    search.take([Candidate(-1.0, 0, 6), Candidate(-3.0, 0, 0), Candidate(-3.5, 0, 7), Candidate(-4.0, 0, 8)])
    search.take([Candidate(-1.2, 0, 5), Candidate(-2.5, 0, 0), Candidate(-3.6, 0, 7), Candidate(-4.0, 0, 8)])

    assert [each.score for each in search.finished] == [-3.0, -5.0]
    assert not search.done  # -1.2 x 2 is better than -5, and -1.2 x 10 would not be


def test_at_the_greatest_length_all_count_as_finished() -> None:
    search = _search(num_beams=2, most=1)

    search.take([Candidate(-1.0, 0, 5), Candidate(-2.0, 0, 6), Candidate(-3.0, 0, 8), Candidate(-4.0, 0, 7)])

    assert search.done
    assert [each.ids for each in search.hypotheses(2)] == [[5], [6]]


@pytest.mark.parametrize("columns", [5, 63, 64, 1000, 4097, 20_000])
@pytest.mark.parametrize("k", [1, 4, 8])
def test_the_best_scores_are_found_in_blocks(columns: int, k: int) -> None:
    scores = torch.randn(3, columns, generator=torch.Generator().manual_seed(columns))
    scores[1, 1:] = -torch.inf
    wanted, where = scores.topk(min(k, columns))

    values, at = best(scores, k)

    assert torch.equal(values, wanted)
    assert torch.equal(at[[0, 2]], where[[0, 2]])
    assert at[1, 0] == 0


def _search(*, most: int = 10, **settings: Any) -> Search:
    config = transformers.GenerationConfig(**{"length_penalty": 1.0, "early_stopping": False, **settings})
    return Search(config, start=9, most=most, ends=frozenset({0}))


def _decoded(subject: Subject, row: list[int], settings: dict[str, Any]) -> str:
    ends = settings.get("eos_token_id", [0])
    codec: Any = subject.codec
    end = next((at for at, number in enumerate(row) if number in ends), len(row))
    text: str = codec.tokens.decode(row[:end])
    return text

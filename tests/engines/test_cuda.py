"""The built-in engine on a real GPU: what it answers there is what it answers on the CPU."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.models import ModelSpec
from jobs.tasks.base import Classified, Classify, Embed, Embedded, Generate, Outcome, Request, Sampling, Score
from tests.engines.conftest import Ask, Subject, texts_of
from tests.engines.tiny import CLASSIFIERS, LOOPED, SEQ2SEQ, Tiny
from worker.engines.base import OutOfMemory
from worker.engines.routes import RoutedModel
from worker.engines.torch.device import errors_mapped, precisions_of
from worker.packing import END_TO_END

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses"),
]

GPU = "cuda:0"
TEXTS = [
    "the quick brown fox",
    "a",
    "Seoul is the capital of Korea and Paris is the capital of France",
    "we like long walks",
    "rain",
    "who reads this, and why? nobody knows",
]
HALVES = ("bfloat16", "float16")
END_TO_END_ONES = ("bert", "distilbert", "roberta", "xlm-roberta", "albert", "electra", "modernbert")


def on_gpu(tiny: Tiny, name: str, dtype: str = "float32") -> Subject:
    return Subject(tiny(name), device=GPU, memory_bytes=2**32, dtype=dtype)


def narrow(tiny: Tiny, name: str, folder: Path) -> ModelSpec:
    """The model with weights a fifth as wide: as they are drawn, rounding to half precision changes every answer."""
    spec = tiny.copy(name, folder / name)
    for file in Path(spec.path).rglob("model.safetensors"):
        tensors = load_file(file)
        save_file({key: each * 0.2 if each.ndim > 1 else each for key, each in tensors.items()}, file, {"format": "pt"})
    return spec


def numbers(outcome: Outcome) -> Sequence[float]:
    assert isinstance(outcome, Classified)
    return outcome.logits


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_say_what_they_say_on_a_cpu(name: str, tiny: Tiny, ask: Ask) -> None:
    requests = [Classify(text) for text in TEXTS]

    there, here = on_gpu(tiny, name)(*requests), ask(name)(*requests)

    for one, other in zip(there, here, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), rel=0, abs=1e-3 * max(1, *map(abs, numbers(other))))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", END_TO_END_ONES)
def test_half_precisions_read_texts_end_to_end(name: str, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    subject = Subject(narrow(tiny, name, tmp_path), device=GPU, memory_bytes=2**32, dtype=dtype)
    requests = [Classify(text) for text in TEXTS]

    together, alone = subject(*requests), subject.one_by_one(*requests)

    assert subject.model._net.packing is END_TO_END  # type: ignore[attr-defined]
    for one, other in zip(together, alone, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), rel=0, abs=5e-2 * max(1, *map(abs, numbers(other))))


@pytest.mark.parametrize("name", ["embedder", "sentences", "t5-encoder"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vectors_point_where_they_point_on_a_cpu(name: str, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    spec = narrow(tiny, name, tmp_path)
    requests = [Embed(text) for text in TEXTS]

    there = Subject(spec, device=GPU, memory_bytes=2**32, dtype=dtype)(*requests)
    here = Subject(spec)(*requests)

    for one, other in zip(there, here, strict=True):
        assert isinstance(one, Embedded)
        assert isinstance(other, Embedded)
        vectors = [torch.frombuffer(bytearray(each.vector), dtype=torch.float32) for each in (one, other)]
        assert torch.cosine_similarity(*vectors, dim=0) > (0.9999 if dtype == "float32" else 0.99)


GREEDY = Sampling(max_new_tokens=8, temperature=0)
DRAWN = Sampling(max_new_tokens=8, temperature=1.0, top_k=20)


@pytest.mark.parametrize("name", LOOPED)
@pytest.mark.parametrize(
    "wishes", [{"sampling": GREEDY}, {"sampling": DRAWN, "seed": 7, "n": 3}], ids=["greedy", "drawn"]
)
def test_decoders_write_what_they_write_on_a_cpu(name: str, wishes: dict[str, Any], tiny: Tiny, ask: Ask) -> None:
    subject = on_gpu(tiny, name)
    requests: list[Request] = [Generate(prompt=text, **wishes) for text in TEXTS]

    assert isinstance(subject.model, RoutedModel)
    assert texts_of(subject(*requests)) == texts_of(ask(name)(*requests))


@pytest.mark.parametrize("name", LOOPED)
def test_half_precisions_score_as_single_precision_does(name: str, tiny: Tiny, tmp_path: Path) -> None:
    requests: list[Request] = [Score(prompt=text, continuations=(" yes", " no", " who knows")) for text in TEXTS]

    spec = narrow(tiny, name, tmp_path)
    subject = Subject(spec, device=GPU, memory_bytes=2**32, dtype="bfloat16")
    there: list[Any] = subject(*requests)
    here: list[Any] = Subject(spec)(*requests)

    assert isinstance(subject.model, RoutedModel)
    for one, other in zip(there, here, strict=True):
        assert one.tokens == other.tokens
        assert all(math.isfinite(each) for each in one.logprobs)
        assert one.logprobs == pytest.approx(other.logprobs, rel=0.05, abs=0.2)


@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.parametrize("beams", [1, 3])
def test_translators_write_what_they_write_on_a_cpu(name: str, beams: int, tiny: Tiny, ask: Ask) -> None:
    subject = on_gpu(tiny, name)
    requests: list[Request] = [
        Generate(source=text, sampling=Sampling(max_new_tokens=10, num_beams=beams)) for text in TEXTS
    ]

    assert isinstance(subject.model, RoutedModel)
    assert texts_of(subject(*requests)) == texts_of(ask(name)(*requests))


@pytest.mark.parametrize("name", ["marian", "t5"])
@pytest.mark.parametrize("dtype", HALVES)
def test_translators_run_in_half_precisions(name: str, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    subject = Subject(narrow(tiny, name, tmp_path), device=GPU, memory_bytes=2**32, dtype=dtype)
    requests: list[Request] = [Generate(source=text, sampling=Sampling(max_new_tokens=10)) for text in TEXTS]

    assert isinstance(subject.model, RoutedModel)
    assert any(texts_of(subject(*requests)))


def test_memory_that_is_not_there_is_told_and_the_model_goes_on(tiny: Tiny) -> None:
    subject = on_gpu(tiny, "bert")
    before = subject(Classify(TEXTS[0]))

    with pytest.raises(OutOfMemory), errors_mapped():
        torch.empty(2**45, dtype=torch.uint8, device=GPU)

    assert numbers(subject(Classify(TEXTS[0]))[0]) == pytest.approx(numbers(before[0]), rel=1e-4)


def test_a_pass_that_does_not_fit_is_cut_and_every_text_is_answered(tiny: Tiny) -> None:
    """This process may take 32 MB more than it has, while a pass of all texts would take far more."""
    subject = Subject(tiny("bert"), device=GPU, memory_bytes=2**32, max_batch_tokens=2**22)
    requests = [Classify(" ".join(TEXTS)[: 20 + at % 60]) for at in range(20_000)]
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**25) / total)
    try:
        found = subject(*requests)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert subject.model.stats()["out_of_memory"] > 0
    assert len({numbers(each) for each in found}) > 1
    assert all(isinstance(each, Classified) for each in found)


def test_every_precision_of_a_gpu_loads(tiny: Tiny) -> None:
    for dtype in precisions_of(GPU):
        assert on_gpu(tiny, "bert", dtype).model.stats()["dtype"] == dtype

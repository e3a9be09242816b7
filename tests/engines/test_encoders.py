"""Encoders: batches answer as single texts do, heads and poolings as the model's own files say."""

import json
from array import array
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers

from jobs.errors import ModelFailed
from jobs.tasks.base import Classified, Classify, Compared, Embed, Embedded, Failed, Similarity
from tests.engines.conftest import Ask, Subject, near
from tests.engines.tiny import CLASSIFIERS, Tiny, write_json

TEXTS = [
    "the quick brown fox",
    "a",
    "Seoul is the capital of Korea and Paris is the capital of France",
    "we like long walks, short talks and good food!",
    "rain",
    "who reads this, and why? nobody knows the answer (yet).",
]
CLOSE = 1e-4


def vector(outcome: Any) -> list[float]:
    assert isinstance(outcome, Embedded), outcome
    return array("f", outcome.vector).tolist()


def reference(name: str, tiny: Tiny, auto: Any) -> tuple[Any, Any]:
    """The model and its tokenizer as Transformers loads them."""
    path = tiny(name).path
    return auto.from_pretrained(path, dtype=torch.float32).eval(), transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_are_those_of_transformers_whatever_the_company(name: str, tiny: Tiny, ask: Ask) -> None:
    model, tokenizer = reference(name, tiny, transformers.AutoModelForSequenceClassification)
    with torch.no_grad():
        expected = [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in TEXTS]

    together = ask(name)(*map(Classify, TEXTS))
    alone = ask(name).one_by_one(*map(Classify, TEXTS))

    assert len({str(row) for row in expected}) == len(TEXTS)
    for wanted, one, other in zip(expected, together, alone, strict=True):
        assert isinstance(one, Classified)
        assert isinstance(other, Classified)
        assert one.logits == near(wanted)
        assert other.logits == near(wanted)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_pairs_are_read_as_pairs(name: str, tiny: Tiny, ask: Ask) -> None:
    model, tokenizer = reference(name, tiny, transformers.AutoModelForSequenceClassification)
    pairs = [("the fox", "rain falls mainly"), ("a", "a"), ("we like long walks", "food")]
    with torch.no_grad():
        expected = [model(**tokenizer(*pair, return_tensors="pt")).logits[0].tolist() for pair in pairs]

    found = ask(name)(*(Classify(*pair) for pair in pairs), Classify("a"))

    for wanted, one in zip(expected, found, strict=False):
        assert isinstance(one, Classified)
        assert one.logits == near(wanted)


def test_special_tokens_in_a_pair_leave_its_segments_alone(ask: Ask) -> None:
    codec: Any = ask("bert").codec

    plain, nasty = codec.encode([Classify("a b", "c d"), Classify("a [SEP] b", "c [CLS] d")])

    control = [[each for each in found.payload.ids if each in codec.tokens.control] for found in (plain, nasty)]
    assert control[0] == control[1]
    assert sorted(nasty.payload.types) == nasty.payload.types
    assert nasty.payload.types.count(1) > plain.payload.types.count(1) > 0


def test_labels_and_problem_type_are_the_models_own(ask: Ask) -> None:
    one, several = ask("bert")(Classify("fox"))[0], ask("xlm-roberta")(Classify("fox"))[0]

    assert isinstance(one, Classified)
    assert (one.labels, one.multi_label) == (("NEGATIVE", "NEUTRAL", "POSITIVE"), False)
    assert isinstance(several, Classified)
    assert (several.labels, several.multi_label) == (("LABEL_0", "LABEL_1"), True)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last"])
def test_each_pooling_is_what_it_says_whatever_the_company(pooling: Any, tiny: Tiny, ask: Ask) -> None:
    model, tokenizer = reference("embedder", tiny, transformers.AutoModel)
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        pooled = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.amax(0), "last": hidden[-1]}[pooling]
        expected.append(pooled.tolist())

    found = ask("embedder")(*(Embed(text, pooling=pooling, normalize=False) for text in TEXTS))

    for wanted, one in zip(expected, found, strict=True):
        assert vector(one) == pytest.approx(wanted, abs=CLOSE)


def test_token_vectors_are_those_of_the_pipeline_whatever_the_company(ask: Ask) -> None:
    subject = ask("embedder")
    folder = str(subject.codec.folder)  # type: ignore[attr-defined]
    plain = transformers.pipeline("feature-extraction", model=folder, dtype=torch.float32, device="cpu")
    texts = ["the fox jumps over the lazy dog", "rain", "we like long walks", "한국어 fox!"]

    found = subject(*(Embed(text, "none", normalize=False) for text in texts), Embed("rain"))

    for text, outcome in zip(texts, found, strict=False):
        wanted = numpy.array(plain(text)[0], dtype="<f4")
        assert isinstance(outcome, Embedded)
        vectors = numpy.frombuffer(outcome.vector, "<f4").reshape(outcome.tokens, -1)
        assert vectors.shape == wanted.shape
        assert numpy.abs(vectors - wanted).max() < 1e-3 * max(1, numpy.abs(wanted).max())
    assert found[-1].tokens is None  # type: ignore[union-attr]
    (unit,) = subject(Embed("rain", "none", dimensions=4))
    assert isinstance(unit, Embedded)
    lengths = numpy.linalg.norm(numpy.frombuffer(unit.vector, "<f4").reshape(unit.tokens, 4), axis=1)
    assert lengths == pytest.approx(numpy.ones(len(lengths)), abs=1e-5)


def test_poolings_may_differ_within_a_batch(ask: Ask) -> None:
    mean, cls, own = ask("embedder")(
        Embed("the fox", pooling="mean"), Embed("the fox", pooling="cls"), Embed("the fox")
    )

    assert vector(mean) != pytest.approx(vector(cls), abs=CLOSE)
    assert vector(own) == pytest.approx(vector(mean), abs=CLOSE)


def test_vectors_are_unit_length_after_being_cut(ask: Ask) -> None:
    whole, cut, raw = ask("embedder")(
        Embed("the fox"), Embed("the fox", dimensions=8), Embed("the fox", dimensions=8, normalize=False)
    )

    assert [len(vector(each)) for each in (whole, cut, raw)] == [32, 8, 8]
    assert sum(each**2 for each in vector(cut)) == pytest.approx(1, abs=1e-5)
    length = sum(each**2 for each in vector(raw)) ** 0.5
    assert [each / length for each in vector(raw)] == pytest.approx(vector(cut), abs=CLOSE)


def test_more_dimensions_than_the_model_has_are_refused(ask: Ask) -> None:
    (refused,) = ask("embedder")(Embed("the fox", dimensions=33))

    assert isinstance(refused, Failed)
    assert "32" in refused.message


def test_a_sentence_encoder_pools_and_limits_as_its_files_say(ask: Ask) -> None:
    subject = ask("sentences")

    own, cls, mean = subject(Embed("the fox"), Embed("the fox", pooling="cls"), Embed("the fox", pooling="mean"))

    assert vector(own) == vector(cls) != vector(mean)
    assert subject.codec.limit == 24  # type: ignore[attr-defined]


def test_other_details_of_a_sentence_encoder_are_honoured(tiny: Tiny, tmp_path: Path) -> None:
    spec = tiny.copy("sentences", tmp_path / "model")
    folder = Path(spec.path)
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "lasttoken"})
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", prompts)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9})

    subject = Subject(spec)

    assert subject.codec.prompts["embed"].text == "query: {text}"
    assert subject.codec.limit == 9  # type: ignore[attr-defined]
    assert vector(subject(Embed("fox"))[0]) == vector(subject(Embed("fox", pooling="last"))[0])


def test_a_transformer_in_a_subfolder_is_found(tiny: Tiny, tmp_path: Path) -> None:
    spec = tiny.copy("sentences", tmp_path / "model")
    folder, inner = Path(spec.path), Path(spec.path) / "0_Transformer"
    inner.mkdir()
    for file in folder.glob("*.*"):
        if file.name != "modules.json":
            file.rename(inner / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write_json(folder / "modules.json", modules)

    subject = Subject(spec)

    assert vector(subject(Embed("fox"))[0]) == vector(Subject(tiny("sentences"))(Embed("fox"))[0])
    assert subject.engine.size(spec) == subject.engine.size(tiny("sentences"))


@pytest.mark.parametrize(
    ("kind", "path", "message"),
    [("Dense", "3_Dense", "'Dense'"), ("Transformer", "../../etc", "leads out"), ("Pooling", "../x", "leads out")],
)
def test_modules_that_are_not_understood_are_refused(
    kind: str, path: str, message: str, tiny: Tiny, tmp_path: Path
) -> None:
    spec = tiny.copy("sentences", tmp_path / "model")
    file = Path(spec.path) / "modules.json"
    modules = [each for each in json.loads(file.read_text()) if not each["type"].endswith(kind)]
    write_json(file, [*modules, {"path": path, "type": f"sentence_transformers.models.{kind}"}])

    with pytest.raises(ModelFailed, match=message):
        Subject(spec)


def test_a_pooling_that_is_not_understood_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    spec = tiny.copy("sentences", tmp_path / "model")
    config = {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
    write_json(Path(spec.path) / "1_Pooling" / "config.json", config)

    with pytest.raises(ModelFailed, match="not understood"):
        Subject(spec)


def test_similarity_is_the_cosine_of_the_vectors(ask: Ask) -> None:
    subject = ask("embedder")
    candidates = ("rain", "the quick brown fox", "good food")
    text, *others = map(vector, subject(*map(Embed, ["the quick brown fox", *candidates])))

    (found,) = subject(Similarity("the quick brown fox", candidates))

    assert isinstance(found, Compared)
    expected = [sum(a * b for a, b in zip(text, other, strict=True)) for other in others]
    assert found.similarities == pytest.approx(expected, abs=CLOSE)
    assert found.similarities[1] == pytest.approx(1, abs=CLOSE)


def test_each_text_is_compared_with_its_own_candidates(ask: Ask) -> None:
    subject = ask("embedder")
    requests = [
        Similarity("the fox", ("rain", "sun")),
        Similarity("a dog", ("sun", "food", "rain")),
        Similarity("a model", ()),
        Similarity("the sea", ("rain", "rain")),
    ]

    together, alone = subject(*requests), subject.one_by_one(*requests)

    for request, one, other in zip(requests, together, alone, strict=True):
        assert isinstance(one, Compared)
        assert isinstance(other, Compared)
        assert len(one.similarities) == len(request.candidates)
        assert one.similarities == pytest.approx(other.similarities, abs=CLOSE)


def test_candidates_are_embedded_once(tiny: Tiny) -> None:
    subject = Subject(tiny("embedder"))
    net: Any = subject.model._net  # type: ignore[attr-defined]
    seen: list[int] = []
    hidden = net._reader.hidden
    net._reader.hidden = lambda texts: [seen.append(len(texts)), hidden(texts)][1]

    for text in ("one", "two", "three"):
        subject(Similarity(text, ("rain", "sun", "food")))

    assert sum(seen) == 3 + 3


def test_a_candidate_that_is_too_long_refuses_its_request(ask: Ask) -> None:
    fine, refused = ask("embedder")(Similarity("fox", ("rain",)), Similarity("fox", ("rain", "x " * 100)))

    assert isinstance(fine, Compared)
    assert isinstance(refused, Failed)
    assert refused.code == "too_long"


def test_weights_that_are_no_numbers_fail_every_item_and_nothing_else(tiny: Tiny) -> None:
    subject = Subject(tiny("bert"))
    net: Any = subject.model._net  # type: ignore[attr-defined]
    net._model.classifier.bias.fill_(float("nan"))

    outcomes = subject(Classify("one"), Classify("two"))

    assert [outcome.code for outcome in outcomes if isinstance(outcome, Failed)] == ["model_error"] * 2

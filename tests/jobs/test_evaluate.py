"""What evaluation counts, held against published examples, sacrebleu, and sums by hand."""

import json
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest
import sacrebleu

from jobs.errors import InvalidInput
from jobs.evaluate import Case, Report, cases, compared, evaluated, measure_for
from jobs.evaluate.cases import golds_of
from jobs.evaluate.chance import interval, mcnemar, resampled, two_sided
from jobs.evaluate.plot import svg
from jobs.evaluate.words import exact, rouge, token_f1
from jobs.schemas import Result


def labelled(found: str | None, gold: Any, at: int = 0, *, scores: tuple[float, ...] = (0.9, 0.1)) -> Case:
    names = (found, *(name for name in ("x", "y", "z") if name != found))
    output = {"labels": [{"label": name, "score": score} for name, score in zip(names, scores, strict=False)]}
    return Case(str(at), None if found is None else output, gold, at)


def report(task: str, some: list[Case], **options: Any) -> Report:
    return evaluated(task, some, measure_for(task, **options))[0]


def test_labels_are_counted_as_by_hand() -> None:
    pairs = [("x", "x"), ("x", "x"), ("y", "x"), ("y", "y"), (None, "y"), ("z", "z")]

    found = report("classify", [labelled(*pair, at) for at, pair in enumerate(pairs)])

    assert found.figures["accuracy"] == pytest.approx(4 / 6)
    # x: 2 of 2 found, 2 of 3 golds; y: 1 of 2 found, 1 of 2 golds; z: 1 and 1
    assert found.by_label["x"] == {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": 0.8, "support": 3}
    assert found.by_label["y"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert found.figures["macro_f1"] == pytest.approx((0.8 + 0.5 + 1) / 3)
    assert found.figures["micro_f1"] == pytest.approx(2 * 4 / (6 + 5))
    assert (found.labels, found.errors) == (("x", "y", "z"), 1)
    assert found.confusion == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_items_of_several_labels_are_judged_by_a_threshold() -> None:
    some = [
        labelled("x", ["x", "y"], 0, scores=(0.9, 0.6)),
        labelled("x", ["x"], 1, scores=(0.9, 0.6)),
        labelled("z", [], 2),
    ]

    found = report("classify", some)
    strict = report("classify", some, threshold=0.95)

    assert found.main == "micro_f1"
    assert found.figures["subset_accuracy"] == pytest.approx(1 / 3)
    assert found.figures["micro_f1"] == pytest.approx(2 * 3 / (3 + 5))
    assert strict.figures["micro_f1"] == 0


def test_gold_of_other_names_is_said_to_be() -> None:
    with pytest.raises(InvalidInput, match=r"gold has 'good'; the results have 'x'"):
        report("classify", [labelled("x", "good")])


def test_entities_count_with_start_end_and_group() -> None:
    gold = [{"start": 0, "end": 3, "entity_group": "PER"}, {"start": 9, "end": 12, "label": "LOC"}]
    found = [{"start": 0, "end": 3, "entity_group": "PER"}, {"start": 9, "end": 13, "entity_group": "LOC"}]
    some = [Case("0", {"entities": found}, gold, 5), Case("1", {"entities": []}, [], 5), Case("2", None, gold[:1], 5)]

    made = report("ner", some)

    assert made.figures["precision"] == pytest.approx(1 / 2)
    assert made.figures["recall"] == pytest.approx(1 / 3)
    assert made.figures["entity_f1"] == pytest.approx(2 * 1 / (2 + 3))
    assert made.by_label["PER"]["support"] == 2
    with pytest.raises(InvalidInput, match="item 7: an entity is"):
        report("ner", [Case("7", {"entities": []}, [{"begin": 0}], 5)])


def test_answers_are_compared_as_squad_does() -> None:
    assert exact("The Eiffel Tower!", ["eiffel  tower"]) == 1
    assert token_f1("in the city of Paris", ["Paris, France", "city of light"]) == pytest.approx(2 * 2 / (4 + 3))
    assert (token_f1("", [""]), token_f1("x", [""]), token_f1("", ["x"])) == (1, 0, 0)

    found = report(
        "qa",
        [Case("0", {"answers": [{"answer": "Paris"}]}, ["paris", "Lutetia"], 1), Case("1", {"answers": []}, "x", 1)],
    )

    assert found.figures == {"exact_match": 0.5, "token_f1": 0.5}


def test_rouge_is_that_of_the_published_example() -> None:
    """From the README of Google's rouge_score."""
    found = rouge("The quick brown dog jumps on the log.", ["The quick brown fox jumps over the lazy dog"])

    assert found["rouge1"] == pytest.approx(0.70588, abs=1e-5)
    assert found["rougeL"] == pytest.approx(0.58824, abs=1e-5)
    assert rouge("서울은 수도", ["서울은 한국의 수도"])["rouge1"] == pytest.approx(0.8)


@pytest.mark.timeout(20)
def test_rouge_of_two_long_texts_takes_no_minutes() -> None:
    assert rouge("a b c d " * 5000, ["d c b a " * 5000])["rougeL"] == pytest.approx(0.49995)


def test_translations_have_the_bleu_and_chrf_of_sacrebleu() -> None:
    chance = random.Random(1)
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "dogs", "ran", "over", "green", "hills"]
    golds = [" ".join(chance.choices(words, k=9)) for _ in range(30)]
    found = [" ".join(word for word in gold.split() if chance.random() > 0.2) for gold in golds]
    some = [
        Case(str(at), {"translation_text": text}, gold, 9)
        for at, (text, gold) in enumerate(zip(found, golds, strict=True))
    ]

    made = report("translate", some)

    assert made.figures["bleu"] == pytest.approx(sacrebleu.corpus_bleu(found, [golds]).score)
    assert made.figures["chrf"] == pytest.approx(sacrebleu.corpus_chrf(found, [golds]).score)
    assert made.intervals["bleu"][0] < made.figures["bleu"] < made.intervals["bleu"][1]


def test_rankings_have_the_gain_of_the_textbook() -> None:
    """Wikipedia's example of discounted cumulative gain: 6.861 of 7.141."""
    grades = dict(zip(map(str, range(6)), (3, 2, 3, 0, 1, 2), strict=True))
    ranking = {"ranking": [{"index": at, "score": 1.0} for at in range(6)]}

    found = report("rerank", [Case("0", ranking, grades, 9)])
    cut = report("rerank", [Case("0", ranking, [0, 5], 9), Case("1", ranking, 2, 9)], ranks=2)

    assert found.figures["ndcg@10"] == pytest.approx(6.861 / 7.141, abs=1e-4)
    assert cut.figures["recall@2"] == pytest.approx((1 / 2 + 0) / 2)
    assert cut.figures["mrr"] == pytest.approx((1 + 1 / 3) / 2)


def test_gaps_count_by_their_first_word_and_by_any() -> None:
    masks = [[{"token_str": " Paris"}, {"token_str": "Rome"}], [{"token_str": "a"}]]

    found = report("fill_mask", [Case("0", {"masks": masks}, ["rome", "a"], 9)])

    assert found.figures == {"accuracy": 0.5, "among_those_given": 1.0}


def test_figures_are_given_by_length() -> None:
    found = report("classify", [labelled("x", "x" if at < 100 else "y", at) for at in (3, 16, 17, 100, 5000)])

    assert {name: row["items"] for name, row in found.by_length.items()} == {
        "0-16": 2,
        "17-64": 1,
        "65-256": 1,
        "1025 and more": 1,
    }
    assert [row["accuracy"] for row in found.by_length.values()] == [1, 1, 0, 0]


@pytest.mark.parametrize("items", [50, 5000])
def test_an_interval_is_as_wide_as_the_binomials(items: int) -> None:
    right = numpy.zeros((items, 2))
    right[: items * 4 // 5, 0] = 1
    right[:, 1] = 1

    low, high = interval(resampled(right, lambda sums: {"accuracy": sums[0] / sums[1]}, seed=1)["accuracy"])

    wide = 2 * 1.96 * (0.8 * 0.2 / items) ** 0.5
    assert high - low == pytest.approx(wide, rel=0.15)
    assert low < 0.8 < high


def test_mcnemar_is_exact_for_few_and_near_that_for_many() -> None:
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert (mcnemar(0, 0), mcnemar(5, 5)) == (1, 1)
    assert mcnemar(540, 470) == pytest.approx(mcnemar(540 - 6, 470 - 6), rel=0.1)  # either side of the switch


def test_a_better_job_is_told_from_an_equal_one() -> None:
    chance = random.Random(3)
    golds = [chance.choice("xyz") for _ in range(400)]

    def job(share: float) -> list[Case]:
        return [
            labelled(gold if chance.random() < share else "xyz"[("xyz".index(gold) + 1) % 3], gold, at)
            for at, gold in enumerate(golds)
        ]

    weak, strong, same = job(0.7), job(0.85), job(0.7)
    better, alike = (compared(weak, other, measure_for("classify")) for other in (strong, same))

    assert better.figures["accuracy"].difference == pytest.approx(0.15, abs=0.06)
    assert better.figures["accuracy"].p < 0.01
    assert better.mcnemar_p is not None
    assert better.mcnemar_p < 0.01
    assert alike.figures["accuracy"].p > 0.05
    low, high = alike.figures["accuracy"].interval_95
    assert low < 0 < high
    assert compared(weak, weak, measure_for("classify")).agreement == 1
    assert compared(weak, strong, measure_for("classify")) == better, "the seed makes it the same every time"


def test_jobs_without_a_common_item_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no item in common"):
        compared([labelled("x", "x", 1)], [labelled("x", "x", 2)], measure_for("classify"))


def test_no_difference_at_all_is_no_evidence() -> None:
    assert two_sided(numpy.zeros(100)) == 1
    assert two_sided(numpy.ones(999)) == pytest.approx(0.002)


def test_a_task_without_gold_is_named() -> None:
    with pytest.raises(InvalidInput, match="results of embed cannot be evaluated; those of these can: classify"):
        measure_for("embed")


def test_gold_comes_from_what_was_kept_or_from_a_file(tmp_path: Path) -> None:
    made = [
        Result(seq=at, custom_id=str(at), status="ok", output={}, kept={"gold": "x"} if at else {}) for at in range(3)
    ]
    csv, lines = tmp_path / "gold.csv", tmp_path / "gold.jsonl"
    csv.write_text("id,answer\n0,eins\n2,zwei\n", encoding="utf-8-sig")
    lines.write_text("\n".join(json.dumps({"gold": word}) for word in ("a", "b")), encoding="utf-8")

    assert [case.custom_id for case in cases(made, "gold")] == ["1", "2"]
    assert [case.gold for case in cases(made, "answer", golds_of(csv, "answer", "id"))] == ["eins", "zwei"]
    assert golds_of(lines, "gold") == {"0": "a", "1": "b"}
    with pytest.raises(InvalidInput, match="'label' under kept; kept: gold"):
        cases(made, "label")
    with pytest.raises(InvalidInput, match="no field 'gold'; there are id, answer"):
        golds_of(csv, "gold")
    with pytest.raises(InvalidInput, match="No such file"):
        golds_of(tmp_path / "none.jsonl", "gold")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("g.jsonl", b'{"custom_id": "a", "gold": 1}\n{"gold', "line 2: unexpected end of data"),
        ("g.jsonl", b'\n{"gold": 1}\n[1]\n', "line 3: not a JSON object"),
        ("g.jsonl", b'{"gold": 1}\n\xff\n', "line 2: "),
        (
            "g.jsonl",
            b'{"custom_id": "a", "gold": 1}\n\n{"custom_id": "a", "gold": 2}\n',
            "line 3: custom_id 'a' is there twice",
        ),
        ("g.csv", b"custom_id,gold\na,1\nb,2\na,3\n", "line 4: custom_id 'a' is there twice"),
        ("g.csv", b"custom_id,gold\na,1\n\xff,2\n", "after line"),
    ],
)
def test_a_bad_line_of_a_gold_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(InvalidInput) as caught:
        golds_of(path, "gold")
    assert said in str(caught.value)


def test_the_picture_is_sound_whatever_labels_are_called() -> None:
    some = [labelled("x", "x"), Case("1", {"labels": [{"label": '<b> & "c"', "score": 1.0}]}, "x", 1)]

    drawn = ElementTree.fromstring(svg(report("classify", some), "a <title> & more"))

    said = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "a <title> & more" in said
    assert '<b> & "c"' in said


@pytest.mark.parametrize("task", ["classify", "ner"])
def test_more_labels_than_can_be_counted_are_refused(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.evaluate.labels.MOST_CELLS", 5)
    gold = [{"start": 0, "end": 1, "entity_group": each} for each in "abc"] if task == "ner" else list("abc")
    some = [Case(str(at), None, gold, 1) for at in range(2)]

    with pytest.raises(InvalidInput, match=r"2 items and 3 labels are too many to be counted.* 5 at most"):
        evaluated(task, some, measure_for(task))

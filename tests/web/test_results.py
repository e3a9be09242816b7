"""Results beside their items: every task is drawn, whatever the model gave, and nothing in them is markup."""

import logging
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest
from markupsafe import Markup

from jobs import tasks
from jobs.errors import MEANINGS, ItemErrorCode
from jobs.schemas import Result, ResultError, Usage
from jobs.tasks.embed import floats
from jobs.web import results
from tests.jobs.task_runs import KINDS, Codec, run

EVIL = '"><script>alert(1)</script>\u202egnp.exe\u2066 \ufeff\x01 א ب 🏴‍☠️'
TEXTS = ("Ada Lovelace met Grace in Paris .", "日本語 の テキスト", EVIL, "word " * 3000)
ITEMS: dict[str, list[dict[str, Any]]] = {
    "rerank": [{"query": each, "documents": [each, "Rain ."]} for each in TEXTS],
    "qa": [{"question": "Who?", "context": each} for each in TEXTS],
    "fill_mask": [{"text": f"{each} [MASK] and [MASK]"} for each in TEXTS],
    "generate": [
        *({"prompt": each} for each in TEXTS),
        {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": EVIL}]},
    ],
    "classify": [*({"text": each} for each in TEXTS), {"text": "one", "text_pair": EVIL}],
}
PARAMS: dict[str, list[dict[str, Any]]] = {
    "classify": [{}, {"threshold": 2.0}, {"function_to_apply": "none"}],
    "ner": [{}, {"aggregation_strategy": "none"}],
    "embed": [{}, {"pooling": "none"}],
    "qa": [{}, {"top_k": 3, "handle_impossible_answer": True}],
    "generate": [{}, {"n": 3, "temperature": 1.0}],
    "translate": [{}, {"source": "ko", "target": "de"}],
    "detect_language": [{"top_k": None}],
}
VOID = {"br", "hr", "img", "input", "rect", "path"}


class Checked(HTMLParser):
    """HTML that our policy lets through: every element closed, no style, no script, no event attribute."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self.feed(str(html))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "style", "iframe", "a"}
        assert not [name for name, _ in attrs if name == "style" or name.startswith("on")]
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.data.append(data)

    @property
    def text(self) -> str:
        return "".join(self.data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.data).split())

    def of(self, tag: str, name: str) -> list[str | None]:
        return [attrs[name] for seen, attrs in self.seen if seen == tag and name in attrs]


def ok(output: Mapping[str, Any], **usage: int) -> Result:
    return Result(seq=0, custom_id="a", status="ok", output=dict(output), usage=Usage(**usage))


def drawn(
    task: str, item: Mapping[str, Any], output: Mapping[str, Any], params: Mapping[str, Any] | None = None
) -> str:
    """The HTML, of which it was seen that it is no JSON."""
    html = results.render(task, item, ok(output), params)
    assert "The output" not in html, html
    return str(html)


def words_of(html: str) -> str:
    return Checked(html).words


def entity(start: int, end: int, text: str, label: str = "PER", **more: Any) -> dict[str, Any]:
    return {"entity_group": label, "score": 0.9, "word": text[start:end], "start": start, "end": end, **more}


def marks(html: str) -> list[str]:
    return [re.sub("<.*?>", "", each) for each in re.findall(r"<mark.*?</mark>", html)]


def test_every_task_of_ours_has_a_drawing() -> None:
    own = {task.name for task in tasks.all_tasks() if type(task).__module__.startswith("jobs.")}

    assert set(results.DRAWN) == own


@pytest.mark.parametrize("task", tasks.all_tasks(), ids=lambda task: task.name)
def test_what_the_fake_engine_gives_is_drawn(task: tasks.AnyTask, caplog: pytest.LogCaptureFixture) -> None:
    items = ITEMS.get(task.name) or [{task.main_field: each} for each in TEXTS]
    codec = Codec("fake", limit=100_000)
    with caplog.at_level(logging.DEBUG, logger="jobs.web.results"):
        for params in PARAMS.get(task.name, [{}]):
            for item in items:
                output, _ = run(task.name, item, codec, params)
                html = results.render(task.name, item, ok(output.model_dump(mode="json")), params)

                assert isinstance(html, Markup)
                Checked(html)

    assert caplog.text == ""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in ("chat", "causal", "seq2seq", "reader")])
def test_answers_in_words_and_from_heads_are_drawn_alike(kind: str) -> None:
    item = {"question": "Who?", "context": "Ada met Grace ."}
    task = "qa" if kind != "seq2seq" else "summarize"
    given = item if task == "qa" else {"text": "Ada met Grace ."}

    output, _ = run(task, given, Codec(kind, limit=1000))

    Checked(drawn(task, given, output.model_dump(mode="json")))


def test_a_failed_item_says_what_its_code_means() -> None:
    for code in ItemErrorCode:
        result = Result(seq=0, custom_id="a", status="error", error=ResultError(code=code, message=EVIL))

        html = Checked(results.render("ner", {"text": EVIL}, result))

        assert f"{code}: {MEANINGS[code]}" in html.text
        assert EVIL in html.text


def test_a_task_of_another_distribution_is_shown_as_json_whatever_its_name() -> None:
    helpers = ("text", "scores", "cut", "failed", "other", "json", "side", "marks", "__class__", "", EVIL)

    for name in helpers:
        html = results.render(name, {"text": EVIL}, ok({"found": [EVIL]}))

        assert Checked(html).of("pre", "aria-label") == ["The item", "The output"]


@pytest.mark.parametrize("output", [{}, {"labels": 7}, {"entities": [{"start": "x"}]}, {"answers": [None]}, {"x": {}}])
@pytest.mark.parametrize("task", results.DRAWN)
def test_an_output_of_another_shape_never_raises(task: str, output: dict[str, Any]) -> None:
    Checked(results.render(task, {"text": "a", "messages": 3}, ok(output)))


def test_names_are_marked_where_they_stand_in_characters() -> None:
    text = "🏴‍☠️ Zoë met 김민수 & Ada"
    at = text.index("김민수")

    html = drawn("ner", {"text": text}, {"entities": [entity(at, at + 3, text), entity(at + 6, at + 9, text, "X<Y")]})

    assert marks(html) == ["김민수 PER", "Ada X&lt;Y"]
    assert words_of(html).startswith("🏴‍☠️ Zoë met 김민수 PER & Ada X<Y")


def test_names_that_nest_or_overlap_lose_no_character() -> None:
    text = "University of New York City Council"
    spans = [entity(0, 27, text, "ORG"), entity(14, 22, text, "LOC"), entity(18, 35, text, "GPE"), entity(14, 22, text)]

    html = drawn("ner", {"text": text}, {"entities": spans})

    assert marks(html) == [
        "University of ",
        "New ",
        "York PER, LOC",
        " City ORG",
        " Council GPE",
    ]
    first = Checked(html).text.split("4 names")[0]
    assert re.sub(r" (?:ORG|LOC|GPE|PER)(?:, (?:ORG|LOC|GPE|PER))*", "", first).strip() == text


def test_a_name_that_is_not_where_it_says_is_told_not_marked() -> None:
    text = "🙂 Ada lives"
    spans = [entity(2, 5, text), {**entity(2, 5, text), "start": 3, "end": 6}, {**entity(0, 1, text), "end": 999}]

    html = drawn("ner", {"text": text}, {"entities": spans})

    assert marks(html) == ["Ada PER"]
    assert "2 not marked" in html


def test_single_tokens_and_names_without_scores_are_told() -> None:
    tokens = {"entities": [{"entity": "B-PER", "score": 0.5, "word": "Ada", "start": 0, "end": 3}]}
    said = {"entities": [entity(0, 3, "Ada", score=None)]}

    assert marks(drawn("ner", {"text": "Ada"}, tokens)) == ["Ada B-PER"]
    assert "no score" in drawn("ner", {"text": "Ada"}, said)


def test_thousands_of_names_make_no_page_that_nobody_can_load() -> None:
    text = "a b " * 10_000
    spans = [entity(at, at + 1, text) for at in range(0, 40_000, 2)]
    nested = [entity(at, 40_000 - at, text, str(at)) for at in range(10_000)]

    flat, deep = (drawn("ner", {"text": text}, {"entities": each}) for each in (spans, nested))

    assert flat.count("<mark") == results.MOST_SPANS
    assert "19,000 not marked" in flat
    assert deep.count("<mark") <= 2 * results.MOST_SPANS + 1
    assert len(deep) < 1_000_000


def test_an_answer_far_into_its_context_is_in_view() -> None:
    context = "x" * 50_000 + " Ada " + "y" * 50_000
    answer = {"answer": "Ada", "score": None, "start": 50_001, "end": 50_004}

    html = drawn("qa", {"question": "Who?", "context": context}, {"answers": [answer]})

    shown = re.sub("<details>.*?</details>", "", html)
    assert marks(shown) == ["Ada"]
    assert len(shown) < 2 * results.SHOWN_CHARS + 1000
    assert "49,251 characters before" in html
    assert words_of(html).count("x") > 50_000 - 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"answer": "", "score": 0.9, "start": 0, "end": 0}, "no answer in this text, 0.900"),
        ({"answer": "", "score": None, "start": None, "end": None}, "no answer in this text"),
        ({"answer": "Grace", "score": None, "start": None, "end": None}, "in words that do not stand in the text"),
    ],
)
def test_an_answer_that_has_no_place_is_told(answer: dict[str, Any], said: str) -> None:
    html = drawn("qa", {"question": "Who?", "context": "Ada"}, {"answers": [answer]})

    assert marks(html) == []
    assert said in words_of(html)


@pytest.mark.parametrize(
    ("named", "tag"),
    [
        ("ko", "ko"),
        ("kor_Hang", "ko-Hang"),
        ("pt_BR", "pt-BR"),
        ("German", "de"),
        ("arb", "ar"),
        ("zh-Hant-TW", "zh-Hant-TW"),
        ("xx", ""),
        ("Klingon", ""),
        (None, ""),
        ('de" onclick="x', ""),
        ("de-x<y", "de"),
    ],
)
def test_languages_are_named_as_html_names_them(named: str | None, tag: str) -> None:
    assert results.lang(named) == tag


def test_a_translation_stands_beside_its_text_in_their_languages() -> None:
    output = {"translation_text": "Hallo", "source": "kor_Hang", "finish_reason": "length"}

    html = Checked(drawn("translate", {"text": "안녕", "params": {"target": "German"}}, output, {"target": "en"}))

    assert html.of("div", "lang") == ["ko-Hang", "de"]
    assert html.words == "Korean 안녕 German Hallo cut at max_new_tokens"


def test_a_summary_says_how_much_of_the_text_it_is() -> None:
    summary = {"summary_text": "Two words.", "finish_reason": "stop"}
    unspaced = {"summary_text": "短い。", "finish_reason": "stop"}

    assert "2 words of 8 words, 25 %" in drawn("summarize", {"text": "a b c d e f g h"}, summary)
    assert "3 characters of 60 characters, 5 %" in drawn("summarize", {"text": "長い" * 30}, unspaced)


def test_each_sample_says_how_it_ended_and_json_reads_well() -> None:
    samples = [
        {"generated_text": '{"name":"Ada","né":[1]}', "finish_reason": "stop"},
        {"generated_text": '{"name": "A', "finish_reason": "length"},
        {"generated_text": "[" * 100_000, "finish_reason": "length"},
    ]

    html = drawn("generate", {"prompt": "Who?"}, {"generations": samples})

    assert '{\n  "name": "Ada",\n  "né": [\n    1\n  ]\n}' in Checked(html).text
    assert "sample 1 of 3 · ended by itself" in html
    assert "sample 2 of 3 · cut at max_new_tokens" in html


def test_bars_of_scores_that_are_no_probabilities_stay_in_their_box() -> None:
    logits = [{"label": "a", "score": 8.0}, {"label": "b", "score": 4.0}, {"label": "c", "score": -3.0}]

    html = Checked(drawn("classify", {"text": "x"}, {"labels": logits}))

    assert [attrs["width"] for tag, attrs in html.seen if tag == "rect" and attrs["class"] == "series-1"] == [
        "100.00",
        "50.00",
        "0.00",
    ]


def test_an_embedding_says_its_size_and_length() -> None:
    output, _ = run("embed", "Ada", Codec("encoder"))
    vector = floats(output.embedding)

    html = drawn("embed", {"text": "Ada"}, {"embedding": vector})
    several = drawn("embed", {"text": "a b"}, {"embedding": [vector, vector], "tokens": 2})

    assert "16 numbers, length 1.000" in html
    assert html.count("<rect") == 16
    assert "2 vectors of 16 numbers" in several


def test_documents_that_are_left_out_are_counted() -> None:
    documents = [f"document {at}" for at in range(50)]
    ranking = [{"index": at, "score": 1 - at / 50} for at in range(30)]

    html = words_of(drawn("rerank", {"query": EVIL, "documents": documents}, {"ranking": ranking}))

    assert "and 10 more documents" in html
    assert "of 50 documents" in html


def test_what_was_cut_off_or_split_is_told() -> None:
    for task in results.DRAWN:
        item = ITEMS.get(task, [{tasks.find(task).main_field: "Ada"}])[0]
        output, _ = run(task, item, Codec("fake", limit=1000))

        html = results.render(task, item, ok(output.model_dump(mode="json"), truncated_tokens=1_234, windows=3))

        assert "1,234 tokens did not fit and were not read" in html, task
        assert "read in 3 pieces" in html, task


def test_a_long_text_is_folded_and_whole() -> None:
    text = "x" * 1_000_000 + EVIL

    html = Checked(drawn("classify", {"text": text}, {"labels": []}))

    assert "998,5" in html.text
    assert html.text.count("x") >= 1_000_000
    assert EVIL in html.text
    assert ("details", {}) in html.seen


def test_what_is_not_ours_stands_apart_from_the_words_around_it() -> None:
    label = {"labels": [{"label": EVIL, "score": 1.0}]}

    html = drawn("classify", {"text": EVIL}, label)

    assert html.count("<bdi>") == 1
    assert Checked(html).of("div", "dir") == ["auto"]


def test_json_that_is_too_long_is_folded_not_dropped() -> None:
    html = Checked(results.render("foreign", {"text": "y" * 10_000}, ok({"a": "z" * 10_000})))

    assert html.text.count("y") >= 10_000
    assert html.text.count("z") >= 10_000

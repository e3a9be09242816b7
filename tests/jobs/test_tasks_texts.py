"""summarize, translate, generate and embed: what is asked of the model, and how its answers become one output."""

import math
import re
import tracemalloc
from array import array
from typing import Any

import pytest

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Embed, Embedded, Generate, Generated, Message, Request, Sample
from jobs.tasks.embed import floats
from jobs.tasks.templates import Template
from tests.jobs.task_runs import Codec, run


def said(text: str) -> Generated:
    return Generated((Sample(text, "stop"),))


def cut(text: str) -> Generated:
    return Generated((Sample(text, "length"),))


def asked_first(rounds: Any) -> Generate:
    request = rounds[0].requests[0]
    assert isinstance(request, Generate)
    return request


def document(request: Request) -> str:
    assert isinstance(request, Generate)
    return request.source or request.prompt or ""


# ----- embed ---------------------------------------------------------------------------------------------


def vectors(*answers: tuple[float, ...]) -> Any:
    left = list(answers)
    return lambda request: Embedded(array("f", left.pop(0)).tobytes())


def test_a_vector_is_kept_as_bytes_and_written_as_numbers() -> None:
    output, _ = run("embed", "text", Codec("encoder"), {}, vectors((0.5, -1.0)))

    assert output.vector == array("f", [0.5, -1.0]).tobytes()
    assert output.model_dump(mode="json") == {"embedding": [0.5, -1.0]}
    assert output.model_dump_json() == '{"embedding":[0.5,-1.0]}'


def test_each_token_keeps_its_vector_where_nothing_is_pooled() -> None:
    def answers(request: Request) -> Embedded:
        assert isinstance(request, Embed)
        assert (request.pooling, request.normalize) == ("none", True)
        count = len(request.text.split())
        return Embedded(array("f", [1.0, 2.0] * count).tobytes(), count)

    short, _ = run("embed", "two words", Codec("encoder"), {"pooling": "none"}, answers)
    text = " ".join(map(str, range(25)))
    long, (asked,) = run("embed", text, Codec("encoder", limit=10), {"pooling": "none"}, answers)

    assert short.model_dump(mode="json") == {"tokens": 2, "embedding": [[1.0, 2.0], [1.0, 2.0]]}
    assert short.beside == {"tokens": 2}
    assert long.tokens == sum(asked.weights) == 25
    assert len(long.model_dump(mode="json")["embedding"]) == 25


def test_the_vector_of_a_long_text_is_the_mean_by_tokens_at_length_one() -> None:
    text = " ".join(map(str, range(15)))

    output, (asked,) = run("embed", text, Codec("encoder", limit=10), {}, vectors((2.0, 0.0), (0.0, 5.0)))

    assert asked.weights == (10, 6)
    assert all(isinstance(each, Embed) and not each.normalize for each in asked.requests)
    length = math.hypot(20, 30)
    assert floats(output.embedding) == pytest.approx([20 / length, 30 / length])


def test_without_normalize_the_mean_is_left_as_long_as_it_is() -> None:
    text = " ".join(map(str, range(15)))

    output, _ = run("embed", text, Codec("encoder", limit=10), {"normalize": False}, vectors((2.0, 0.0), (0.0, 5.0)))

    assert floats(output.embedding) == pytest.approx([20 / 16, 30 / 16])


def test_the_mean_of_opposite_vectors_is_no_division_by_zero() -> None:
    text = " ".join(map(str, range(18)))

    output, (asked,) = run("embed", text, Codec("encoder", limit=10), {}, vectors((1.0, 0.0), (-10 / 9, 0.0)))

    assert asked.weights == (10, 9)
    assert all(map(math.isfinite, floats(output.embedding)))


@pytest.mark.parametrize("text", ["short", " ".join(map(str, range(15)))])
def test_a_vector_that_is_no_numbers_is_the_models_error(text: str) -> None:
    with pytest.raises(ItemError) as caught:
        run("embed", text, Codec("encoder", limit=10), {}, vectors((math.nan, 1.0), (1.0, 1.0)))

    assert caught.value.code is ItemErrorCode.MODEL_ERROR


def test_pooling_and_dimensions_are_asked_of_the_model() -> None:
    _, (asked,) = run("embed", "text", Codec("encoder"), {"pooling": "cls", "dimensions": 4, "normalize": False})

    assert asked.requests == [Embed("text", "cls", False, 4)]


# ----- summarize -----------------------------------------------------------------------------------------


def sentences(count: int) -> str:
    return " ".join(f"This is sentence {number}." for number in range(count))


def test_a_long_text_is_summarized_in_parts_and_then_as_a_whole() -> None:
    seen: list[str] = []

    def answers(request: Request) -> Generated:
        seen.append(document(request))
        return said(f"Summary {len(seen)}.")

    output, rounds = run("summarize", sentences(20), Codec("seq2seq", limit=40), {}, answers)

    assert [len(asked.requests) for asked in rounds] == [2, 1]
    assert all(text.startswith("This is") and text.endswith(".") for text in seen[:2])
    assert seen[2] == "Summary 1.\nSummary 2."
    assert output.summary_text == "Summary 3."


def test_summaries_of_summaries_go_on_until_they_fit() -> None:
    def answers(request: Request) -> Generated:
        words = document(request).split()
        return said(" ".join(words[: len(words) // 2]))

    output, rounds = run("summarize", sentences(100), Codec("seq2seq", limit=40), {}, answers)

    counts = [len(asked.requests) for asked in rounds]
    assert len(counts) > 2
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    assert output.summary_text


def test_a_model_that_does_not_shorten_ends_all_the_same() -> None:
    output, rounds = run("summarize", sentences(30), Codec("seq2seq", limit=20), {}, lambda r: said(document(r)))

    assert len(rounds) <= 3
    assert len(rounds[-1].requests) == 1
    assert output.summary_text


def test_empty_summaries_of_every_part_are_an_empty_summary() -> None:
    output, rounds = run("summarize", sentences(30), Codec("seq2seq", limit=20), {}, lambda r: said(" "))

    assert output.summary_text == ""
    assert len(rounds) == 1


def test_length_is_tokens_for_an_encoder_and_words_in_a_prompt() -> None:
    _, own = run("summarize", "a text", Codec("seq2seq"), {})
    _, seq2seq = run("summarize", "a text", Codec("seq2seq"), {"length": "short"})
    _, chat = run("summarize", "a text", Codec("chat", limit=100), {"length": "long"})
    _, limited = run("summarize", "a text", Codec("seq2seq"), {"length": "long", "max_tokens": 50})

    assert asked_first(own).sampling.max_new_tokens is None
    assert (asked_first(seq2seq).sampling.min_new_tokens, asked_first(seq2seq).sampling.max_new_tokens) == (5, 128)
    assert asked_first(chat).sampling.max_new_tokens == 800
    assert "several paragraphs" in repr(asked_first(chat).messages)
    assert (asked_first(limited).sampling.min_new_tokens, asked_first(limited).sampling.max_new_tokens) == (50, 50)


@pytest.mark.parametrize(("task", "field"), [("summarize", "summary_text"), ("translate", "translation_text")])
def test_a_text_that_ends_at_the_token_limit_says_so(task: str, field: str) -> None:
    whole, _ = run(task, "a text", Codec("seq2seq"), {}, lambda request: said("All of it."))
    short, _ = run(task, "a text", Codec("seq2seq"), {}, lambda request: cut("Only the beg"))

    assert whole.model_dump(include={field, "finish_reason"}) == {field: "All of it.", "finish_reason": "stop"}
    assert short.model_dump(include={field, "finish_reason"}) == {field: "Only the beg", "finish_reason": "length"}


@pytest.mark.parametrize("task", ["summarize", "translate"])
@pytest.mark.parametrize("part", [0, 1, None])
def test_a_text_is_not_whole_when_any_part_of_it_was_cut(task: str, part: int | None) -> None:
    seen: list[Request] = []

    def answers(request: Request) -> Generated:
        seen.append(request)
        return cut("Half a") if len(seen) - 1 == part else said("Whole.")

    output, (asked, *_) = run(task, sentences(20), Codec("seq2seq", limit=40), {}, answers)

    assert len(asked.requests) == 2
    assert output.finish_reason == ("stop" if part is None else "length")


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [("Shorter: {text}!", "Shorter: a text!"), ("As a pirate would:", "As a pirate would:\n\na text")],
)
def test_the_jobs_own_prompt_is_used(prompt: str, asked: str) -> None:
    _, rounds = run("summarize", "a text", Codec("chat", limit=100), {"prompt": prompt})

    assert asked_first(rounds).messages == (Message("user", asked),)


WORDS = [f"word{n}" for n in range(100_000)]
LONG_DOCUMENT = " ".join(word + ("." if n % 12 == 11 else "") for n, word in enumerate(WORDS))


def short_summary(request: Request) -> Generated:
    """A summary of twenty words, whatever is asked."""
    return said(" ".join(f"sum{n}" for n in range(20)))


@pytest.mark.parametrize("kind", ["chat", "seq2seq"])
@pytest.mark.parametrize("method", ["map_reduce", "refine"])
def test_a_document_of_100_000_tokens_is_read_once_in_requests_that_fit(kind: str, method: str) -> None:
    codec = Codec(kind, limit=512)
    params = {"method": method, "max_new_tokens": 100}
    tracemalloc.start()

    output, rounds = run("summarize", LONG_DOCUMENT, codec, params, short_summary)

    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    seen = re.findall(r"word\d+", " ".join(repr(each) for asked in rounds for each in asked.requests))
    assert seen == WORDS
    assert all(codec.room(each) >= 0 for asked in rounds for each in asked.requests)
    assert output.summary_text == short_summary(rounds[0].requests[0]).samples[0].text
    assert len(rounds[0].weights) > 190
    assert sum(rounds[0].weights) == len(WORDS)
    assert peak_mb < 100


def test_refine_puts_each_part_beside_the_summary_so_far() -> None:
    asked = []

    def answers(request: Request) -> Generated:
        asked.append(request)
        return said(f"Summary {len(asked)}.")

    output, rounds = run(
        "summarize", sentences(40), Codec("chat", limit=90), {"method": "refine", "max_new_tokens": 20}, answers
    )

    assert [len(each.requests) for each in rounds] == [1] * len(rounds)
    assert len(rounds) == len(rounds[0].weights) > 2
    for number, each in enumerate(rounds[1:], 1):
        (request,) = each.requests
        assert isinstance(request, Generate)
        assert request.messages is not None
        assert f"beginning of a text:\n\nSummary {number}.\n\nThe text goes on:" in request.messages[0].content
        assert "one short paragraph" in request.messages[0].content
    assert output.summary_text == f"Summary {len(rounds)}."


def test_refine_without_words_reads_the_summary_before_the_next_part() -> None:
    _, rounds = run(
        "summarize", sentences(20), Codec("seq2seq", limit=40), {"method": "refine"}, lambda request: said("So far.")
    )

    assert asked_first(rounds[1:]).source is not None
    assert str(asked_first(rounds[1:]).source).startswith("So far.\n\n")


def test_a_summary_that_is_too_long_for_the_next_part_is_cut_and_a_short_text_is_asked_as_ever() -> None:
    wordy = said(" ".join(["blah"] * 300))
    params = {"method": "refine", "max_new_tokens": 20}

    _, rounds = run("summarize", sentences(40), Codec("chat", limit=90), params, lambda request: wordy)
    _, short = run("summarize", "a text", Codec("chat", limit=90), params)

    assert all(Codec("chat", limit=90).room(each.requests[0]) >= 0 for each in rounds)
    assert "blah" in repr(rounds[1].requests[0])
    assert len(short) == 1
    assert "goes on" not in repr(short[0].requests[0])


def test_a_part_that_was_cut_is_told_of_at_the_end_of_refine_too() -> None:
    answers = iter([cut("Half a")])
    output, _ = run(
        "summarize",
        sentences(40),
        Codec("chat", limit=90),
        {"method": "refine", "max_new_tokens": 20},
        lambda request: next(answers, said("Whole.")),
    )

    assert output.finish_reason == "length"


# ----- translate -----------------------------------------------------------------------------------------


def test_language_codes_are_the_models_own() -> None:
    output, rounds = run("translate", "text", Codec("multilingual"), {"source": "en-GB", "target": "ko"})

    request = asked_first(rounds)
    assert (request.source, request.source_language, request.target_language) == ("text", "en", "ko")
    assert output.source == "en-GB"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("Der Ausschuss trifft sich am Donnerstag wieder.", "de"),
        ("위원회는 목요일에 다시 모인다.", "ko"),
        ("12 345 %", None),
    ],
)
def test_a_source_that_is_not_named_is_detected_among_the_models_languages(text: str, source: str | None) -> None:
    output, rounds = run("translate", text, Codec("multilingual"), {"source": None, "target": "en"})

    assert (asked_first(rounds).source_language, output.source) == (source, source)


def test_a_prompt_that_names_the_source_is_told_the_one_detected() -> None:
    text = "Der Ausschuss trifft sich am Donnerstag wieder."

    _, rounds = run("translate", text, Codec("t5"), {"source": None, "target": "en"})

    assert asked_first(rounds).source == f"translate German to English: {text}"


@pytest.mark.parametrize(
    ("kind", "params", "words"),
    [
        ("multilingual", {"target": "fi"}, "target language 'fi' is not one of the model's: de, en, ko"),
        ("multilingual", {"source": "fi"}, "source language 'fi' is not one of the model's: de, en, ko"),
        ("multilingual", {"target": None}, "parameter 'target' is needed: one of the model's: de, en, ko"),
        ("chat", {"target": "qq"}, "target language 'qq' is not known: give an ISO 639-1 code"),
        ("t5", {"source": None}, "parameter 'source' is needed"),
    ],
)
def test_an_unsupported_language_fails_with_the_supported_ones(kind: str, params: Any, words: str) -> None:
    with pytest.raises(ItemError) as caught:
        run("translate", "text", Codec(kind), params)

    assert caught.value.code is ItemErrorCode.UNSUPPORTED_LANGUAGE
    assert words in caught.value.message


def test_a_prompted_model_is_told_languages_by_name() -> None:
    _, t5 = run("translate", "a {source} text", Codec("t5"), {"source": "en", "target": "de"})
    _, chat = run("translate", "a text", Codec("chat", limit=100), {"source": None, "target": "ko-KR"})

    assert asked_first(t5).source == "translate English to German: a {source} text"
    assert "Translate the following text to Korean." in repr(asked_first(chat).messages)
    assert asked_first(chat).sampling.max_new_tokens == 512


def test_parts_of_a_translation_are_whole_sentences_joined_as_they_stood() -> None:
    text = "One two three. Four five.\n\nSix seven eight.  Nine ten eleven."

    output, (asked,) = run("translate", text, Codec("seq2seq", limit=5), {}, lambda r: said(document(r).upper()))

    assert [document(each) for each in asked.requests] == [
        "One two three. Four five.",
        "Six seven eight.",
        "Nine ten eleven.",
    ]
    assert output.translation_text == "ONE TWO THREE. FOUR FIVE.\n\nSIX SEVEN EIGHT. NINE TEN ELEVEN."


def test_paragraphs_that_fit_together_come_back_as_paragraphs() -> None:
    text = "One two. Three.\n\nFour five\r\n  - six\n"

    output, (asked,) = run("translate", text, Codec("seq2seq", limit=90), {}, lambda r: said(document(r).upper()))
    _, (whole,) = run("translate", text, Codec("chat", limit=200), {"target": "ko"})

    assert [document(each) for each in asked.requests] == ["One two. Three.", "Four five", "- six"]
    assert output.translation_text == "ONE TWO. THREE.\n\nFOUR FIVE\r\n  - SIX"
    assert len(whole.requests) == 1, "a chat model keeps paragraphs by itself"


def test_parts_in_a_script_without_spaces_are_joined_without() -> None:
    text = "One two three. Four five six."

    output, _ = run("translate", text, Codec("seq2seq", limit=4), {}, lambda r: said("一二三。"))

    assert output.translation_text == "一二三。一二三。"


def test_a_text_whose_translation_would_not_fit_the_answer_is_translated_in_parts() -> None:
    text = sentences(20)

    _, (whole,) = run("translate", text, Codec("chat", limit=1000), {})
    _, (limited,) = run("translate", text, Codec("chat", limit=1000), {"max_new_tokens": 40})

    assert len(whole.requests) == 1
    assert len(limited.requests) == len(limited.weights) > 1
    assert max(limited.weights) <= 20


def test_a_models_own_longest_answer_bounds_the_parts_of_a_translation() -> None:
    codec = Codec("multilingual", limit=1000)
    codec.in_force = {"max_new_tokens": 40}

    _, (asked,) = run("translate", sentences(20), codec, {})
    _, (roomy,) = run("translate", sentences(20), codec, {"max_new_tokens": 400})

    assert max(asked.weights) <= 20
    assert len(roomy.requests) == 1


# ----- generate ------------------------------------------------------------------------------------------


def test_a_prompt_is_continued_as_it_stands_with_all_its_params() -> None:
    params = {"n": 2, "stop": "END", "seed": 7, "temperature": 0.5, "max_tokens": 3}

    output, (asked,) = run("generate", "a {text}", Codec("causal"), params)

    request = asked.requests[0]
    assert isinstance(request, Generate)
    assert (request.prompt, request.n, request.stop, request.seed) == ("a {text}", 2, ("END",), 7)
    assert (request.sampling.temperature, request.sampling.max_new_tokens) == (0.5, 3)
    assert len(output.generations) == 2
    assert {each.finish_reason for each in output.generations} <= {"stop", "length"}


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "A short one."},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": " ".join(f"w{number}" for number in range(40))},
]


def test_messages_go_through_the_chat_template() -> None:
    _, rounds = run("chat", {"messages": MESSAGES}, Codec("chat", limit=100))

    assert asked_first(rounds).messages == tuple(Message(each["role"], each["content"]) for each in MESSAGES)  # type: ignore[arg-type]


def test_a_conversation_loses_the_end_of_its_longest_user_message_and_nothing_else() -> None:
    _, (asked,) = run("chat", {"messages": MESSAGES}, Codec("chat", limit=20), {"long_text": "truncate"})

    messages = asked.requests[0].messages  # type: ignore[union-attr]
    assert messages is not None
    assert [each.content for each in messages[:3]] == [each["content"] for each in MESSAGES[:3]]
    assert messages[3].content == " ".join(f"w{number}" for number in range(14))
    assert asked.truncated_tokens == 26


def test_instructions_too_long_by_themselves_are_never_cut() -> None:
    messages = [{"role": "system", "content": "rule " * 30}, {"role": "user", "content": "hi"}]

    with pytest.raises(ItemError) as caught:
        run("chat", {"messages": messages}, Codec("chat", limit=20), {"long_text": "truncate"})

    assert caught.value.code is ItemErrorCode.TOO_LONG


def test_a_long_prompt_keeps_its_end_and_a_long_source_its_start() -> None:
    text = " ".join(f"w{number}" for number in range(30))

    _, causal = run("generate", text, Codec("causal", limit=5), {"long_text": "truncate"})
    _, seq2seq = run("generate", text, Codec("seq2seq", limit=5), {"long_text": "truncate"})

    assert asked_first(causal).prompt == "w25 w26 w27 w28 w29"
    assert asked_first(seq2seq).source == "w0 w1 w2 w3 w4"


def test_a_model_without_a_chat_template_takes_messages_only_through_a_declared_prompt() -> None:
    codec = Codec("causal")
    messages = {"messages": MESSAGES[:2]}

    with pytest.raises(ItemError, match="no chat template"):
        run("chat", messages, codec)
    codec.prompts = {"generate": Template(text="### {text} ###")}
    _, rounds = run("chat", messages, codec)

    assert asked_first(rounds).prompt == "### Be brief.\n\nA short one. ###"
    with pytest.raises(ItemError, match="without assistant messages"):
        run("chat", {"messages": MESSAGES[:3]}, codec)


def test_a_blank_message_is_told_by_its_place() -> None:
    with pytest.raises(ItemError, match=r"messages\[1\].content") as caught:
        run("chat", {"messages": [MESSAGES[0], {"role": "user", "content": " "}]}, Codec("chat"))

    assert caught.value.code is ItemErrorCode.EMPTY_TEXT


def test_an_empty_system_message_is_no_error_and_a_nul_in_it_is() -> None:
    blank, bad = ([{"role": "system", "content": text}, {"role": "user", "content": "hi"}] for text in ("", "a\0"))

    output, _ = run("chat", {"messages": blank}, Codec("chat"))

    assert output.generations
    with pytest.raises(ItemError, match=r"messages\[0\].content") as caught:
        run("chat", {"messages": bad}, Codec("chat"))
    assert caught.value.code is ItemErrorCode.INVALID_TEXT


@pytest.mark.parametrize("task", ["summarize", "translate", "generate"])
def test_an_answer_without_a_sample_is_the_models_error(task: str) -> None:
    with pytest.raises(ItemError) as caught:
        run(task, "text", Codec("seq2seq"), {}, lambda request: Generated(()))

    assert caught.value.code is ItemErrorCode.MODEL_ERROR

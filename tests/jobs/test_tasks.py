"""Tasks are found by every name they have, and refuse params in words that help."""

import math

import pytest

from jobs import tasks
from jobs.errors import InvalidParams, UnknownTask
from jobs.tasks.languages import NAMES, english_name

NAMED = {
    "classify": ["text-classification", "sentiment", "sentiment-analysis", "Text_Classification", " classify "],
    "summarize": ["summarization"],
    "translate": ["translation", "translation_en_to_fr", "translation_eng_Latn_to_kor_Hang"],
    "generate": ["text-generation", "text2text-generation", "chat"],
    "embed": ["feature-extraction", "embeddings"],
}


@pytest.mark.parametrize(("name", "alias"), [(name, alias) for name in NAMED for alias in [name, *NAMED[name]]])
def test_a_task_is_found_by_each_of_its_names(name: str, alias: str) -> None:
    assert tasks.find(alias).name == name


def test_the_five_tasks_are_there_in_order() -> None:
    names = [task.name for task in tasks.all_tasks()]

    assert names == sorted(names)
    assert set(NAMED) <= set(names)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownTask) as caught:
        tasks.find("clasify")

    assert "unknown task 'clasify'; did you mean 'classify'?" in str(caught.value)
    assert "known tasks: classify, detect_language, embed, fill_mask, generate, ner, qa, rerank, " in str(caught.value)


def test_an_alias_may_carry_params() -> None:
    task, params = tasks.resolve("translation_en_to_pt-BR", {"num_beams": 4})

    assert task.name == "translate"
    assert params == {"num_beams": 4, "source": "en", "target": "pt-BR"}


def test_an_alias_may_not_say_otherwise_than_the_params() -> None:
    with pytest.raises(InvalidParams, match="'source': 'de' is given, but 'translation_en_to_fr' says 'en'"):
        tasks.resolve("translation_en_to_fr", {"source": "de"})


def test_params_given_to_resolve_are_left_alone() -> None:
    given = {"num_beams": 4}

    tasks.resolve("translation_en_to_fr", given)

    assert given == {"num_beams": 4}


def test_an_unknown_parameter_is_named_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidParams) as caught:
        tasks.validate_params(tasks.find("generate"), {"tempature": 1})

    assert "unknown parameter 'tempature'; did you mean 'temperature'? known: " in str(caught.value)
    assert "max_new_tokens" in str(caught.value)


@pytest.mark.parametrize(
    ("task", "params", "said"),
    [
        ("generate", {"temperature": math.nan}, "parameter 'temperature': Input should be a finite number (given nan)"),
        ("generate", {"temperature": math.inf}, "parameter 'temperature': Input should be a finite number (given inf)"),
        ("generate", {"top_p": 1.5}, "parameter 'top_p': Input should be less than or equal to 1 (given 1.5)"),
        ("generate", {"top_p": 0}, "parameter 'top_p': Input should be greater than 0 (given 0)"),
        ("generate", {"n": 0}, "parameter 'n': Input should be greater than or equal to 1 (given 0)"),
        ("generate", {"n": True}, "parameter 'n': Input should be a valid integer (given True)"),
        (
            "generate",
            {"max_new_tokens": "12"},
            "parameter 'max_new_tokens': Input should be a valid integer (given '12')",
        ),
        ("generate", {"temperature": "0.5"}, "parameter 'temperature': Input should be a valid number (given '0.5')"),
        ("generate", {"temperature": True}, "parameter 'temperature': Input should be a valid number (given True)"),
        ("embed", {"normalize": "yes"}, "parameter 'normalize': Input should be a valid boolean (given 'yes')"),
        ("embed", {"normalize": 1}, "parameter 'normalize': Input should be a valid boolean (given 1)"),
        ("classify", {"top_k": "2"}, "parameter 'top_k': Input should be a valid integer (given '2')"),
        ("generate", {"max_new_tokens": "many"}, "parameter 'max_new_tokens'"),
        ("generate", {"max_new_tokens": 1.5}, "(given 1.5)"),
        ("generate", {"seed": 2**63}, "parameter 'seed'"),
        ("generate", {"seed": -1}, "parameter 'seed'"),
        ("generate", {"stop": [""]}, "parameter 'stop'[0]"),
        ("generate", {"stop": ["a"] * 17}, "parameter 'stop'"),
        ("generate", {"long_text": "split"}, "Input should be 'truncate' or 'error' (given 'split')"),
        ("generate", {"min_new_tokens": 9, "max_tokens": 3}, "min_new_tokens 9 is above max_new_tokens 3"),
        ("generate", {"n": 3, "num_beams": 2}, "n 3 is above num_beams 2"),
        ("generate", {"n": 2, "num_beams": 1, "temperature": 0}, "all texts would be the same"),
        ("generate", {"response_format": {"type": "xml"}}, "type 'xml' is not one of"),
        (
            "generate",
            {"max_length": 3, "max_new_tokens": 4},
            "parameter 'max_new_tokens' is given twice: as 'max_length' and as 'max_new_tokens'",
        ),
        ("generate", {"max_length": 3, "max_tokens": 4}, "is given twice: as 'max_length' and as 'max_tokens'"),
        (
            "classify",
            {"labels": "a,b"},
            """parameter 'labels': Input should be a list, in JSON: ["one", "two"] (given 'a,b')""",
        ),
        ("classify", {"long_text": "cut"}, "'truncate', 'split' or 'error' (given 'cut')"),
        ("classify", {"labels": ["a"]}, "parameter 'labels'"),
        ("classify", {"labels": ["a", "a"]}, "label 'a' is given twice"),
        ("classify", {"labels": ["a", " "]}, "parameter 'labels'[1]"),
        ("classify", {"labels": ["a", "b"], "function_to_apply": "sigmoid"}, "'sigmoid' needs a classification head"),
        ("classify", {"threshold": math.nan}, "parameter 'threshold'"),
        ("classify", {"top_k": 0}, "parameter 'top_k'"),
        ("embed", {"dimensions": 0}, "parameter 'dimensions'"),
        ("embed", {"pooling": "sum"}, "parameter 'pooling'"),
        ("summarize", {"length": "tiny"}, "'short', 'medium' or 'long' (given 'tiny')"),
        ("translate", {"target": ">>fr<<"}, "parameter 'target'"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name_and_value(task: str, params: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        tasks.validate_params(tasks.find(task), params)

    assert said in str(caught.value)


def test_all_wrong_parameters_are_told_at_once() -> None:
    with pytest.raises(InvalidParams) as caught:
        tasks.validate_params(tasks.find("generate"), {"top_p": 2, "seed": -1})

    assert len(str(caught.value).splitlines()) == 2


def test_other_names_of_parameters_are_accepted() -> None:
    params = tasks.validate_params(tasks.find("chat"), {"max_tokens": 7, "num_return_sequences": 2, "stop": "END"})

    assert (params.max_new_tokens, params.n, params.stop) == (7, 2, ("END",))
    assert params.sampling.max_new_tokens == 7


def test_a_whole_number_is_a_number_and_a_list_may_be_a_tuple() -> None:
    params = tasks.validate_params(tasks.find("generate"), {"temperature": 1, "stop": ["a"]})
    labelled = tasks.validate_params(tasks.find("classify"), {"labels": ("a", "b"), "threshold": 0})

    assert (params.temperature, params.stop) == (1.0, ("a",))
    assert (labelled.labels, labelled.threshold) == (("a", "b"), 0.0)


def test_an_items_params_lie_over_the_jobs() -> None:
    job = tasks.validate_params(tasks.find("generate"), {"max_new_tokens": 12, "seed": 1})

    merged = tasks.merge(job, {"max_tokens": 5})

    assert (merged.max_new_tokens, merged.seed) == (5, 1)
    assert job.max_new_tokens == 12
    assert tasks.merge(job, None) is job
    assert tasks.merge(job, {}) is job


@pytest.mark.parametrize("overrides", [{"tempature": 1}, {"top_p": 2}, {"min_new_tokens": 13}])
def test_an_items_params_are_checked_as_the_jobs_are(overrides: dict[str, object]) -> None:
    job = tasks.validate_params(tasks.find("generate"), {"max_new_tokens": 12})

    with pytest.raises(InvalidParams):
        tasks.merge(job, overrides)


def test_items_are_validated_a_list_at_a_time() -> None:
    adapter = tasks.task_adapter(tasks.find("classify"))

    items = adapter.validate_json(b'[{"text": "a", "custom_id": "x", "lang": "en"}, {"text": "b", "text_pair": "c"}]')

    assert [(item.text, item.text_pair, item.custom_id) for item in items] == [("a", None, "x"), ("b", "c", None)]
    assert tasks.task_adapter(tasks.find("sentiment")) is adapter


def test_what_is_wrong_with_an_item_is_told_in_a_line_each() -> None:
    adapter = tasks.task_adapter(tasks.find("generate"))

    with pytest.raises(ValueError) as caught:
        adapter.validate_python([{"prompt": 1}, {}, {"prompt": "a", "messages": [{"role": "boss", "content": "b"}]}])

    lines = tasks.explain(caught.value)  # type: ignore[arg-type]
    assert lines[0] == "0.prompt: Input should be a valid string (given 1)"
    assert lines[1] == "1: either 'prompt' or 'messages' is needed, and not both (given {})"
    assert lines[2:] == ["2.messages.0.role: Input should be 'system', 'user' or 'assistant' (given 'boss')"]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("ko", "Korean"),
        ("KO", "Korean"),
        ("ko-KR", "Korean"),
        ("kor_Hang", "Korean"),
        ("korean", "Korean"),
        ("pt_BR", "Brazilian Portuguese"),
        ("zh-Hant", "Traditional Chinese"),
        ("zho_Hans", "Simplified Chinese"),
        ("xx", None),
        ("Klingon", None),
    ],
)
def test_a_language_has_an_english_name(code: str, name: str | None) -> None:
    assert english_name(code) == name


def test_every_two_letter_code_has_a_name_of_its_own() -> None:
    assert len(NAMES) > 170
    assert len(set(NAMES.values())) == len(NAMES)
    assert all(len(code) == 2 and code.islower() for code in NAMES)

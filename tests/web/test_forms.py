"""Params of tasks as fields of a form."""

import pytest

from jobs.errors import InvalidParams
from jobs.tasks import AnyTask, all_tasks, find
from jobs.web import forms


def _fields(task: str) -> list[forms.Field]:
    return forms.fields(find(task).params.model_json_schema())


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_every_param_of_every_task_has_a_field(task: AnyTask) -> None:
    known = forms.fields(task.params.model_json_schema())

    assert {field.name for field in known} == set(task.params.model_fields)
    assert all(field.about for field in known)


def test_what_is_typed_becomes_params() -> None:
    typed = {"p_labels": "good, bad\nso-so", "p_multi_label": "yes", "p_hypothesis_template": "", "p_prefilter": "20"}

    assert forms.params(_fields("zero_shot"), typed) == {
        "labels": ["good", "bad", "so-so"],
        "multi_label": True,
        "prefilter": 20,
    }
    assert forms.params(_fields("zero_shot"), {"p_labels": '["a, b", "c"]'}) == {"labels": ["a, b", "c"]}
    assert forms.params(_fields("generate"), {"p_temperature": "0.5", "p_n": "2"}) == {"temperature": 0.5, "n": 2}


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ("zero_shot", {"labels": ["good", "bad"], "multi_label": True}),
        ("zero_shot", {"labels": ["good, or not", "bad"]}),
        ("generate", {"temperature": 0.5, "n": 2, "response_format": {"type": "json_object"}}),
        ("translate", {"source": "en", "target": "de", "num_beams": 4}),
    ],
)
def test_params_survive_being_typed(task: str, given: dict[str, object]) -> None:
    known = _fields(task)

    assert forms.params(known, forms.typed(known, given)) == given


@pytest.mark.parametrize(("name", "text"), [("p_top_k", "many"), ("p_temperature", "1,5"), ("p_response_format", "{")])
def test_what_is_no_value_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidParams, match=name.removeprefix("p_")):
        forms.params(_fields("generate"), {name: text})

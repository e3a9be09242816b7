"""Prompt templates of the registry: their versions, what is said first, and examples that are answered already."""

from typing import Any

import pytest
from pydantic import ValidationError

from jobs.tasks.base import Generate, Message, Score
from jobs.tasks.templates import Template
from tests.jobs.task_runs import Codec, run

SHOTS = ({"text": "I love it.", "answer": "good"}, {"text": "Dreadful {text}!", "answer": "bad"})


def asked(task: str, codec: Codec, template: Template, params: dict[str, Any]) -> Any:
    codec.prompts = {task: template}
    _, rounds = run(task, "It rains.", codec, params)
    return rounds[0].requests[0]


def test_a_chat_model_sees_examples_as_turns_and_the_document_last() -> None:
    template = Template(text="Of {labels}: {text}", system="You sort into {labels}.", examples=SHOTS)

    request = asked("classify", Codec("chat"), template, {"labels": ["good", "bad"]})

    assert isinstance(request, Score)
    assert request.messages == (
        Message("system", "You sort into good, bad."),
        Message("user", "Of good, bad: I love it."),
        Message("assistant", "good"),
        Message("user", "Of good, bad: Dreadful {text}!"),
        Message("assistant", "bad"),
        Message("user", "Of good, bad: It rains."),
    )
    assert request.continuations == ("good", "bad")


def test_a_plain_causal_model_reads_them_as_text_and_answers_the_same_way() -> None:
    template = Template(text="{text} =>", system="Sort.", examples=SHOTS)

    request = asked("classify", Codec("causal"), template, {"labels": ["good", "bad"]})

    assert request.prompt == "Sort.\n\nI love it. => good\n\nDreadful {text}! => bad\n\nIt rains. =>"
    assert request.continuations == (" good", " bad")


def test_an_example_may_have_its_own_values_for_the_tasks_placeholders() -> None:
    template = Template(
        text="{source} to {target}: {text}",
        examples=({"text": "Hallo", "answer": "Bonjour", "source": "German", "target": "French"},),
    )

    request = asked("translate", Codec("chat"), template, {"source": "en", "target": "ko"})

    assert isinstance(request, Generate)
    assert request.messages is not None
    assert request.messages[0].content == "German to French: Hallo"
    assert request.messages[-1].content == "English to Korean: It rains."


def test_generate_continues_a_declared_prompt_behind_its_examples() -> None:
    template = Template(text="Q: {text}\nA:", examples=({"text": "1 + 1", "answer": "2"},))

    request = asked("generate", Codec("causal"), template, {})

    assert request.prompt == "Q: 1 + 1\nA: 2\n\nQ: It rains.\nA:"


def test_the_jobs_own_prompt_takes_the_place_of_all_of_it() -> None:
    template = Template(text="{text}", system="Sort.", examples=SHOTS)

    request = asked("summarize", Codec("chat"), template, {"prompt": "Shorten"})

    assert request.messages == (Message("user", "Shorten\n\nIt rains."),)


def test_a_version_left_out_is_a_hash_of_the_wording() -> None:
    plain, same, other = Template(text="{text}"), Template(text="{text}"), Template(text="{text}", system="Sort.")

    assert plain.version == same.version
    assert len({plain.version, other.version, Template(text="{text} ").version}) == 3
    assert Template(text="{text}", version="2").version == "2"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": ""}, "at least 1 character"),
        ({"text": "{text}", "examples": [{"text": "a"}]}, "example 1 has no answer"),
        ({"text": "{text}", "examples": [{"text": "a", "answer": "b"}, {}]}, "example 2 has no answer and no text"),
        ({"text": "{text}", "shots": []}, "Extra inputs are not permitted"),
        ({"text": "{text}", "version": ""}, "at least 1 character"),
        ({"text": 3}, "valid string"),
    ],
)
def test_a_template_that_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Template.model_validate(fields)

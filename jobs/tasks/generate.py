"""generate: text that continues a prompt, or answers a conversation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import windows
from jobs.tasks.base import Asked, Codec, FinishReason, Generate, Generated, Grammar, Known, Message, Outcome, Task
from jobs.tasks.formats import cannot_keep, check_complete, grammar_of
from jobs.tasks.params import GenerationParams, Output, check_room
from jobs.tasks.prompts import BARE, lead
from jobs.tasks.texts import check_characters, check_text, need


class ChatMessage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Literal["system", "user", "assistant"]
    content: str


class GenerateItem(Item):
    prompt: str | None = None
    """Continued as it stands."""
    messages: tuple[ChatMessage, ...] | None = Field(default=None, min_length=1, max_length=10_000)
    """In place of `prompt`: a conversation to answer, through the model's chat template."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("either 'prompt' or 'messages' is needed, and not both")
        return self


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class GenerateParams(GenerationParams):
    other_names: ClassVar[Mapping[str, str]] = {**GenerationParams.other_names, "num_return_sequences": "n"}

    long_text: Literal["truncate", "error"] = "error"
    """What happens to an input longer than the model reads: of a prompt the end is kept, of an encoder's source the
    start, of a conversation all but the end of its longest user message; or it is refused."""
    n: int = Field(default=1, ge=1, le=128)
    """Different texts for each item; with beams at most `num_beams`."""
    stop: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=1000)], ...], BeforeValidator(_listed)
    ] = Field(default=(), max_length=16, strict=False)
    """A text ends before the first of these; one may be given as a string."""
    response_format: dict[str, Any] | None = None
    """The form of the answer, which it cannot leave: `{"type": "json_schema", "json_schema": {"schema": ...}}`,
    `json_object`, `{"type": "regex", "regex": ...}` or `{"type": "choice", "choices": [...]}`."""

    @field_validator("response_format")
    @classmethod
    def _is_a_form(cls, form: dict[str, Any] | None) -> dict[str, Any] | None:
        grammar_of(form)
        return form

    @model_validator(mode="after")
    def _forms_go_alone(self) -> Self:
        for name in ("min_new_tokens", "stop", "no_repeat_ngram_size"):
            if self.grammar is not None and getattr(self, name):
                raise ValueError(f"{name} cannot be combined with response_format, which says where the text ends")
        if self.grammar is not None and (self.num_beams or 1) > 1:
            raise ValueError("num_beams above 1 cannot be combined with response_format")
        return self

    @model_validator(mode="after")
    def _texts_differ(self) -> Self:
        if self.num_beams is not None and 1 < self.num_beams < self.n:
            raise ValueError(f"n {self.n} is above num_beams {self.num_beams}: a beam gives one text")
        if self.n > 1 and self.temperature == 0 and self.num_beams == 1:
            raise ValueError(f"n {self.n} with temperature 0 and num_beams 1: all texts would be the same")
        return self

    @cached_property
    def grammar(self) -> Grammar | None:
        """What `response_format` comes to."""
        return grammar_of(self.response_format)


class Generation(Output):
    generated_text: str
    finish_reason: FinishReason


class GenerateOutput(Output):
    generations: tuple[Generation, ...]
    """`n` texts; `finish_reason` is `length` where `max_new_tokens` ended the text."""


def _preprocess(item: GenerateItem, params: GenerateParams, codec: Codec) -> Asked:
    need(codec, Generate, "generate")
    if item.messages is None:
        assert item.prompt is not None
        return Asked([_plain(params, codec)(check_text(item.prompt, "prompt"))])
    last = len(item.messages) - 1
    for at, message in enumerate(item.messages):
        # An empty system message is common and harmless; an empty last one leaves nothing to answer.
        check = check_text if at == last else check_characters
        check(message.content, f"messages[{at}].content")
    return Asked([_chat(_messages(item), params, codec)])


def _shorten(item: GenerateItem, params: GenerateParams, codec: Codec) -> Asked:
    if item.messages is None:
        assert item.prompt is not None
        ask: Callable[[str], Generate] = _plain(params, codec)
        # What a causal model continues is the prompt's end; an encoder's document begins at its start.
        cut = windows.truncate(item.prompt, ask, codec, keep_end=codec.kind != "seq2seq")
    else:
        longest, ask = _around_longest(_messages(item), params, codec)
        cut = windows.truncate(longest, ask, codec)
    return Asked([ask(cut.text)], truncated_tokens=cut.dropped)


def _postprocess(
    item: GenerateItem, asked: Asked, outcomes: Sequence[Outcome], params: GenerateParams
) -> GenerateOutput:
    (outcome,) = outcomes
    if not isinstance(outcome, Generated) or not outcome.samples:
        raise ItemError(ItemErrorCode.MODEL_ERROR, "the model gave no text")
    if params.grammar is not None:
        for sample in outcome.samples:
            check_complete(params.grammar, sample.text, sample.finish_reason)
    return GenerateOutput(
        generations=tuple(
            Generation(generated_text=sample.text, finish_reason=sample.finish_reason) for sample in outcome.samples
        )
    )


def _plain(params: GenerateParams, codec: Codec) -> Callable[[str], Generate]:
    """How a prompt is put to this model: as it stands, or in the registry's own template."""
    template = codec.prompts.get("generate", BARE)
    base, start = _base(params), lead(template, {})
    if codec.kind == "seq2seq":
        return lambda text: replace(base, source=template.filled({"text": text}))
    return lambda text: replace(base, prompt=start + template.filled({"text": text}))


def _chat(messages: tuple[Message, ...], params: GenerateParams, codec: Codec) -> Generate:
    """The conversation through the chat template, or what a model without one takes in its place."""
    if codec.has_chat_template:
        return replace(_base(params), messages=messages)
    declared = "generate" in codec.prompts and not any(message.role == "assistant" for message in messages)
    if not declared:
        raise ItemError(
            ItemErrorCode.INVALID_ITEM,
            "the model has no chat template: give 'prompt' in place of 'messages', or declare a prompt in the "
            "registry (prompts.generate), which serves conversations without assistant messages",
        )
    return _plain(params, codec)("\n\n".join(message.content for message in messages))


def _around_longest(
    messages: tuple[Message, ...], params: GenerateParams, codec: Codec
) -> tuple[str, Callable[[str], Generate]]:
    """The longest user message, and the conversation as a function of what is left of it. Raises ItemError."""
    users = [at for at, message in enumerate(messages) if message.role == "user"]
    if not users:
        raise ItemError(ItemErrorCode.TOO_LONG, "the conversation is too long and has no user message to cut")
    at = max(users, key=lambda index: len(messages[index].content))

    def ask(text: str) -> Generate:
        return _chat((*messages[:at], Message("user", text), *messages[at + 1 :]), params, codec)

    return messages[at].content, ask


def _messages(item: GenerateItem) -> tuple[Message, ...]:
    return tuple(Message(message.role, message.content) for message in item.messages or ())


def _base(params: GenerateParams) -> Generate:
    return Generate(sampling=params.sampling, seed=params.seed, n=params.n, stop=params.stop, grammar=params.grammar)


def _check(params: GenerateParams, model: Known) -> None:
    check_room(params, model)
    if params.grammar is not None and (unable := cannot_keep(model)):
        raise InvalidParams(f"parameter 'response_format': {unable}")


TASK = Task(
    name="generate",
    aliases=("text-generation", "text2text-generation", "chat"),
    summary="text that continues a prompt or answers a conversation",
    main_field="prompt",
    input=GenerateItem,
    params=GenerateParams,
    output=GenerateOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"causal", "seq2seq", "any"}),
    check=_check,
    text=lambda output: output["generations"][0]["generated_text"],
)

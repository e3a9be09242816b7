"""What a task is, what it asks of a model, what comes back: values without tensors, SQL or queues."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel

from jobs.errors import ItemErrorCode
from jobs.tasks.templates import Template

In = TypeVar("In", bound=BaseModel)
Par = TypeVar("Par", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)

# ----- requests: one kind per model head ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Classify:
    """Scores of a classification head for a text, or for a pair of texts."""

    text: str
    pair: str | None = None


@dataclass(frozen=True, slots=True)
class LabelTokens:
    """Scores of a token classification head for every token of a text."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Where in a text the answer to a question begins and ends, as scores of every token."""

    question: str
    context: str


@dataclass(frozen=True, slots=True)
class FillMask:
    """The likeliest tokens for each place in a text where the model's mask stands (as its tokenizer writes it)."""

    text: str
    top_k: int = 5
    targets: tuple[str, ...] = ()
    """Only these are considered, each as its first token; empty: the whole vocabulary."""


@dataclass(frozen=True, slots=True)
class Embed:
    """One vector for a text. `pooling` None: as the model's own configuration says, else mean; `none`: one for each
    token that the model reads, its special ones included."""

    text: str
    pooling: Literal["mean", "cls", "max", "last", "none"] | None = None
    normalize: bool = True
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Similarity:
    """Cosine similarity of a text with each candidate. Candidates recur among items: the engine keeps their vectors."""

    text: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. None: the model's own GenerationConfig decides. `temperature=0` is greedy."""

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a text has to keep to: a JSON schema or a list of texts, as JSON, or a regular expression."""

    kind: Literal["json_schema", "regex", "choice"]
    text: str


@dataclass(frozen=True, slots=True)
class Generate:
    """Text from a model. Exactly one of `prompt` (continued as it stands), `messages` (through the chat template)
    and `source` (an encoder's input) is given. All texts are data: special tokens in them are plain text."""

    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    source: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    source_language: str | None = None
    """The model's own code (`Codec.language` gives it), e.g. `kor_Hang`; None: the model has no such codes."""
    target_language: str | None = None
    grammar: Grammar | None = None
    """An engine that cannot keep to it refuses the request."""


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probability of each continuation after one prompt (or chat messages), computed on a causal model."""

    continuations: tuple[str, ...]
    prompt: str | None = None
    messages: tuple[Message, ...] | None = None


Request = Classify | LabelTokens | Answer | FillMask | Embed | Similarity | Generate | Score

# ----- outcomes ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Classified(Counted):
    logits: tuple[float, ...]
    labels: tuple[str, ...]
    multi_label: bool = False
    """The model's own problem type: sigmoid instead of softmax when the caller names neither."""


@dataclass(frozen=True, slots=True)
class Labelled(Counted):
    logits: bytes
    """float32, little-endian, [tokens, labels]; the text's own tokens only."""
    labels: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    """Characters [start, end) of each token."""
    inside: tuple[bool, ...]
    """Whether a token goes on with the word of the one before it."""


@dataclass(frozen=True, slots=True)
class Answered(Counted):
    logits: bytes
    """float32, little-endian, [1 + tokens, 2]: how well the answer begins, and ends, with a token of the context. The
    first row is that of the model's first token, which stands for no answer."""
    spans: tuple[tuple[int, int], ...]
    """Characters [start, end) of each token of the context."""
    words: tuple[tuple[int, int], ...]
    """Those of the word it belongs to."""


@dataclass(frozen=True, slots=True)
class Filling:
    """One token in place of a mask."""

    token: int
    token_str: str
    score: float
    """Its probability among the whole vocabulary."""
    sequence: str
    """The text with it, as the model's tokens are written."""


@dataclass(frozen=True, slots=True)
class Filled(Counted):
    masks: tuple[tuple[Filling, ...], ...]
    """For each mask, in the order of the text, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Embedded(Counted):
    vector: bytes
    """float32, little-endian, as long as the model is wide (or `dimensions`); of several tokens in their order."""
    tokens: int | None = None
    """How many vectors these are, where each token has one."""


@dataclass(frozen=True, slots=True)
class Compared(Counted):
    similarities: tuple[float, ...]
    """Cosine with each candidate, in their order, -1 to 1."""


FinishReason = Literal["stop", "length"]
"""Why a text ends: by itself (or at a stop string), or because it had as many tokens as it may have."""


@dataclass(frozen=True, slots=True)
class Sample:
    text: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Generated(Counted):
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Scored(Counted):
    logprobs: tuple[float, ...]
    """Sum over the continuation's tokens, in the order of `continuations`."""
    tokens: tuple[int, ...]
    """Tokens of each continuation, to compare continuations of different length."""


@dataclass(frozen=True, slots=True)
class Failed(Counted):
    """This request alone failed; the item gets the code."""

    code: ItemErrorCode
    message: str


Outcome = Classified | Labelled | Answered | Filled | Embedded | Compared | Generated | Scored | Failed

# ----- the text side of a model --------------------------------------------------------------------------

Kind = Literal["encoder", "causal", "seq2seq", "any"]
Head = Literal["classify", "label", "answer", "fill", "embed", "generate"]


class Codec(Protocol):
    """A model's text side: tokenizer, limits, templates; no weights. Safe to use from several threads."""

    kind: Kind
    heads: frozenset[type]
    """The kinds of request this model answers."""
    has_chat_template: bool
    prompts: Mapping[str, Template]
    """Prompt templates by task, from the registry or the model's configuration."""
    in_force: Mapping[str, Any]
    """The model's own defaults (generation config), as they are recorded with the job."""

    def room(self, request: Request) -> int:
        """Tokens of further text that fit beside `request` (asked with its document left empty).

        With its document in place: what is still free. Below zero (never above) when the request is too long."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Character range [start, end) of each token of `text`, in order."""
        ...

    def language(self, code: str) -> str | None:
        """The model's own code for a language given as ISO 639 (`ko`), a locale or its own; None: not supported."""
        ...

    @property
    def languages(self) -> tuple[str, ...]:
        """The model's own language codes; empty when it has none (one fixed pair, or prompted)."""
        ...


# ----- the task ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What the registry can say of a model at submit, where nothing is loaded. None: it does not know."""

    kind: Kind
    head: Head | None = None
    dimensions: int | None = None
    """Numbers in an embedding."""
    context_tokens: int | None = None
    """Tokens of a prompt and its answer together."""
    prompts: Mapping[str, Template] = field(default_factory=dict)
    """Prompt templates by task that the registry declares."""
    engine: str | None = None


class Routes(Protocol):
    """The models that a job names by a pattern such as `opus-mt-{source}-{target}`."""

    places: frozenset[str]
    """The placeholders of the pattern."""

    def find(self, languages: Mapping[str, str | None]) -> str | None:
        """The model of these languages, by placeholder; None: there is none."""
        ...


Check = Callable[[Any, Known], None]
"""Refuses params that no item could run with on this model, at submit. Raises InvalidParams."""


def anything_goes(params: Any, model: Known) -> None:
    """The check of a task whose params fit every model it runs on."""


@dataclass(frozen=True, slots=True)
class More:
    """A further round for this item: these requests are run, then `postprocess` is asked again with their outcomes.

    `state` comes back to the task unchanged in the next round's `Asked`.
    """

    requests: list[Request]
    state: Any = None


class Asked(NamedTuple):
    """What was asked for an item: its requests, with what the task wants to remember about them.

    A named tuple, because there is one for each item: a frozen dataclass takes twice as long to make.
    """

    requests: list[Request]
    weights: tuple[int, ...] = ()
    """Tokens of each window of a text that was split, for weighted means. Empty: one window."""
    truncated_tokens: int = 0
    state: Any = None


@dataclass(frozen=True, slots=True)
class Task(Generic[In, Par, Out]):
    """An NLP task: text in, text out, pure Python. A value, not a subclass."""

    name: str
    aliases: tuple[str, ...]
    """Other names. `{param}` in one stands for a value of that parameter: `translation_{source}_to_{target}`."""
    summary: str
    main_field: str
    """The item field a bare string stands for."""
    input: type[In]
    params: type[Par]
    output: type[Out]
    preprocess: Callable[[In, Par, Codec], Asked]
    """What to ask of the model for one item. Raises ItemError."""
    shorten: Callable[[In, Par, Codec], Asked] | None
    """Asked instead when the codec refused `preprocess`'s requests as too long and `long_text` is not `error`."""
    postprocess: Callable[[In, Asked, Sequence[Outcome], Par], Out | More]
    """The item's output from its outcomes, one per request and in their order; none of them is Failed.
    Raises ItemError."""
    kinds: frozenset[Kind]
    """Model kinds that can serve it at all."""
    check: Check = anything_goes
    route: Callable[[In, Par, Routes], str | None] | None = None
    """The model of one item where the job names several by their languages; None of an item: none fits it."""
    text: Callable[[Mapping[str, Any]], str | None] | None = None
    """The text that an output (as JSON) is, for the next job of a chain; None of an output: it holds none. None: the
    task's outputs are no texts."""

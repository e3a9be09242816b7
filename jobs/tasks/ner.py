"""ner: names of people, places and the like in a text, with their places in it; with another model, parts of speech."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Self

import orjson
from pydantic import Field, SkipValidation, StringConstraints, field_validator, model_validator
from typing_extensions import TypedDict

from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import windows
from jobs.tasks.base import (
    Asked,
    Codec,
    Generate,
    Generated,
    Grammar,
    Known,
    Labelled,
    LabelTokens,
    Outcome,
    Sampling,
    Task,
)
from jobs.tasks.formats import cannot_keep, check_complete
from jobs.tasks.labels import once_each
from jobs.tasks.params import Output, Params
from jobs.tasks.prompts import phrase
from jobs.tasks.texts import check_text, need

Strategy = Literal["none", "simple", "first", "average", "max"]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]
INSTRUCTION = (
    "List every {labels} that the text names, in the words of the text and in its order, as JSON: "
    '[{"text": "...", "label": "..."}]. If there is none: [].\n\nText: {text}'
)
NEEDED = "parameter 'labels' is needed: a model that is asked in words is told what to look for"
NEW_TOKENS, MOST_ENTITIES = 512, 200
"""Longest list, in tokens and in entities, of a model that is asked in words."""


class NerItem(Item):
    text: str


class NerParams(Params):
    aggregation_strategy: Strategy | None = None
    """How tokens become entities: each by itself; neighbours of one label together; the same with the label of a word's
    first token, of its mean scores, of its surest token; `null`: `simple`."""
    grouped_entities: bool | None = None
    """Its older name: true is `simple`, false is `none`."""
    ignore_labels: tuple[Label, ...] = Field(default=("O",), max_length=1000, strict=False)
    """Labels, or entity groups, that are left out."""
    labels: tuple[Label, ...] | None = Field(default=None, min_length=1, max_length=100, strict=False)
    """The kinds of entities to look for (`person`, `place`), which a chat model needs."""

    _once_each = field_validator("labels")(once_each)

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        if self.grouped_entities is not None and self.aggregation_strategy is not None:
            raise ValueError("grouped_entities is the older name of aggregation_strategy: give one of them")
        return self

    @property
    def strategy(self) -> Strategy:
        if self.grouped_entities is not None:
            return "simple" if self.grouped_entities else "none"
        return self.aggregation_strategy or "simple"


class Entity(TypedDict):
    """Named as in huggingface_hub's TokenClassificationOutputElement."""

    entity_group: NotRequired[str]
    """What it is, without `B-` and `I-`."""
    entity: NotRequired[str]
    """The model's label, where tokens stand by themselves."""
    score: float | None
    """None: the model was asked in words, which gives none."""
    word: str
    """The text between `start` and `end`, as it stands."""
    start: int
    end: int


class NerOutput(Output):
    entities: SkipValidation[list[Entity]]
    """In the order of the text."""


class _Piece(NamedTuple):
    """A token or a word, with the probability of each label."""

    scores: Any
    """[labels], float32."""
    start: int
    end: int


class _Tagged(NamedTuple):
    """A piece with its label."""

    label: str
    score: float
    start: int
    end: int


def _preprocess(item: NerItem, params: NerParams, codec: Codec) -> Asked:
    return Asked([_asking(params, codec)(check_text(item.text))], state=(0,))


def _shorten(item: NerItem, params: NerParams, codec: Codec) -> Asked:
    ask = _asking(params, codec)
    if params.long_text == "truncate":
        cut = windows.truncate(item.text, ask, codec)
        return Asked([ask(cut.text)], truncated_tokens=cut.dropped, state=(0,))
    pieces = windows.split(item.text, ask, codec)
    starts, tokens = tuple(each.start for each in pieces), tuple(each.tokens for each in pieces)
    return Asked([ask(each.text) for each in pieces], tokens, state=starts)


def _asking(params: NerParams, codec: Codec) -> windows.Ask:
    """A head's labels of every token; a chat model writes a list that keeps to a schema."""
    if codec.kind != "causal":
        need(codec, LabelTokens, "ner")
        return LabelTokens
    if params.labels is None:
        raise ItemError(ItemErrorCode.INVALID_ITEM, NEEDED)
    put = phrase(codec, "ner", default=INSTRUCTION, values={"labels": ", ".join(params.labels)})
    sampling, form = Sampling(max_new_tokens=NEW_TOKENS, temperature=0), _form(params.labels)
    return lambda text: Generate(**put(text), sampling=sampling, grammar=form)


@lru_cache
def _form(labels: tuple[str, ...]) -> Grammar:
    """A list of texts, each with one of the labels."""
    fields = {"text": {"type": "string", "minLength": 1, "maxLength": 200}, "label": {"enum": labels}}
    entity = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return Grammar("json_schema", orjson.dumps({"type": "array", "items": entity, "maxItems": MOST_ENTITIES}).decode())


def _postprocess(item: NerItem, asked: Asked, outcomes: Sequence[Outcome], params: NerParams) -> NerOutput:
    entities: list[Entity] = []
    for start, outcome in zip(asked.state, outcomes, strict=True):
        if isinstance(outcome, Labelled):
            entities += _entities(item.text, start, outcome, params)
        else:
            entities += _named(item.text, start, outcome, params)
    return NerOutput(entities=_without_overlaps(entities) if len(outcomes) > 1 else entities)


def _entities(text: str, offset: int, labelled: Labelled, params: NerParams) -> Iterable[Entity]:
    """Those of one window, which begins at `offset`. The strategies are those of the pipeline of Transformers 5.23."""
    tagged = _tagged(labelled, params.strategy)
    if params.strategy == "none":
        found = [(each.label, each.score, each.start, each.end) for each in tagged]
    else:
        found = [_together(group) for group in _groups(tagged)]
    key: Literal["entity", "entity_group"] = "entity" if params.strategy == "none" else "entity_group"
    for label, score, start, end in found:
        if label not in params.ignore_labels:
            low, high = offset + start, offset + end
            entity: Any = {key: label, "score": score, "word": text[low:high], "start": low, "end": high}
            yield entity


def _named(text: str, offset: int, outcome: Outcome, params: NerParams) -> list[Entity]:
    """Those that a chat model wrote down for the window from `offset` on, each at its next place from there. What
    stands nowhere in the text is none of its entities. Raises ItemError for a list that is not whole."""
    assert isinstance(outcome, Generated)
    assert params.labels is not None
    sample = outcome.samples[0]
    places: dict[str, int] = defaultdict(lambda: offset)
    check_complete(_form(params.labels), sample.text, sample.finish_reason)
    entities: list[Entity] = []
    for said in orjson.loads(sample.text):
        word, label = said["text"].strip(), said["label"]
        start = text.find(word, places[word]) if word else -1
        if start < 0 or label in params.ignore_labels:
            continue
        places[word] = start + len(word)
        entities.append({"entity_group": label, "score": None, "word": word, "start": start, "end": places[word]})
    return sorted(entities, key=itemgetter("start"))


def _tagged(labelled: Labelled, strategy: Strategy) -> list[_Tagged]:
    tokens = [_Piece(row, *span) for row, span in zip(_probabilities(labelled), labelled.spans, strict=True)]
    if strategy in ("none", "simple"):
        pieces = tokens
    else:
        pieces = [_WORD[strategy](word) for word in _words(tokens, labelled.inside)]
    found = []
    for piece in pieces:
        best = int(piece.scores.argmax())
        found.append(_Tagged(labelled.labels[best], float(piece.scores[best]), piece.start, piece.end))
    return found


def _probabilities(labelled: Labelled) -> Any:
    """[tokens, labels], float32."""
    import numpy  # a task may use it, and a producer need not have it

    logits = numpy.frombuffer(labelled.logits, dtype="<f4").reshape(len(labelled.spans), len(labelled.labels))
    powers = numpy.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _words(tokens: Sequence[_Piece], inside: Sequence[bool]) -> list[list[_Piece]]:
    words: list[list[_Piece]] = []
    for token, goes_on in zip(tokens, inside, strict=True):
        if goes_on and words:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _surest(word: list[_Piece]) -> _Piece:
    best = max(word, key=lambda token: token.scores.max())
    return _Piece(best.scores, word[0].start, word[-1].end)


def _mean(word: list[_Piece]) -> _Piece:
    mean = sum(token.scores for token in word) / len(word)
    return _Piece(mean, word[0].start, word[-1].end)


_WORD: dict[str, Callable[[list[_Piece]], _Piece]] = {
    "first": lambda word: _Piece(word[0].scores, word[0].start, word[-1].end),
    "average": _mean,
    "max": _surest,
}


def _groups(tagged: Sequence[_Tagged]) -> list[list[_Tagged]]:
    """Neighbours of one label; a label that begins with `B-` begins a new group."""
    groups: list[list[_Tagged]] = []
    for each in tagged:
        if groups and not each.label.startswith("B-") and _group(each.label) == _group(groups[-1][-1].label):
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _group(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label


def _together(group: Sequence[_Tagged]) -> tuple[str, float, int, int]:
    """What is left of the first label behind its first hyphen, the mean score, and where it stands."""
    label = group[0].label.split("-", 1)[-1]
    return label, sum(each.score for each in group) / len(group), group[0].start, group[-1].end


def _without_overlaps(entities: Sequence[Entity]) -> list[Entity]:
    """Of entities that overlap, because two windows have seen them, the longer one, then the surer one."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda each: each["start"]):
        if not kept or entity["start"] >= kept[-1]["end"]:
            kept.append(entity)
        elif _weight(entity) > _weight(kept[-1]):
            kept[-1] = entity
    return kept


def _weight(entity: Entity) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"] or 0.0


def _check(params: NerParams, model: Known) -> None:
    if model.kind != "causal":
        return
    if params.labels is None:
        raise InvalidParams(NEEDED)
    if unable := cannot_keep(model):
        raise InvalidParams(f"ner by a model asked in words: {unable}")


TASK = Task(
    name="ner",
    aliases=("token-classification", "pos", "part-of-speech"),
    summary="names of people, places and the like, and where they stand",
    main_field="text",
    input=NerItem,
    params=NerParams,
    output=NerOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"encoder", "causal", "any"}),
    check=_check,
)

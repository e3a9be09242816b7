"""rerank: which documents answer a query best."""

import math
from array import array
from collections.abc import Sequence
from functools import partial
from operator import mul
from typing import Annotated

from pydantic import Field, SkipValidation, StringConstraints
from typing_extensions import TypedDict

from jobs.errors import ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import scores, windows
from jobs.tasks.base import Asked, Classified, Classify, Codec, Embed, Embedded, Outcome, Score, Scored, Task
from jobs.tasks.labels import YES_NO, scores_of_labels, scoring
from jobs.tasks.params import Output, Params
from jobs.tasks.texts import check_text, need

MOST_DOCUMENTS = 1000
INSTRUCTION = "Query: {query}\n\nDocument: {text}\n\nDoes the document answer the query? Answer yes or no."
COMPLETION = "Query: {query}\n\nDocument: {text}\n\nDoes the document answer the query?\nAnswer:"


class RerankItem(Item):
    query: str
    documents: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1)], ...], Field(min_length=1, max_length=MOST_DOCUMENTS)
    ]


class RerankParams(Params):
    top_k: int | None = Field(default=None, ge=1)
    """How many documents come back; `null`: all."""
    function_to_apply: scores.Function | None = None
    """How the logit of a cross-encoder becomes a score; `null`: sigmoid, for a model with two classes and for a causal
    one softmax."""


class DocumentScore(TypedDict):
    index: int
    score: float


class RerankOutput(Output):
    ranking: SkipValidation[list[DocumentScore]]
    """Best first; `index` counts the item's documents from 0."""


def _preprocess(item: RerankItem, params: RerankParams, codec: Codec) -> Asked:
    query = check_text(item.query, "query")
    for at, document in enumerate(item.documents):
        check_text(document, f"documents[{at}]")
    if Embed in codec.heads:
        return Asked([Embed(query), *map(Embed, item.documents)], state=tuple(range(len(item.documents))))
    ask = _asking(query, codec)
    return Asked([ask(each) for each in item.documents], state=tuple(range(len(item.documents))))


def _shorten(item: RerankItem, params: RerankParams, codec: Codec) -> Asked:
    """The query is cut where it leaves documents less than half of the room; long documents are read in windows, the
    best of which counts (MaxP, Dai and Callan 2019)."""
    if Embed in codec.heads:
        query = windows.truncate(item.query, Embed, codec)
        ask: windows.Ask = Embed
        first = [Embed(query.text)]
    else:
        half = max(1, codec.room(_asking("", codec)("")) // 2)
        query = windows.truncate(item.query, lambda text: _asking(text, codec)(""), codec, limit=half)
        ask, first = _asking(query.text, codec), []
    dropped, pieces = query.dropped, []
    for at, document in enumerate(item.documents):
        if params.long_text == "truncate":
            cut = windows.truncate(document, ask, codec)
            pieces.append((at, cut.text, cut.tokens))
            dropped += cut.dropped
        else:
            pieces += [(at, window.text, window.tokens) for window in windows.split(document, ask, codec)]
    places = tuple(at for at, _, _ in pieces)
    weights = tuple(tokens for _, _, tokens in pieces) if len(pieces) > len(item.documents) else ()
    return Asked([*first, *(ask(text) for _, text, _ in pieces)], weights, dropped, places)


def _asking(query: str, codec: Codec) -> windows.Ask:
    """How a document is put beside the query: as a pair, or in words to a causal model (monoT5's yes and no, Nogueira
    et al. 2020)."""
    if Score in codec.heads and Classify not in codec.heads:
        return scoring(codec, "rerank", YES_NO, default=INSTRUCTION, plain=COMPLETION, said={"query": query})
    need(codec, Classify, "rerank")
    return partial(Classify, query)


def _postprocess(item: RerankItem, asked: Asked, outcomes: Sequence[Outcome], params: RerankParams) -> RerankOutput:
    found = _cosines(outcomes) if isinstance(outcomes[0], Embedded) else [_relevance(each, params) for each in outcomes]
    if not math.isfinite(math.fsum(found)):
        raise ItemError(ItemErrorCode.MODEL_ERROR, "the model gave scores that are no numbers (NaN or infinite)")
    best: dict[int, float] = {}
    for at, score in zip(asked.state, found, strict=True):
        best[at] = max(score, best.get(at, score))
    ranking: list[DocumentScore] = [{"index": at, "score": score} for at, score in best.items()]
    ranking.sort(key=lambda each: -each["score"])
    return RerankOutput(ranking=ranking[: params.top_k])


def _cosines(outcomes: Sequence[Outcome]) -> list[float]:
    """Of the first vector with each of the others; all have length 1."""
    query, *documents = (array("f", each.vector) for each in outcomes if isinstance(each, Embedded))
    return [sum(map(mul, query, document)) for document in documents]


def _relevance(outcome: Outcome, params: RerankParams) -> float:
    if isinstance(outcome, Scored):
        return scores_of_labels(outcome, params.function_to_apply)[0]
    assert isinstance(outcome, Classified)
    if len(outcome.logits) > 2:
        raise ItemError(
            ItemErrorCode.INVALID_ITEM,
            f"rerank needs a model with one or two classes; the model has: {', '.join(outcome.labels)}",
        )
    function = params.function_to_apply or ("sigmoid" if len(outcome.logits) == 1 else "softmax")
    return scores.apply(function, outcome.logits)[-1]


TASK = Task(
    name="rerank",
    aliases=("text-ranking",),
    summary="which documents answer a query best",
    main_field="query",
    input=RerankItem,
    params=RerankParams,
    output=RerankOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"encoder", "causal", "any"}),
)

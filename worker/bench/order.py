"""What is measured: a model, texts, and the requests that are made of them."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from jobs.models import ModelSpec
from jobs.tasks.base import Classify, Embed, Generate, Message, Request, Sampling
from worker.engines.base import Encoded, EngineCodec

SAMPLE = (
    "Delivery took two days and nothing was broken.",
    "The lid does not close.",
    "I have used this every morning for a year, and it still looks as it did on the first day. The handle gets warm, "
    "but never too hot to touch, and cleaning it takes a minute under the tap.",
    "Never again!",
    "Asked for a refund three weeks ago; so far I have had four polite letters and no money.",
    "The library opens at nine on weekdays and at ten on Saturdays. It is closed on Sundays and on public holidays.",
    "Tides follow the moon more than the sun: the moon is small, but it is near. When both pull in one line, at new "
    "and full moon, the water rises highest; a week later, when they pull across each other, it hardly moves at all.",
    "Turn left behind the bridge.",
    "Bread needs flour, water, salt and time. Of these four, time is the one that most recipes are short of.",
    "The tram was late again today, the third time this week, because somebody had parked on the rails.",
    "Please send the contract to both addresses before Friday.",
    "Early telegraph lines followed the railways. The railways wanted to know where their trains were, the telegraph "
    "wanted a strip of land that was level, guarded and already paid for. Within ten years messages ran along most of "
    "the main lines, and clocks in distant towns began to show the same time.",
    "It rained.",
    "Good value, although the manual seems to have been translated twice.",
    "A heat pump moves warmth instead of making it, so that one unit of electricity brings three or four of heat into "
    "the house, as long as it is not too cold outside.",
    "Who keeps the key to the cellar, and since when?",
)
"""What is read where nobody names texts: short ones and longer ones, as they come."""
FITTING = 8
"""Attempts at cutting a text to what fits; tokens are counted anew each time."""


class Order(BaseModel):
    """What `python -m worker.bench` reads from its standard input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: ModelSpec
    texts: tuple[str, ...] = Field(default=SAMPLE, min_length=1)
    rounds: int = Field(default=3, ge=1, le=100)
    new_tokens: int = Field(default=64, ge=1)
    """Most tokens of each generated text."""
    bound: float = Field(default=0.98, ge=0, le=1)
    """Share of answers that must equal the reference's for an engine to be recommended."""


def encoded(order: Order, codec: EngineCodec) -> list[Encoded]:
    """A request for each text, cut to what the model takes; texts that cannot be asked at all are left out."""
    make = _maker(order, codec)
    found = (_fitted(codec, make, text) for text in order.texts)
    return [each for each in found if each is not None]


def _maker(order: Order, codec: EngineCodec) -> Callable[[str], Request]:
    sampling: Any = Sampling(max_new_tokens=order.new_tokens, temperature=0)
    if Classify in codec.heads:
        return Classify
    if Embed in codec.heads:
        return Embed
    if codec.kind == "seq2seq":
        return lambda text: Generate(source=text, sampling=sampling)
    if codec.has_chat_template:
        return lambda text: Generate(messages=(Message("user", text),), sampling=sampling)
    return lambda text: Generate(prompt=text, sampling=sampling)


def _fitted(codec: EngineCodec, make: Callable[[str], Request], text: str) -> Encoded | None:
    for _ in range(FITTING):
        (answer,) = codec.encode([make(text)])
        if isinstance(answer, Encoded):
            return answer
        spans = codec.spans(text)
        keep = min(codec.room(make("")), len(spans) - 1)
        if keep <= 0:
            return None
        text = text[: spans[keep - 1][1]]
    return None

"""What parent and child say to each other: frames of JSON over pipes, a length before each. Never pickle."""

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from jobs.errors import ItemErrorCode
from jobs.tasks.base import (
    Answer,
    Answered,
    Classified,
    Classify,
    Compared,
    Embed,
    Embedded,
    Failed,
    Filled,
    Filling,
    FillMask,
    Generate,
    Generated,
    Labelled,
    LabelTokens,
    Message,
    Outcome,
    Request,
    Sample,
    Sampling,
    Score,
    Scored,
    Similarity,
)
from worker.engines.base import Room

LENGTH = struct.Struct(">Q")
MOST_BYTES = 2**32
"""A longer frame is none of ours."""


def send(stream: IO[bytes], message: Mapping[str, Any]) -> None:
    """Write one frame. Raises OSError when nobody reads."""
    data = json.dumps(message).encode()
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, Any] | None:
    """Read one frame; None: the other side has ended, or says something that is no frame."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size or (length := LENGTH.unpack(head)[0]) > MOST_BYTES:
        return None
    data = stream.read(length)
    return dict(json.loads(data)) if len(data) == length else None


def room_out(room: Room) -> dict[str, Any]:
    """A room as JSON values."""
    return asdict(room) | {"cache": None if room.cache is None else str(room.cache)}


def room_in(said: Mapping[str, Any]) -> Room:
    """The room that was sent."""
    return Room(**{**said, "cache": None if said["cache"] is None else Path(said["cache"])})


def request_out(request: Request) -> dict[str, Any]:
    """A request as JSON values."""
    return {"kind": type(request).__name__, **asdict(request)}


def request_in(said: Mapping[str, Any]) -> Request:
    """The request that was sent. Raises KeyError or TypeError for what is none."""
    fields = dict(said)
    return _REQUESTS[fields.pop("kind")](fields)


def outcome_out(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values; bytes as base64."""
    fields = asdict(outcome)
    for name, value in fields.items():
        if isinstance(value, bytes):
            fields[name] = b64encode(value).decode()
    return {"kind": type(outcome).__name__, **fields}


def outcome_in(said: Mapping[str, Any]) -> Outcome:
    """The outcome that was sent. Raises KeyError or TypeError for what is none."""
    fields = dict(said)
    return _OUTCOMES[fields.pop("kind")](fields)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _asked(fields: dict[str, Any]) -> dict[str, Any]:
    messages = fields.get("messages")
    return _tuples(fields) | {"messages": messages and tuple(Message(**each) for each in messages)}


_REQUESTS: dict[str, Callable[[dict[str, Any]], Request]] = {
    "Classify": lambda fields: Classify(**fields),
    "LabelTokens": lambda fields: LabelTokens(**fields),
    "Answer": lambda fields: Answer(**fields),
    "FillMask": lambda fields: FillMask(**_tuples(fields)),
    "Embed": lambda fields: Embed(**fields),
    "Similarity": lambda fields: Similarity(**_tuples(fields)),
    "Generate": lambda fields: Generate(**_asked(fields) | {"sampling": Sampling(**fields["sampling"])}),
    "Score": lambda fields: Score(**_asked(fields)),
}
_OUTCOMES: dict[str, Callable[[dict[str, Any]], Outcome]] = {
    "Classified": lambda fields: Classified(**_tuples(fields)),
    "Labelled": lambda fields: Labelled(
        **_tuples(fields) | {"logits": b64decode(fields["logits"]), "spans": tuple(map(tuple, fields["spans"]))}
    ),
    "Answered": lambda fields: Answered(
        **fields
        | {"logits": b64decode(fields["logits"]), **{at: tuple(map(tuple, fields[at])) for at in ("spans", "words")}}
    ),
    "Filled": lambda fields: Filled(
        **fields | {"masks": tuple(tuple(Filling(**each) for each in mask) for mask in fields["masks"])}
    ),
    "Embedded": lambda fields: Embedded(**fields | {"vector": b64decode(fields["vector"])}),
    "Compared": lambda fields: Compared(**_tuples(fields)),
    "Scored": lambda fields: Scored(**_tuples(fields)),
    "Generated": lambda fields: Generated(**fields | {"samples": tuple(Sample(**each) for each in fields["samples"])}),
    "Failed": lambda fields: Failed(**fields | {"code": ItemErrorCode(fields["code"])}),
}

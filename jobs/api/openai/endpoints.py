"""What the bodies of OpenAI's endpoints mean as items of a task, and what its results are as their answers."""

import base64
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jobs.api.openai.errors import BadRequest
from jobs.errors import UnknownTask
from jobs.schemas import Result
from jobs.tasks import find

Body = Mapping[str, Any]
NLP = "/v1/nlp/"
MOST_INPUTS = 2048

SAMPLING = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "n": "n",
    "repetition_penalty": "repetition_penalty",
    "length_penalty": "length_penalty",
}
"""Params of generate by their names in OpenAI's and vLLM's bodies."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "stream": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
    "modalities": (["text"],),
}
"""What is not done here may only be asked for as the value that asks for nothing."""
IGNORED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
IGNORED |= {"parallel_tool_calls", "stream_options"}
"""What changes nothing of an answer."""


class Call(NamedTuple):
    """What one body asks for."""

    model: str
    items: list[dict[str, Any]]
    """One for each of its inputs."""


class Answering(NamedTuple):
    """What an answer says beside its results."""

    id: str
    model: str
    created: int
    """Unix seconds."""
    base64: bool = False
    """Embeddings as base64 of their float32 bytes, as the SDK asks for unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    path: str
    task: str
    read: Callable[[Body], Call]
    """Raises BadRequest."""
    write: Callable[[Answering, Sequence[Result]], dict[str, Any]]
    """The body of the answer, of results that are all ok, in the order of the items."""


def endpoint(path: str) -> Endpoint:
    """The endpoint of this path. Raises BadRequest with those there are."""
    if path in _ENDPOINTS:
        return _ENDPOINTS[path]
    if path.startswith(NLP):
        try:
            return _nlp(find(path.removeprefix(NLP)).name)
        except UnknownTask as error:
            raise BadRequest(str(error), "endpoint") from error
    raise BadRequest(f"{path[:200]!r} is no endpoint; there are {', '.join(_ENDPOINTS)} and {NLP}TASK", "endpoint")


def _chat(body: Body) -> Call:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' is a list of at least one message", "messages")
    said = [_message(message, f"messages[{at}]") for at, message in enumerate(messages)]
    return Call(_model(body), [{"messages": said, "params": _sampling(body, {"messages"})}])


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise BadRequest(f"{where} is no object", where)
    role = {"developer": "system"}.get(message.get("role", ""), message.get("role"))
    if role not in ("system", "user", "assistant"):
        raise BadRequest(f"{where}.role is one of system, developer, user, assistant", f"{where}.role")
    return {"role": role, "content": _text(message.get("content"), f"{where}.content")}


def _text(content: Any, where: str) -> str:
    """A text, or one in parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"{where} is a text, or a list of parts of type text", where)
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    if not all(isinstance(part, str) for part in parts):
        raise BadRequest(f"{where}: only parts of type text can be read", where)
    return "".join(part for part in parts if part is not None)


def _completion(body: Body) -> Call:
    params = _sampling(body, {"prompt"})
    return Call(_model(body), [{"prompt": text, "params": params} for text in _texts(body, "prompt")])


def _embeddings(body: Body) -> Call:
    _only(body, {"model", "input", "dimensions", "encoding_format"})
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise BadRequest("'encoding_format' is float or base64", "encoding_format")
    params = {"dimensions": body["dimensions"]} if body.get("dimensions") is not None else {}
    return Call(_model(body), [{"text": text, "params": params} for text in _texts(body, "input")])


def _texts(body: Body, name: str) -> list[str]:
    given = body.get(name)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequest(f"{name!r} is a text or a list of texts (token ids are not read here)", name)
    if len(texts) > MOST_INPUTS:
        raise BadRequest(f"{name!r} has {len(texts):,} texts: at most {MOST_INPUTS:,} at once", name)
    return texts


def _sampling(body: Body, own: set[str]) -> dict[str, Any]:
    """The params of generate that the body names."""
    _only(body, {*own, "model", "stop", "response_format", *SAMPLING})
    params: dict[str, Any] = {}
    for name, ours in SAMPLING.items():
        if body.get(name) is not None:
            if ours in params:
                raise BadRequest("'max_tokens' and 'max_completion_tokens' are one thing: give one of them", name)
            params[ours] = body[name]
    stop = body.get("stop")
    if stop is not None:
        params["stop"] = [stop] if isinstance(stop, str) else stop
    if body.get("response_format") is not None:
        params["response_format"] = body["response_format"]
    return params


def _only(body: Body, known: set[str]) -> None:
    for name, value in body.items():
        if name in known or name in IGNORED or value is None:
            continue
        if name not in NEUTRAL:
            raise BadRequest(f"unrecognized parameter {name[:100]!r}; known: {', '.join(sorted(known))}", name)
        if value not in NEUTRAL[name]:
            raise BadRequest(f"{name!r} is not supported here; it may be left out", name)


def _model(body: Body) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("'model' is the name of a model (GET /v1/models)", "model")
    return model


def _nlp(task: str) -> Endpoint:
    main = find(task).main_field

    def read(body: Body) -> Call:
        _only(body, {"model", "input", "parameters"})
        given, params = body.get("input"), body.get("parameters") or {}
        inputs = given if isinstance(given, list) else [given]
        if not isinstance(params, dict):
            raise BadRequest("'parameters' is an object", "parameters")
        if not inputs or not all(isinstance(each, str | dict) for each in inputs):
            raise BadRequest("'input' is a text, an item as an object, or a list of such", "input")
        if len(inputs) > MOST_INPUTS:
            raise BadRequest(f"'input' has {len(inputs):,} items: at most {MOST_INPUTS:,} at once", "input")
        items = [{main: each} if isinstance(each, str) else {**each} for each in inputs if each is not None]
        for item in items:
            item.pop("custom_id", None)
        return Call(_model(body), [{**item, "params": params} for item in items])

    def write(about: Answering, results: Sequence[Result]) -> dict[str, Any]:
        outputs = [result.output for result in results]
        return {
            "id": about.id,
            "object": "nlp.result",
            "created": about.created,
            "model": about.model,
            "task": task,
            "data": [{"index": index, "output": output} for index, output in enumerate(outputs)],
            "usage": _usage(results),
        }

    return Endpoint(NLP + task, task, read, write)


def _chat_answer(about: Answering, results: Sequence[Result]) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": each["generated_text"], "refusal": None},
            "finish_reason": each["finish_reason"],
            "logprobs": None,
        }
        for index, each in enumerate(_generations(results))
    ]
    return {**_head(about, "chat.completion"), "choices": choices, "usage": _usage(results)}


def _completion_answer(about: Answering, results: Sequence[Result]) -> dict[str, Any]:
    choices = [
        {"index": index, "text": each["generated_text"], "finish_reason": each["finish_reason"], "logprobs": None}
        for index, each in enumerate(_generations(results))
    ]
    return {**_head(about, "text_completion"), "choices": choices, "usage": _usage(results)}


def _embedding_answer(about: Answering, results: Sequence[Result]) -> dict[str, Any]:
    vectors = [(result.output or {})["embedding"] for result in results]
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if about.base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    used = sum(result.usage.input_tokens for result in results)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data, "model": about.model, "usage": usage}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()


def _generations(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [each for result in results for each in (result.output or {})["generations"]]


def _head(about: Answering, kind: str) -> dict[str, Any]:
    return {"id": about.id, "object": kind, "created": about.created, "model": about.model}


def _usage(results: Sequence[Result]) -> dict[str, int]:
    read = sum(result.usage.input_tokens for result in results)
    written = sum(result.usage.output_tokens for result in results)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


_ENDPOINTS = {
    each.path: each
    for each in (
        Endpoint("/v1/chat/completions", "generate", _chat, _chat_answer),
        Endpoint("/v1/completions", "generate", _completion, _completion_answer),
        Endpoint("/v1/embeddings", "embed", _embeddings, _embedding_answer),
    )
}

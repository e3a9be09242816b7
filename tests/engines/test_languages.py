"""Language codes: what callers write, and what each multilingual model calls it."""

import pytest
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB

from tests.engines.conftest import Ask
from worker.engines.torch.languages import PREFERRED, Languages

ISO = """ar bg bn cs da de el en es et fa fi fr gl he hi hr hu id it ja ko lt lv mk ml mn mr ms my ne nl pl ps pt ro ru
sl sq sv sw ta te th tr uk ur uz vi xh zh zu"""


def languages(codes: list[str]) -> Languages:
    return Languages({code: at for at, code in enumerate(codes)})


@pytest.mark.parametrize(
    ("given", "nllb", "mbart", "m2m"),
    [
        ("en", "eng_Latn", "en_XX", "en"),
        ("eng", "eng_Latn", "en_XX", "en"),
        ("EN-us", "eng_Latn", "en_XX", "en"),
        ("English", "eng_Latn", "en_XX", "en"),
        ("ko", "kor_Hang", "ko_KR", "ko"),
        ("kor_Hang", "kor_Hang", "ko_KR", "ko"),
        ("ko-KR", "kor_Hang", "ko_KR", "ko"),
        ("zh", "zho_Hans", "zh_CN", "zh"),
        ("zh-TW", "zho_Hant", "zh_CN", "zh"),
        ("zh_Hant", "zho_Hant", "zh_CN", "zh"),
        ("pt-BR", "por_Latn", "pt_XX", "pt"),
        ("ar", "arb_Arab", "ar_AR", "ar"),
        ("sr", "srp_Cyrl", None, "sr"),
        ("yue", "yue_Hant", None, None),
        ("tlh", None, None, None),
        ("", None, None, None),
        ("x", None, None, None),
    ],
)
def test_callers_codes_become_the_models_own(given: str, nllb: str | None, mbart: str | None, m2m: str | None) -> None:
    found = [languages(codes).find(given) for codes in (NLLB, MBART, M2M["m2m100"])]

    assert found == [nllb, mbart, m2m]


@pytest.mark.parametrize("code", ISO.split())
def test_common_languages_are_found_in_nllb(code: str) -> None:
    assert languages(NLLB).find(code) is not None


@pytest.mark.parametrize("codes", [NLLB, MBART, M2M["m2m100"]], ids=["nllb", "mbart", "m2m100"])
def test_a_models_own_code_is_itself(codes: list[str]) -> None:
    known = languages(codes)

    assert [known.find(code) for code in known.codes] == list(known.codes)


def test_every_preferred_variety_is_one_that_nllb_has() -> None:
    assert set(PREFERRED.values()) <= set(NLLB)


@pytest.mark.parametrize(
    ("name", "own", "foreign"),
    [("nllb", "deu_Latn", "fr"), ("m2m100", "de", "tlh"), ("mbart", "de_DE", "tlh"), ("marian-multi", "deu", "ko")],
)
def test_codecs_know_their_models_languages(name: str, own: str, foreign: str, ask: Ask) -> None:
    codec = ask(name).codec

    assert own in codec.languages
    assert codec.language("de") == own
    assert codec.language("German") == own
    assert codec.language(foreign) is None


def test_marians_own_source_language_is_known_though_it_is_no_target(ask: Ask) -> None:
    codec = ask("marian-multi").codec

    assert codec.language("en") == "en"
    assert "en" not in codec.languages


@pytest.mark.parametrize("name", ["marian", "t5", "bart", "gpt2", "bert"])
def test_models_of_one_pair_have_no_codes(name: str, ask: Ask) -> None:
    codec = ask(name).codec

    assert codec.languages == ()
    assert codec.language("de") is None

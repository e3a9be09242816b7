"""A multilingual model's own language codes (`kor_Hang`, `ko_KR`, `ko`, `kor`), found from what callers write."""

import re
from collections.abc import Mapping
from typing import Any

from jobs.tasks.languages import english_name

LOCALE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
"""How NLLB (`deu_Latn`) and mBART (`de_DE`, `en_XX`) write languages."""

_PREFERRED = """
ar arb_Arab|az azj_Latn|fa pes_Arab|ku kmr_Latn|lv lvs_Latn|mg plt_Latn|mn khk_Cyrl|ms zsm_Latn|ne npi_Deva|no nob_Latn
om gaz_Latn|or ory_Orya|ps pbt_Arab|qu quy_Latn|sq als_Latn|sw swh_Latn|uz uzn_Latn|yi ydd_Hebr|tl tgl_Latn
fil tgl_Latn|ks kas_Arab|kr knc_Latn|sr srp_Cyrl|yue yue_Hant|ay ayr_Latn|gn grn_Latn|ff fuv_Latn
zh zho_Hans|zh-cn zho_Hans|zh-sg zho_Hans|zh-tw zho_Hant|zh-hk zho_Hant|zh-mo zho_Hant
zh-hans zho_Hans|zh-hant zho_Hant
"""
PREFERRED = dict(row.split(" ") for row in _PREFERRED.strip().replace("\n", "|").split("|"))
"""The variety (NLLB) that a macrolanguage's code means, or the script where a language has several."""


class Languages:
    """The languages of one model: its codes, and the token of each."""

    def __init__(self, tokens: Mapping[str, int], *, others: tuple[str, ...] = ()) -> None:
        self._tokens = dict(tokens)
        self.codes = tuple(sorted(self._tokens))
        known = [*others, *self.codes][::-1]  # of several that fit, the first in order is meant
        self._by_code = {_folded(code): code for code in known}
        self._by_base = {_base(code): code for code in known}
        self._by_name = {name: code for code in known if (name := english_name(_base(code)))}

    def token(self, code: str) -> int | None:
        """The token that stands for one of the model's own codes."""
        return self._tokens.get(code)

    def find(self, code: str) -> str | None:
        """The model's own code for an ISO 639 code, a locale or an English name; None: not one of its languages."""
        if not self.codes:
            return None
        key, base = _folded(code), _base(code)
        for wanted in (key, PREFERRED.get(key, ""), PREFERRED.get(base, "")):
            if _folded(wanted) in self._by_code:
                return self._by_code[_folded(wanted)]
        names = (english_name(code) or "", english_name(base) or "")
        return self._by_base.get(base) or next((self._by_name[name] for name in names if name in self._by_name), None)


def languages_of(tokenizer: Any) -> Languages:
    """The languages a tokenizer has tokens for; none for a model of one pair."""
    if hasattr(tokenizer, "lang_code_to_token"):  # M2M100
        return Languages({code: tokenizer.get_lang_id(code) for code in tokenizer.lang_code_to_token})
    if codes := getattr(tokenizer, "supported_language_codes", None):  # Marian with several targets
        own = (tokenizer.source_lang,) if tokenizer.source_lang else ()
        return Languages({code[2:-2]: tokenizer.encoder[code] for code in codes}, others=own)
    if getattr(tokenizer, "src_lang", None) is None:
        return Languages({})
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    return Languages({code: number for code, number in added.items() if LOCALE.fullmatch(code)})


def _folded(code: str) -> str:
    return code.strip().lower().replace("_", "-")


def _base(code: str) -> str:
    return _folded(code).partition("-")[0]

"""English names of languages, by ISO 639-1 and 639-3 code, for models that are told the language in words."""

import re
from functools import lru_cache
from typing import Annotated

from pydantic import StringConstraints

Language = Annotated[str, StringConstraints(min_length=2, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9 _-]*$")]
"""How callers name one: a code, a locale, or an English name."""

_TABLE = """
aa aar Afar|ab abk Abkhazian|af afr Afrikaans|ak aka Akan|am amh Amharic|an arg Aragonese|ar ara Arabic
as asm Assamese|av ava Avaric|ay aym Aymara|az aze Azerbaijani|ba bak Bashkir|be bel Belarusian
bg bul Bulgarian|bi bis Bislama|bm bam Bambara|bn ben Bengali|bo bod Tibetan|br bre Breton|bs bos Bosnian
ca cat Catalan|ce che Chechen|ch cha Chamorro|co cos Corsican|cr cre Cree|cs ces Czech|cu chu Church Slavonic
cv chv Chuvash|cy cym Welsh|da dan Danish|de deu German|dv div Dhivehi|dz dzo Dzongkha|ee ewe Ewe|el ell Greek
en eng English|eo epo Esperanto|es spa Spanish|et est Estonian|eu eus Basque|fa fas Persian|ff ful Fulah
fi fin Finnish|fj fij Fijian|fo fao Faroese|fr fra French|fy fry West Frisian|ga gle Irish
gd gla Scottish Gaelic|gl glg Galician|gn grn Guarani|gu guj Gujarati|gv glv Manx|ha hau Hausa|he heb Hebrew
hi hin Hindi|ho hmo Hiri Motu|hr hrv Croatian|ht hat Haitian Creole|hu hun Hungarian|hy hye Armenian
hz her Herero|ia ina Interlingua|id ind Indonesian|ie ile Interlingue|ig ibo Igbo|ii iii Nuosu|ik ipk Inupiaq
io ido Ido|is isl Icelandic|it ita Italian|iu iku Inuktitut|ja jpn Japanese|jv jav Javanese|ka kat Georgian
kg kon Kongo|ki kik Kikuyu|kj kua Kwanyama|kk kaz Kazakh|kl kal Greenlandic|km khm Khmer|kn kan Kannada
ko kor Korean|kr kau Kanuri|ks kas Kashmiri|ku kur Kurdish|kv kom Komi|kw cor Cornish|ky kir Kyrgyz
la lat Latin|lb ltz Luxembourgish|lg lug Ganda|li lim Limburgish|ln lin Lingala|lo lao Lao|lt lit Lithuanian
lu lub Luba-Katanga|lv lav Latvian|mg mlg Malagasy|mh mah Marshallese|mi mri Maori|mk mkd Macedonian
ml mal Malayalam|mn mon Mongolian|mr mar Marathi|ms msa Malay|mt mlt Maltese|my mya Burmese|na nau Nauru
nb nob Norwegian Bokmål|nd nde Northern Ndebele|ne nep Nepali|ng ndo Ndonga|nl nld Dutch
nn nno Norwegian Nynorsk|no nor Norwegian|nr nbl Southern Ndebele|nv nav Navajo|ny nya Chichewa|oc oci Occitan
oj oji Ojibwe|om orm Oromo|or ori Odia|os oss Ossetian|pa pan Punjabi|pi pli Pali|pl pol Polish|ps pus Pashto
pt por Portuguese|qu que Quechua|rm roh Romansh|rn run Kirundi|ro ron Romanian|ru rus Russian
rw kin Kinyarwanda|sa san Sanskrit|sc srd Sardinian|sd snd Sindhi|se sme Northern Sami|sg sag Sango
si sin Sinhala|sk slk Slovak|sl slv Slovenian|sm smo Samoan|sn sna Shona|so som Somali|sq sqi Albanian
sr srp Serbian|ss ssw Swati|st sot Southern Sotho|su sun Sundanese|sv swe Swedish|sw swa Swahili|ta tam Tamil
te tel Telugu|tg tgk Tajik|th tha Thai|ti tir Tigrinya|tk tuk Turkmen|tl tgl Tagalog|tn tsn Tswana
to ton Tongan|tr tur Turkish|ts tso Tsonga|tt tat Tatar|tw twi Twi|ty tah Tahitian|ug uig Uyghur
uk ukr Ukrainian|ur urd Urdu|uz uzb Uzbek|ve ven Venda|vi vie Vietnamese|vo vol Volapük|wa wln Walloon
wo wol Wolof|xh xho Xhosa|yi yid Yiddish|yo yor Yoruba|za zha Zhuang|zh zho Chinese|zu zul Zulu
"""
_ROWS = [row.split(" ", 2) for row in _TABLE.strip().replace("\n", "|").split("|")]
_SPECIAL = {
    "zh-cn": "Simplified Chinese",
    "zh-hans": "Simplified Chinese",
    "zho-hans": "Simplified Chinese",
    "zh-tw": "Traditional Chinese",
    "zh-hk": "Traditional Chinese",
    "zh-hant": "Traditional Chinese",
    "zho-hant": "Traditional Chinese",
    "pt-br": "Brazilian Portuguese",
    "pt-pt": "European Portuguese",
    "arb": "Arabic",
    "cmn": "Chinese",
    "fil": "Filipino",
    "yue": "Cantonese",
    "pes": "Persian",
    "zsm": "Malay",
}

NAMES: dict[str, str] = {short: name for short, _, name in _ROWS}
"""English name by ISO 639-1 code."""
_BY_CODE = NAMES | {long: name for _, long, name in _ROWS} | _SPECIAL
_BY_NAME = {name.lower(): name for name in _BY_CODE.values()}


def is_code(text: str) -> bool:
    """Whether this is an ISO 639 code or a locale of one: `ko`, `kor`, `pt-BR`."""
    key = text.strip().lower().replace("_", "-")
    return key in _BY_CODE or key.partition("-")[0] in _BY_CODE


@lru_cache(maxsize=1024)
def english_name(code: str) -> str | None:
    """The language's English name, for `ko`, `ko-KR`, `kor_Hang` or `korean`; None when it is not known."""
    key = code.strip().lower().replace("_", "-")
    base = re.split("-", key, maxsplit=1)[0]
    return _BY_CODE.get(key) or _BY_CODE.get(base) or _BY_NAME.get(key)

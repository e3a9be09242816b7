"""A model's name with languages left open (`opus-mt-{source}-{target}`): which registered model takes which item."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jobs.errors import InvalidParams, ItemError, UnknownModel
from jobs.tasks import detection

PLACE = re.compile(r"\{(source|target)\}")
CODE = r"[A-Za-z0-9_]+"
SHOWN = 30
ENGINE = "pattern"
"""The engine of items that no model of a pattern takes: it refuses them in words."""


def is_pattern(name: str) -> bool:
    """Whether a name leaves languages open. A registered model's name has no braces."""
    return "{" in name


class Pattern:
    """The models of a pattern. Implements what `Task.route` asks of it."""

    def __init__(self, text: str, names: Iterable[str]) -> None:
        """`names`: all models that could be meant. Raises UnknownModel for a pattern that is none, or has no model."""
        self.text, self.places = text, frozenset(PLACE.findall(text))
        if not self.places or len(PLACE.findall(text)) > len(self.places) or "{" in PLACE.sub("", text):
            raise UnknownModel(f"{text[:200]!r}: a pattern has {{source}}, {{target}} or both in it, each once")
        pieces = PLACE.split(text)
        self._named = re.compile(
            "".join(re.escape(part) if at % 2 == 0 else f"(?P<{part}>{CODE})" for at, part in enumerate(pieces))
        )
        self._models = {tuple(sorted(values.items())): name for name in names if (values := self.values(name))}
        if not self._models:
            raise UnknownModel(f"no registered model that serves translate has a name like {text[:200]!r}")

    @property
    def models(self) -> list[str]:
        return sorted(self._models.values())

    @property
    def shown(self) -> str:
        """The models, for people."""
        more = f" and {len(self._models) - SHOWN} more" if len(self._models) > SHOWN else ""
        return ", ".join(self.models[:SHOWN]) + more

    def values(self, name: str) -> dict[str, str]:
        """The languages in a model's name; empty when it is not one of the pattern."""
        match = self._named.fullmatch(name)
        return {place: code.lower() for place, code in match.groupdict().items()} if match else {}

    def find(self, languages: Mapping[str, str | None]) -> str | None:
        """The model of these languages (codes, or locales such as `pt-BR`); None: there is none."""
        wanted = {place: (languages.get(place) or "").lower() for place in self.places}
        bases = {place: re.split(r"[-_]", code)[0] for place, code in wanted.items()}
        spelled = {place: code.replace("-", "_") for place, code in wanted.items()}
        return next(filter(None, (self._models.get(tuple(sorted(each.items()))) for each in (spelled, bases))), None)

    def check(self, params: Any) -> None:
        """Raises InvalidParams when the params leave a language open that cannot be found out here."""
        if "target" in self.places and params.target is None:
            raise InvalidParams(f"parameter 'target' is needed: the model is one of {self.text!r}")
        if "source" in self.places and params.source is None:
            try:
                detection.languages()
            except ItemError as error:
                raise InvalidParams(f"parameter 'source' is needed here: {error.message}") from error

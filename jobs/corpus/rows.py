"""Which rows of an input become items, and of which of their columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.corpus.filter import Filter
from jobs.corpus.template import Template
from jobs.errors import InvalidInput

MOST_FIELDS = 100
MOST_LIMIT = 2**62
MOST_SAMPLED = 10_000_000
"""Their places are held in memory, about 150 bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The filter comes first, then the limit, then the sample; what is left becomes items. Raises InvalidInput."""

    map: Mapping[str, str] = field(default_factory=dict)
    """An item's field, and the input's column that it is; `doc.body` is the `body` inside of `doc`."""
    template: str | None = None
    """The main field, made of columns: `Title: {title}\\n\\n{body}`."""
    where: str | None = None
    """Only rows of which this is true: `lang = 'en' and stars >= 4`."""
    limit: int | None = None
    """Only so many rows, the first."""
    sample: int | None = None
    """Only so many rows, drawn by chance and left in their order."""
    seed: int = 0
    """Of the sample: the same seed draws the same rows of the same input."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "map", dict(sorted(self.map.items())))
        if len(self.map) > MOST_FIELDS:
            raise InvalidInput(f"{len(self.map)} fields are mapped; there may be {MOST_FIELDS}")
        for pair in self.map.items():
            if not all(pair):
                raise InvalidInput(f"{'='.join(pair)!r} maps nothing: a field and a column have names")
        for name, value, most in (("limit", self.limit, MOST_LIMIT), ("sample", self.sample, MOST_SAMPLED)):
            if value is not None and not 1 <= value <= most:
                raise InvalidInput(f"{name} is {value}; it may be 1 to {most:,}")
        if self.template is not None:
            Template(self.template)
        if self.where is not None:
            Filter(self.where)

    @property
    def digest(self) -> bytes:
        """The same for the same rows of the same input; empty when all of them are taken as they are."""
        parts = (tuple(self.map.items()), self.template, self.where, self.limit, self.sample, self.sample and self.seed)
        return repr(parts).encode() if any(parts) else b""


EVERY_ROW = Rows()
"""Every row, as it is."""

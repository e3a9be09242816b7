"""Rows to items: the filter, then the template and the mapped columns."""

from collections.abc import Sequence

from jobs.corpus.base import ID, Fields
from jobs.corpus.columns import Row, columns
from jobs.corpus.filter import Filter
from jobs.corpus.template import Template
from jobs.errors import Problem


class Mapper:
    """Turns one row after another into an item, as the fields ask."""

    def __init__(self, fields: Fields) -> None:
        rows = fields.rows
        self.main = fields.main
        self._takes = Filter(rows.where).takes if rows.where is not None else None
        self._template = Template(rows.template) if rows.template is not None else None
        self._fields = [field for field, _ in fields.moves]
        self._names = [name for _, name in fields.moves]
        self._values = columns(self._names)
        self._id = self._fields.index(ID) if ID in self._fields else None
        kept = {ID, *self._fields}
        self._moved = [name for field, name in fields.moves if field != ID and name not in kept]

    def item(self, number: int, row: Row) -> Row | Problem | None:
        """The item of the row on this line, which may be the row itself, changed; None: the filter leaves it out. A
        number as id becomes text.

        Raises TypeError for a value that cannot be told as JSON.
        """
        if self._takes is not None and not self._takes(row):
            return None
        try:
            values = self._values(row)
            text = self._template.fill(row) if self._template is not None else None
        except KeyError as error:
            return Problem(number, "missing_field", f"no field {error.args[0]!r}; the line has: {_shown(row)}")
        except ValueError as error:
            return Problem(number, "line_too_long", str(error))
        if self._id is not None and values[self._id] in (None, ""):
            what = "null" if values[self._id] is None else "empty"
            return Problem(number, "invalid_id", f"field {self._names[self._id]!r} is {what}, so the item has no id")
        for name in self._moved:
            row.pop(name, None)
        for field, value in zip(self._fields, values, strict=True):  # faster than update()
            row[field] = value
        if text is not None:
            row[self.main] = text
        if self._id is not None and type(row[ID]) is int:
            row[ID] = str(row[ID])
        return row

    def plainly(self, columns: Sequence[str]) -> list[tuple[str, str]] | None:
        """The fields of every item, each with its column, for rows of these columns; None: it takes a look at a row."""
        is_plain = self._takes is None and self._template is None and len(set(columns)) == len(columns)
        if not is_plain or not set(self._names) <= set(columns):
            return None
        left = [name for name in columns if name not in self._moved and name not in self._fields]
        return [(name, name) for name in left] + list(zip(self._fields, self._names, strict=True))

    def text(self, number: int, text: str) -> Row | Problem | None:
        """The same of a text that has no columns: it stands for the main field, and is no other field's."""
        row = {self.main: text}
        if self._takes is not None and not self._takes(row):
            return None
        if self._template is None:
            return row
        try:
            return {self.main: self._template.fill(row)}
        except KeyError as error:
            return Problem(number, "missing_field", f"no field {error.args[0]!r}; the line is a text, {self.main!r}")
        except ValueError as error:
            return Problem(number, "line_too_long", str(error))


def _shown(row: Row) -> str:
    names = [name[:40] for name in row][:20]
    return ", ".join(names) or "no fields"

"""The templates, and what all of them know."""

from functools import cache
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined

from jobs.tasks.languages import english_name
from jobs.web import charts, results, words

PARTS = ("state", "short", "bar", "figure", "copyable", "empty", "tabs", "labels")
"""Macros that every template may use."""


@cache
def environment() -> Environment:
    """All templates. What is put into them is escaped, and what they name has to be there."""
    made = Environment(
        loader=PackageLoader("jobs.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(words.FILTERS)
    made.globals.update(
        charts=charts,
        lang=results.lang,
        lengths=results.lengths,
        marked=results.marked,
        scale=results.scale,
        sparks=results.sparks,
        structured=results.structured,
        language_name=english_name,
        label_chars=results.LABEL_CHARS,
        shown=results.SHOWN_CHARS,
        version=version("textmill"),
    )
    # Not imported by each template: a block that is drawn alone has no imports of its template.
    parts = made.get_template("parts.html").module
    made.globals.update({name: getattr(parts, name) for name in PARTS})
    return made

"""Sources and sinks that the operator has named, for those who may name no path, URL or query of their own.

```toml
[tickets]
source = "s3://in/tickets/*.jsonl"
tenants = ["support"]

[warehouse]
sink = "postgresql://writer@warehouse/nlp#ticket_labels"
```
"""

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from jobs import corpus
from jobs.corpus import database
from jobs.errors import InvalidSettings, UnknownConnection

if TYPE_CHECKING:
    from jobs.corpus import Fields, Source
    from jobs.settings import Settings

PREFIX = "connection:"
"""Before a connection's name, where paths and URLs may stand, too."""


class Connection(BaseModel):
    """What an operator has named. All but who may use it is as the command line takes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | tuple[str, ...] | None = None
    """What is read: files, globs, folders, URLs, or a database's URL with a `query`."""
    query: str | None = None
    format: str | None = None
    sink: str | None = None
    """Where results are written; `{job}` and `{date}` are the job's."""
    tenants: tuple[str, ...] | None = None
    """Who may use it; none: everybody."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is read."""
        return (self.source,) if isinstance(self.source, str) else self.source or ()


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
_FILE = TypeAdapter(dict[Name, Annotated[Connection, Field()]])


def usable(settings: "Settings", tenant: str) -> Mapping[str, Connection]:
    """The connections of this tenant, by name. Raises InvalidSettings for a file that is none."""
    if settings.connections is None:
        return {}
    found = _loaded(settings.connections, _version(settings.connections))
    return {name: each for name, each in found.items() if each.tenants is None or tenant in each.tenants}


def source(settings: "Settings", name: str, tenant: str, fields: "Fields") -> "Source":
    """The items behind a connection. Raises UnknownConnection, InvalidInput."""
    found = _found(settings, name, tenant, "source")
    if found.query is not None:
        [url] = found.inputs
        return corpus.open_query(
            url,
            found.query,
            text_field=fields.text,
            id_field=fields.id,
            main_field=fields.main,
            rows=fields.rows,
            max_row_bytes=settings.max_line_bytes,
        )
    return corpus.open_source(
        found.inputs,
        text_field=fields.text,
        id_field=fields.id,
        main_field=fields.main,
        rows=fields.rows,
        max_line_bytes=settings.max_line_bytes,
        form=found.format,
        shown=dict.fromkeys(found.inputs, f"{PREFIX}{name}"),
    )


def sink(settings: "Settings", name: str, tenant: str) -> str:
    """The target behind a connection. Raises UnknownConnection."""
    return str(_found(settings, name, tenant, "sink").sink)


def _found(settings: "Settings", name: str, tenant: str, what: str) -> Connection:
    known = {each: one for each, one in usable(settings, tenant).items() if getattr(one, what) is not None}
    if name not in known:
        there = ", ".join(sorted(known)) or f"none (setting connections names them; {what} = ...)"
        raise UnknownConnection(f"no connection {name[:100]!r} with a {what}; there are: {there}")
    return known[name]


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidSettings(f"connections {path}: cannot be read: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=8)
def _loaded(path: Path, version: Any) -> dict[str, Connection]:
    """The file's content, read again once it was changed."""
    try:
        with path.open("rb") as stream:
            found = _FILE.validate_python(tomllib.load(stream))
    except OSError as error:
        raise InvalidSettings(f"connections {path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"connections {path}: {error}") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise InvalidSettings(f"connections {path}: {where}: {wrong['msg']}") from error
    for name, each in found.items():
        if (each.query is not None) != any(database.is_database(one) for one in each.inputs) or (
            each.query is not None and len(each.inputs) != 1
        ):
            raise InvalidSettings(f"connections {path}: {name}: a query is asked of one database, and of nothing else")
        if each.sink is not None:
            corpus.check_target(each.sink)
    return found

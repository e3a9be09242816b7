"""The database's clock as SQL expressions: the only clock that rows are compared with."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from jobs.store.tables import Utc


class later(FunctionElement[datetime]):  # noqa: N801
    """`later(seconds)` is the present moment plus so many seconds (a number or a column), which may be negative."""

    type = Utc()
    inherit_cache = True

    def __init__(self, seconds: float | ColumnElement[float]) -> None:
        super().__init__(seconds if isinstance(seconds, ColumnElement) else bindparam(None, float(seconds)))


class whole_seconds(FunctionElement[int]):  # noqa: N801
    """`whole_seconds(moment)` is how many seconds passed from 1970 to this column's moment, rounded down."""

    type = BigInteger()
    inherit_cache = True


def now() -> later:
    """The present moment."""
    return later(0.0)


@compiles(later, "postgresql")
def _postgresql(element: later, compiler: Any, **kw: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(later, "sqlite")
def _sqlite(element: later, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%.3f seconds', {seconds}))"


@compiles(whole_seconds, "postgresql")
def _seconds_postgresql(element: whole_seconds, compiler: Any, **kw: Any) -> str:
    return f"CAST(floor(extract(epoch FROM {compiler.process(element.clauses, **kw)})) AS bigint)"


@compiles(whole_seconds, "sqlite")
def _seconds_sqlite(element: whole_seconds, compiler: Any, **kw: Any) -> str:
    # Without the fraction, which strftime would round up.
    return f"CAST(strftime('%s', substr({compiler.process(element.clauses, **kw)}, 1, 19)) AS integer)"

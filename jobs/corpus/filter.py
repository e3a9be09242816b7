"""Row filters as they are typed: `lang = 'en' and (stars >= 4 or not title ~ 'draft')`.

filter     = all { "or" all }
all        = one { "and" one }
one        = "not" one | "(" filter ")" | column "is" [ "not" ] "null" | column sign value
sign       = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
"""

import operator
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

from jobs.corpus.columns import Row, as_text, column
from jobs.errors import InvalidInput

MOST_CHARS, MOST_DEPTH = 10_000, 100
MOST_DIGITS = 400
"""A longer run of digits is no number."""
NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
TOKEN = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")"""
    rf"|(?P<number>{NUMBER.pattern}(?![\w.]))|(?P<word>[^\W\d][\w.-]*)|(?P<sign>!=|<=|>=|[=<>~()])"
)
ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SIGNS = ("=", "!=", *ORDERS, "~")
TRUTH = {"true": True, "false": False}

Test = Callable[[Row], bool]
Number = int | float


class Filter:
    """Whether a row is taken. Raises InvalidInput, with the place, for what is no filter.

    A comparison with a value that is not there, or of another kind, is false; `!=` and `not` turn that round.
    """

    def __init__(self, text: str) -> None:
        parser = _Parser(text)
        self.takes: Test = parser.whole()
        self.columns = tuple(dict.fromkeys(parser.columns))


class _Token(NamedTuple):
    kind: str
    """quoted, number, word, sign, or end."""
    text: str
    at: int

    def says(self, *words: str) -> bool:
        return self.kind in ("word", "sign") and self.text.lower() in words


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARS:
            raise InvalidInput(f"the filter has {len(text):,} characters; it may have {MOST_CHARS:,}")
        self.columns: list[str] = []
        self._text, self._depth = text, 0
        self._tokens = list(self._split())
        self._next = 0

    def whole(self) -> Test:
        test = self._any()
        if self._now.kind != "end":
            self._refuse("here belongs `and`, `or` or the end")
        return test

    @property
    def _now(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _split(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            if self._text[at].isspace():
                at += 1
                continue
            found = TOKEN.match(self._text, at)
            if found is None:
                quote = self._text[at] in "'\""
                _refuse(self._text, at, "this quote is never closed" if quote else "no such sign is known")
            yield _Token(str(found.lastgroup), found[0], at)
            at = found.end()
        yield _Token("end", "", at)

    def _any(self) -> Test:
        tests = [self._all()]
        while self._now.says("or"):
            self._take()
            tests.append(self._all())
        return tests[0] if len(tests) == 1 else _any_of(tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._now.says("and"):
            self._take()
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else _all_of(tests)

    def _one(self) -> Test:
        if not self._now.says("not", "("):
            return self._comparison()
        self._depth += 1
        if self._depth > MOST_DEPTH:
            self._refuse(f"more than {MOST_DEPTH} `not` and parentheses inside each other")
        if self._take().says("not"):
            inner = self._one()
            test: Test = lambda row: not inner(row)  # noqa: E731 - one of two
        else:
            test = self._any()
            if not self._take_if(")"):
                self._refuse("here belongs `and`, `or` or `)`")
        self._depth -= 1
        return test

    def _take_if(self, word: str) -> bool:
        if self._now.says(word):
            self._take()
            return True
        return False

    def _comparison(self) -> Test:
        value = self._column()
        if self._take_if("is"):
            wanted = not self._take_if("not")
            if not self._take_if("null"):
                self._refuse("here belongs `null`" if not wanted else "here belongs `null` or `not null`")
            return lambda row: (value(row) in (None, "")) is wanted
        if not self._now.says(*SIGNS):
            self._refuse(f"here belongs `is`, {', '.join(SIGNS[:-1])} or {SIGNS[-1]}")
        sign = self._take()
        literal = self._literal(sign)
        if sign.text == "!=":
            equal = _test(value, "=", literal)
            return lambda row: not equal(row)
        return _test(value, sign.text, literal)

    def _column(self) -> Callable[[Row], Any]:
        token = self._now
        if token.kind not in ("word", "quoted") or token.says("and", "or", "not", "is", "null"):
            self._refuse("here belongs a column's name, in double quotes if it is no plain word")
        self._take()
        name = _unquoted(token)
        self.columns.append(name)
        if "." not in name:
            return lambda row: row.get(name)
        found = column(name)

        def value(row: Row) -> Any:
            try:
                return found(row)
            except KeyError:
                return None

        return value

    def _literal(self, sign: _Token) -> str | bool | Number:
        token = self._now
        if token.kind == "quoted":
            literal: str | bool | Number | None = _unquoted(token)
        elif token.kind == "number":
            literal = _number(token.text)
        else:
            literal = TRUTH.get(token.text.lower()) if token.kind == "word" else None
        if literal is None:
            nothing = "; `is null` asks for what is not there" if token.says("null") else ""
            self._refuse(f"here belongs a text in quotes, a number, true or false{nothing}")
        if isinstance(literal, bool) and sign.text in (*ORDERS, "~"):
            self._refuse(f"{token.text} can be compared by = and != only")
        if sign.text == "~" and not isinstance(literal, str):
            self._refuse("~ asks whether a text is contained, so a text in quotes belongs here")
        self._take()
        return literal

    def _refuse(self, why: str) -> NoReturn:
        _refuse(self._text, self._now.at, why)


def _any_of(tests: list[Test]) -> Test:
    def test(row: Row) -> bool:
        for each in tests:  # noqa: SIM110 - a third faster than any()
            if each(row):
                return True
        return False

    return test


def _all_of(tests: list[Test]) -> Test:
    def test(row: Row) -> bool:
        for each in tests:  # noqa: SIM110 - a third faster than all()
            if not each(row):
                return False
        return True

    return test


def _refuse(text: str, at: int, why: str) -> NoReturn:
    found = repr(text[at : at + 20]) if at < len(text) else "its end"
    raise InvalidInput(f"the filter cannot be read at character {at + 1}, {found}: {why}")


def _unquoted(token: _Token) -> str:
    if token.kind != "quoted":
        return token.text
    quote = token.text[0]
    return token.text[1:-1].replace(quote * 2, quote)


def _test(value: Callable[[Row], Any], sign: str, literal: str | bool | Number) -> Test:
    """A comparison with a literal of one kind; values of other kinds are never equal, less, more or containing."""
    if isinstance(literal, bool):
        return lambda row: _truth(value(row)) is literal
    if sign == "~" and isinstance(literal, str):
        contained = literal
        return lambda row: contained in text if isinstance(text := value(row), str) else False
    read: Callable[[Any], Any] = _text if isinstance(literal, str) else _number
    compare: Callable[[Any, Any], bool] = operator.eq if sign == "=" else ORDERS[sign]
    return lambda row: (found := read(value(row))) is not None and compare(found, literal)


def _truth(value: Any) -> bool | None:
    return TRUTH.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None


def _number(value: Any) -> Number | None:
    """A number as such or written as one: a CSV has only texts."""
    if isinstance(value, str):
        if len(value) > MOST_DIGITS:
            return None
        if value.isdecimal() and value.isascii():
            return int(value)
        if not NUMBER.fullmatch(value):
            return None
        return int(value) if value.lstrip("+-").isdigit() else float(value)
    if isinstance(value, Decimal):
        return _number(str(value))  # as in the text that it is elsewhere; as Decimal, 0.1 equals no float, NaN raises
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    """A text; a date as it stands in JSON."""
    if isinstance(value, str):
        return value
    return as_text(value) if isinstance(value, date | datetime | time) else None

"""What a request asks for: each parameter is declared once, as it is read and as it is described.

Each error names the parameter, the value and what is right.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import Request

from alphapulse.api.problems import bad
from alphapulse.clock import parse_iso8601
from alphapulse.errors import FixedPointError
from alphapulse.fixed import INT64_MAX, format_decimal, parse_decimal
from alphapulse.history import ALL
from alphapulse.repository import NAME_PATTERN
from alphapulse.symbols import normalize_symbol

T = TypeVar("T")

_SECONDS = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)

TIME_PATTERN = (
    r"^([+-]?[0-8]?\d{1,9}(\.\d{1,9})?"
    r"|(1[7-9]|2[01])\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?)?)$"
).replace(r"\d", "[0-9]")
"""What is always a time; a few more ways of writing one are understood."""
SYMBOL_PATTERN = r"^[A-Za-z0-9]+[-/][A-Za-z0-9]+$"


class Limits(NamedTuple):
    """What the parameters' bounds depend on."""

    most: int
    """Largest count: ``api.max_limit``."""
    exchanges: Sequence[str] = ()
    """Those that are known, for the description."""


class Parameter(Generic[T]):
    """A parameter of the query.

    Parameters
    ----------
    name : in the query
    description : one sentence
    """

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description

    def schema(self, limits: Limits) -> dict[str, Any]:
        """JSON schema of its values."""
        raise NotImplementedError

    def required(self, limits: Limits) -> bool:
        """Whether a request without it is of no use."""
        return False

    def read(self, text: str | None, limits: Limits) -> T:
        """The value of what a request has, None where it isn't given. Raises `Problem`."""
        raise NotImplementedError


class Exchange(Parameter[str]):
    """The name of an exchange, checked by the handler.

    Parameters
    ----------
    name, description : see `Parameter`
    default : where not given
    others : further words
    """

    def __init__(
        self, name: str, description: str, default: str = "", others: tuple[str, ...] = ()
    ) -> None:
        super().__init__(name, description)
        self._default = default
        self._others = others

    def schema(self, limits: Limits) -> dict[str, Any]:
        """See `Parameter`."""
        schema: dict[str, Any] = {"type": "string"}
        if limits.exchanges:
            schema["enum"] = [*limits.exchanges, *self._others]
        if self._default and not self.required(limits):
            schema["default"] = self._default
        return schema

    def required(self, limits: Limits) -> bool:
        """See `Parameter`: so it is where the default is unknown."""
        known = limits.exchanges
        return bool(known and self._default) and self._default not in known

    def read(self, text: str | None, limits: Limits) -> str:
        """See `Parameter`."""
        if text == "":
            raise bad(self.name, "'' is none; name one, or leave the parameter out")
        return self._default if text is None else text


class Name(Parameter[str]):
    """A name that something is stored under; it has to be given."""

    def schema(self, limits: Limits) -> dict[str, Any]:
        """See `Parameter`."""
        return {"type": "string", "pattern": NAME_PATTERN, "not": {"const": ALL}}

    def required(self, limits: Limits) -> bool:
        """See `Parameter`."""
        return True

    def read(self, text: str | None, limits: Limits) -> str:
        """See `Parameter`."""
        if text is None or text == ALL or not re.fullmatch(NAME_PATTERN, text):
            raise bad(self.name, f"{text or ''!r} is no name: lower-case letters, digits and _")
        return text


class Choice(Parameter[str]):
    """One of some words.

    Parameters
    ----------
    name, description : see `Parameter`
    choices : the words
    default : where not given; may be none of the words
    """

    def __init__(self, name: str, description: str, choices: Collection[str], default: str) -> None:
        super().__init__(name, description)
        self._choices = choices
        self._default = default

    def schema(self, limits: Limits) -> dict[str, Any]:
        """See `Parameter`."""
        schema: dict[str, Any] = {"type": "string", "enum": list(self._choices)}
        return schema | ({"default": self._default} if self._default else {})

    def read(self, text: str | None, limits: Limits) -> str:
        """See `Parameter`."""
        if text is None:
            return self._default
        if text not in self._choices:
            raise bad(self.name, f"{text!r} is none of {', '.join(self._choices)}")
        return text


class Count(Parameter[int]):
    """A whole number from 1 to ``api.max_limit``.

    Parameters
    ----------
    name, description : see `Parameter`
    default : where not given
    """

    def __init__(self, name: str, description: str, default: int) -> None:
        super().__init__(name, description)
        self._default = default

    def schema(self, limits: Limits) -> dict[str, Any]:
        """See `Parameter`."""
        default = min(self._default, limits.most)
        return {"type": "integer", "minimum": 1, "maximum": limits.most, "default": default}

    def read(self, text: str | None, limits: Limits) -> int:
        """See `Parameter`."""
        if text is None:
            return min(self._default, limits.most)
        if not _INTEGER.fullmatch(text) or not 1 <= int(text) <= limits.most:
            raise bad(self.name, f"{text!r} is no whole number from 1 to {limits.most}")
        return int(text)


class Number(Parameter[Decimal | None]):
    """A number from 0 to `most` with at most so many decimal places; None if not given.

    Parameters
    ----------
    name, description : see `Parameter`
    most : the largest
    places : decimal places
    """

    def __init__(self, name: str, description: str, most: int, places: int) -> None:
        super().__init__(name, description)
        self._most = most
        self._places = places

    def schema(self, limits: Limits) -> dict[str, Any]:
        """See `Parameter`."""
        digits, places = len(str(self._most)), self._places
        return {"type": "string", "pattern": rf"^[0-9]{{1,{digits}}}(\.[0-9]{{1,{places}}})?$"}

    def read(self, text: str | None, limits: Limits) -> Decimal | None:
        """See `Parameter`."""
        if text is None:
            return None
        try:
            value = parse_decimal(text, self._places)
        except FixedPointError:
            value = -1
        if not 0 <= value <= self._most * 10**self._places:
            raise bad(
                self.name,
                f"{text!r} is no number from 0 to {self._most} with at most {self._places} "
                "decimal places",
            )
        return Decimal(format_decimal(value, self._places))


class Symbol(Parameter[str | None]):
    """A symbol, unified; None if not given."""

    def schema(self, limits: Limits) -> dict[str, Any]:
        """See `Parameter`."""
        return {"type": "string", "pattern": SYMBOL_PATTERN}

    def read(self, text: str | None, limits: Limits) -> str | None:
        """See `Parameter`."""
        try:
            return None if text is None else normalize_symbol(text)
        except ValueError as error:
            raise bad(self.name, str(error)) from None


class Moment(Parameter[int | None]):
    """A time, in nanoseconds since the epoch; None if not given."""

    def schema(self, limits: Limits) -> dict[str, Any]:
        """See `Parameter`."""
        return {"type": "string", "pattern": TIME_PATTERN}

    def read(self, text: str | None, limits: Limits) -> int | None:
        """See `Parameter`."""
        if text is None:
            return None
        try:
            return _seconds(text) if _SECONDS.fullmatch(text) else _moment(text)
        except FixedPointError:
            raise bad(
                self.name,
                f"{text!r} is out of range; use epoch seconds, not milliseconds or the like, "
                "with at most 9 decimal places",
            ) from None
        except ValueError:
            raise bad(
                self.name,
                f"{text!r} is no time; use epoch seconds (1690730998.343) or ISO 8601 "
                "(2023-07-30T15:29:58.343Z)",
            ) from None


START_TIME = Moment(
    "start_time", "From this time on: epoch seconds or ISO 8601 (UTC unless an offset is given)."
)
END_TIME = Moment("end_time", "Up to this time, included.")


class Parameters:
    """The query of a request.

    Parameters
    ----------
    request : with the query
    declared : what the path has; other names, and names given twice, are refused
    limits : what bounds depend on

    Raises
    ------
    Problem
        a parameter is unknown or given twice
    """

    def __init__(
        self, request: Request, declared: Sequence[Parameter[Any]], limits: Limits
    ) -> None:
        text = request.scope["query_string"].decode("latin-1")
        self.given: dict[str, str] = {}
        """Texts by name, as the request has them."""
        self._limits = limits
        names = [parameter.name for parameter in declared]
        for name, value in parse_qsl(text, keep_blank_values=True):
            if name not in names:
                known = f"use {', '.join(names)}" if names else "this path has none"
                raise bad(name, f"unknown parameter; {known}")
            if name in self.given:
                raise bad(name, "given more than once")
            self.given[name] = value

    def __getitem__(self, parameter: Parameter[T]) -> T:
        """The value of a parameter. Raises `Problem` where it can't be used."""
        return parameter.read(self.given.get(parameter.name), self._limits)

    def span(self) -> tuple[int | None, int | None]:
        """`START_TIME` and `END_TIME`."""
        start, end = self[START_TIME], self[END_TIME]
        if start is not None and end is not None and start > end:
            first, last = self.given[START_TIME.name], self.given[END_TIME.name]
            raise bad(START_TIME.name, f"{first!r} is after end_time, {last!r}")
        return start, end


def path_symbol(request: Request) -> str:
    """The path's symbol, written ``BTC-USD`` or ``BTC/USD``, unified."""
    parts = request.path_params
    text = parts["symbol"] if "symbol" in parts else f"{parts['base']}/{parts['quote']}"
    try:
        return normalize_symbol(text)
    except ValueError as error:
        raise bad("symbol", str(error)) from None


def _seconds(text: str) -> int:
    return parse_decimal(text, 9)


def _moment(text: str) -> int:
    # A plus sign that wasn't escaped in the query arrives as a space.
    date, rest = text[:11], text[11:].replace(" ", "+")
    time_ns = parse_iso8601((date + rest).upper().replace(",", "."))
    # Nothing can be kept beyond, so that the year 9999 as a bound means the same.
    return min(max(time_ns, -INT64_MAX), INT64_MAX)

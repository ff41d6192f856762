"""What a request asks for, checked: each error names the parameter, the value and what is right."""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal

from starlette.requests import Request

from alphapulse.api.problems import bad
from alphapulse.clock import NS_PER_SECOND, parse_iso8601
from alphapulse.errors import FixedPointError
from alphapulse.fixed import INT64_MAX, format_decimal, parse_decimal
from alphapulse.symbols import normalize_symbol

_SECONDS = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


class Parameters:
    """The query of a request.

    Parameters
    ----------
    request : with the query
    allowed : names that the path has; others, and names given twice, are refused

    Raises
    ------
    Problem
        a parameter is unknown or given twice
    """

    def __init__(self, request: Request, *allowed: str) -> None:
        self._query = request.query_params
        for name in self._query:
            if name not in allowed:
                known = f"use {', '.join(allowed)}" if allowed else "this path has none"
                raise bad(name, f"unknown parameter; {known}")
            if len(self._query.getlist(name)) > 1:
                raise bad(name, "given more than once")

    def text(self, name: str, default: str) -> str:
        """The value as it is."""
        return self._query.get(name, default)

    def choice(self, name: str, default: str, choices: Collection[str]) -> str:
        """One of some words."""
        value = self._query.get(name, default)
        if value not in choices:
            raise bad(name, f"{value!r} is none of {', '.join(choices)}")
        return value

    def count(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to `most`."""
        text = self._query.get(name)
        if text is None:
            return min(default, most)
        if not _INTEGER.fullmatch(text) or not 1 <= int(text) <= most:
            raise bad(name, f"{text!r} is no whole number from 1 to {most}")
        return int(text)

    def decimal(self, name: str, most: int, places: int) -> Decimal | None:
        """A number from 0 to `most` with at most so many decimal places; None if not given."""
        text = self._query.get(name)
        if text is None:
            return None
        try:
            value = parse_decimal(text, places)
        except FixedPointError:
            value = -1
        if not 0 <= value <= most * 10**places:
            raise bad(
                name,
                f"{text!r} is no number from 0 to {most} with at most {places} decimal places",
            )
        return Decimal(format_decimal(value, places))

    def symbol(self, name: str) -> str | None:
        """A symbol, unified; None if not given."""
        text = self._query.get(name)
        try:
            return None if text is None else normalize_symbol(text)
        except ValueError as error:
            raise bad(name, str(error)) from None

    def span(self) -> tuple[int | None, int | None]:
        """``start_time`` and ``end_time`` in nanoseconds since the epoch, None where not given."""
        start, end = self._time("start_time"), self._time("end_time")
        if start is not None and end is not None and start > end:
            raise bad("start_time", "is after end_time")
        return start, end

    def _time(self, name: str) -> int | None:
        text = self._query.get(name)
        if text is None:
            return None
        try:
            return _seconds(text) if _SECONDS.fullmatch(text) else _moment(text)
        except FixedPointError:
            raise bad(
                name, f"{text!r} is out of range; epoch seconds have at most 9 decimal places"
            ) from None
        except ValueError:
            raise bad(
                name,
                f"{text!r} is no time; use epoch seconds (1690730998.343) or ISO 8601 "
                "(2023-07-30T15:29:58.343Z)",
            ) from None


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
    time_ns = parse_iso8601(date + rest)
    if abs(time_ns) > INT64_MAX - NS_PER_SECOND:
        raise ValueError("beyond what nanoseconds can tell")
    return time_ns

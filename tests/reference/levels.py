"""Plain-Python twin of the native level parser: the standard library's JSON, Python's integers."""

from __future__ import annotations

import json
from typing import NamedTuple, NoReturn

from alphapulse.errors import DecimalSyntaxError, LevelSyntaxError, PrecisionError, RangeError
from alphapulse.fixed import parse_decimal

BID, ASK = 1, 2


class Number(str):
    """Text of a bare JSON number."""

    __slots__ = ()


class Layout(NamedTuple):
    """What a native `LevelLayout` is made of; `price` None for levels that are lists."""

    price: str | None = None
    size: str | None = None
    side: str | None = None
    bids: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    sided: bool = False


def refuse_constant(text: str) -> NoReturn:
    raise DecimalSyntaxError(text, "is no finite decimal number")


def parse_levels(
    raw: bytes, layout: Layout, side: int | None, price_exponent: int, size_exponent: int
) -> list[tuple[int, int, int]]:
    """(side, price, size) of each level, or the exception that the native parser raises."""
    try:
        levels = json.loads(
            raw.decode("utf-8", "replace"),
            parse_float=Number,
            parse_int=Number,
            parse_constant=refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise LevelSyntaxError(raw.decode("utf-8", "replace"), str(error)) from None
    if not isinstance(levels, list):
        raise LevelSyntaxError(str(levels), "is no list")
    widest: PrecisionError | None = None
    staged = []
    for level in levels:
        level_side, price_text, size_text = parts_of(level, layout)
        if side is None:
            level_side = side_of(level_side, layout)
        values = []
        for text, exponent, field in (
            (price_text, price_exponent, "price"),
            (size_text, size_exponent, "size"),
        ):
            try:
                values.append(number_of(text, exponent, field))
            except PrecisionError as error:
                values.append(1)
                if widest is None or (widest.field == field and error.needed > widest.needed):
                    widest = PrecisionError(error.value, error.needed, exponent, field)
        staged.append((int(str(level_side)) if side is None else side, values[0], values[1]))
    if widest is not None:
        raise widest
    return staged


def parts_of(level: object, layout: Layout) -> tuple[object, object, object]:
    """Side, price and size as they are in the JSON."""
    if layout.price is None:
        first = 1 if layout.sided else 0
        if not isinstance(level, list) or len(level) < first + 2:
            raise LevelSyntaxError(str(level), "is no level")
        return level[0], level[first], level[first + 1]
    if not isinstance(level, dict) or layout.price not in level or layout.size not in level:
        raise LevelSyntaxError(str(level), "is no level")
    return level.get(layout.side), level[layout.price], level[layout.size]


def side_of(word: object, layout: Layout) -> int:
    if type(word) is not str or word not in layout.bids + layout.asks:
        raise LevelSyntaxError(str(word), "is no side")
    return BID if word in layout.bids else ASK


def number_of(text: object, exponent: int, field: str) -> int:
    if not isinstance(text, str):
        raise DecimalSyntaxError(str(text), "is no number")
    value = parse_decimal(text, exponent)
    if value < 0 or (value == 0 and field == "price"):
        raise RangeError(text, "is negative, or a price of 0")
    return value

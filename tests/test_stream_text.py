"""The native texts against the rules in plain Python."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.clock import NO_TIME
from alphapulse.fixed import format_decimal
from alphapulse.model import Action, BookSide
from alphapulse.stream._text import decimal_text, delta_json, level_texts, times_text

LEAST, MOST = -(2**63), 2**63 - 1

numbers = st.integers(LEAST, MOST) | st.sampled_from([0, 1, -1, 10, 100, 10**18, LEAST, MOST])
places = st.integers(0, 18) | st.integers(0, 64)
levels = st.lists(st.tuples(numbers, numbers), max_size=20)


@given(numbers, places)
def test_numbers(value: int, exponent: int) -> None:
    assert decimal_text(value, exponent) == format_decimal(value, exponent)


@given(levels, places, places)
def test_levels(pairs: list[tuple[int, int]], price_places: int, size_places: int) -> None:
    assert level_texts(pairs, price_places, size_places) == [
        f"[{format_decimal(price, price_places)},{format_decimal(size, size_places)}]"
        for price, size in pairs
    ]


@given(
    st.lists(st.tuples(st.sampled_from(BookSide), numbers, numbers, st.sampled_from(Action))),
    places,
    places,
)
def test_changes(
    changes: list[tuple[BookSide, int, int, Action]], price_places: int, size_places: int
) -> None:
    text = delta_json(
        '"symbol":"\u20bf"'.encode(),
        7,
        5,
        (1, NO_TIME, 9),
        ((int(side), price, size, int(action)) for side, price, size, action in changes),
        price_places,
        size_places,
    ).decode()
    told = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    assert (told["type"], told["data"]["symbol"]) == ("orderbook_delta", "\u20bf")
    assert f'"version":7,"prev_version":5{times_text(1, NO_TIME, 9)},"changes":[' in text
    assert told["data"]["changes"] == [
        {
            "side": side.text,
            "price": Decimal(format_decimal(price, price_places)),
            "volume": Decimal(format_decimal(size, size_places)),
            "action": action.text,
        }
        for side, price, size, action in changes
    ]


@given(numbers, numbers, st.integers(0, 2**48))
def test_times(exchange_ns: int, received_ns: int, sequence: int) -> None:
    told = times_text(exchange_ns, received_ns, sequence)
    known = exchange_ns != NO_TIME
    seconds = format_decimal(exchange_ns, 9) if known else "null"
    assert told == (
        f',"timestamp":{seconds},"timestamp_ns":{exchange_ns if known else "null"}'
        f',"received_ns":{received_ns if received_ns != NO_TIME else "null"},"sequence":{sequence}'
    )


def test_what_can_not_be_written() -> None:
    with pytest.raises(OverflowError):
        decimal_text(2**63, 2)
    for wrong in (-1, 65):
        with pytest.raises(ValueError, match="decimal places"):
            level_texts([], wrong, 2)
    with pytest.raises(KeyError):
        delta_json(b"", 1, 0, (1, 1, 1), [(9, 1, 1, 1)], 2, 2)

"""Which ids have been seen: ranges against a plain set."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from alphapulse.model import IdKind
from alphapulse.store.identity import IdRanges, Series, sift
from tests.trading import row


@given(st.lists(st.integers(0, 40) | st.integers(0, 2**64 - 1)))
def test_ranges_are_a_set(numbers: list[int]) -> None:
    ranges, plain = IdRanges(), set[int]()
    for number in numbers:
        assert ranges.add(number) == (number not in plain)
        plain.add(number)
    pairs = ranges.pairs()
    held = sum(last - first + 1 for first, last in pairs)
    assert held == len(plain)
    assert all(first in plain and last in plain for first, last in pairs)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(pairs))
    again = IdRanges(pairs)
    assert not any(again.add(number) for number in plain)


def test_consecutive_ids_are_one_range() -> None:
    ranges = IdRanges()
    for number in (5, 7, 6, 4, 8):
        assert ranges.add(number)
    assert ranges.pairs() == [(4, 8)]


def test_ranges_stay_bounded_by_taking_old_holes_for_seen() -> None:
    ranges = IdRanges(most=3)
    for number in range(0, 20, 2):
        assert ranges.add(number)
    assert len(ranges.pairs()) == 3
    assert not ranges.add(5)
    assert ranges.add(17)


def test_a_series_survives_its_text() -> None:
    series = Series()
    series.add(IdKind.TRADE, 2**64 - 1)
    series.add(IdKind.AGGREGATE, 3)
    again = Series.load(series.dump())
    assert not again.add(IdKind.TRADE, 2**64 - 1)
    assert not again.add(IdKind.AGGREGATE, 3)
    assert again.add(IdKind.TRADE, 3)


def test_sifting_keeps_each_trade_once() -> None:
    rows = [row(1), row(2), row(1), row("a"), row("b"), row("a"), row(1, id_kind=IdKind.AGGREGATE)]
    series: dict[str, Series] = {}
    new = sift(rows, series, {("BTC-USD", "b")})
    assert new == [row(1), row(2), row("a"), row(1, id_kind=IdKind.AGGREGATE)]
    assert not sift(rows, series, {("BTC-USD", "a"), ("BTC-USD", "b")})

"""Bars out of trades, exactly: integers only, at whatever exponents the trades have."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from alphapulse.history import BarRow, OrderKey, TradeRow


class Part(msgspec.Struct):
    """The trades of one bar that have the same exponents, summed up."""

    bucket: int
    """Number of the bar: time divided by the bar's length, rounded down."""
    price_exponent: int
    size_exponent: int
    first: OrderKey
    last: OrderKey
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int

    def add(self, trade: TradeRow) -> None:
        """Take in one more trade, of these exponents."""
        key = trade.order_key
        if key < self.first:
            self.first, self.open = key, trade.price
        if key > self.last:
            self.last, self.close = key, trade.price
        self.high = max(self.high, trade.price)
        self.low = min(self.low, trade.price)
        self.volume += trade.size
        self.trades += 1


def parts_of(trades: Iterable[TradeRow], interval_ns: int) -> Iterable[Part]:
    """Group trades by bar and exponents."""
    parts: dict[tuple[int, int, int], Part] = {}
    for trade in trades:
        bucket = trade.timestamp_ns // interval_ns
        group = (bucket, trade.price_exponent, trade.size_exponent)
        part = parts.get(group)
        if part is None:
            key, price = trade.order_key, trade.price
            parts[group] = Part(*group, key, key, price, price, price, price, trade.size, 1)
        else:
            part.add(trade)
    return parts.values()


def bars_of(parts: Iterable[Part], interval_ns: int) -> list[BarRow]:
    """Bars, oldest first, out of the parts of each."""
    by_bucket: dict[int, list[Part]] = {}
    for part in parts:
        by_bucket.setdefault(part.bucket, []).append(part)
    return [_bar(by_bucket[bucket], interval_ns) for bucket in sorted(by_bucket)]


def _bar(parts: list[Part], interval_ns: int) -> BarRow:
    price_exponent = max(part.price_exponent for part in parts)
    size_exponent = max(part.size_exponent for part in parts)

    def price(value: int, part: Part) -> int:
        return value * int(10 ** (price_exponent - part.price_exponent))

    first = min(parts, key=lambda part: part.first)
    last = max(parts, key=lambda part: part.last)
    return BarRow(
        timestamp_ns=parts[0].bucket * interval_ns,
        open=price(first.open, first),
        high=max(price(part.high, part) for part in parts),
        low=min(price(part.low, part) for part in parts),
        close=price(last.close, last),
        price_exponent=price_exponent,
        volume=sum(part.volume * 10 ** (size_exponent - part.size_exponent) for part in parts),
        size_exponent=size_exponent,
        trades=sum(part.trades for part in parts),
    )


def span_of_bars(
    interval_ns: int, start_ns: int | None, end_ns: int | None
) -> tuple[int | None, int | None]:
    """Times between which the trades of all bars lie that begin in a span, both ends included."""
    start = None if start_ns is None else -(-start_ns // interval_ns) * interval_ns
    end = None if end_ns is None else (end_ns // interval_ns + 1) * interval_ns - 1
    return start, end

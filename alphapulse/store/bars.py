"""Bars out of trades, exactly: integers only, at whatever exponents the trades have.

A bar is kept as a `Part`, which knows the places of its first and last trade in their order: late
and filled trades, and the trades of other parts, take their places in it whenever they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import starmap

import msgspec
from msgspec.structs import replace

from alphapulse.clock import NS_PER_SECOND
from alphapulse.history import INTERVALS_NS, BarRow, OrderKey, TradeRow
from alphapulse.store._tally import Tally

STORED = ("1s", "1m", "1h", "1d")
"""Intervals whose bars are stored; those between are made of them when they are read."""


class Part(msgspec.Struct):
    """Some trades of one bar, or all of them, summed up; at the largest exponents among them."""

    begin_ns: int
    """When the bar begins."""
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

    @classmethod
    def of(cls, trade: TradeRow, interval_ns: int) -> Part:
        """The part that has one trade."""
        key, price = trade.order_key, trade.price
        return cls(
            begin_ns=key[0] - key[0] % interval_ns,
            price_exponent=trade.price_exponent,
            size_exponent=trade.size_exponent,
            first=key,
            last=key,
            open=price,
            high=price,
            low=price,
            close=price,
            volume=trade.size,
            trades=1,
        )

    def merge(self, other: Part) -> None:
        """Take in other trades of the same bar."""
        if (other.price_exponent, other.size_exponent) != (self.price_exponent, self.size_exponent):
            price_exponent = max(self.price_exponent, other.price_exponent)
            size_exponent = max(self.size_exponent, other.size_exponent)
            self._rescale(price_exponent, size_exponent)
            other = replace(other)
            other._rescale(price_exponent, size_exponent)
        if other.first < self.first:
            self.first, self.open = other.first, other.open
        if other.last > self.last:
            self.last, self.close = other.last, other.close
        self.high = max(self.high, other.high)
        self.low = min(self.low, other.low)
        self.volume += other.volume
        self.trades += other.trades

    def add(self, trade: TradeRow) -> None:
        """Take in one more trade, of these exponents: `merge` without a part in between."""
        key, price = trade.order_key, trade.price
        if key < self.first:
            self.first, self.open = key, price
        if key > self.last:
            self.last, self.close = key, price
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.volume += trade.size
        self.trades += 1

    def _rescale(self, price_exponent: int, size_exponent: int) -> None:
        factor = int(10 ** (price_exponent - self.price_exponent))
        self.open *= factor
        self.high *= factor
        self.low *= factor
        self.close *= factor
        self.volume *= int(10 ** (size_exponent - self.size_exponent))
        self.price_exponent, self.size_exponent = price_exponent, size_exponent


class BarTail:
    """What has been added since bars were last stored.

    Only the shortest bars are kept, since the longer ones are made of them: a sum for each second
    and symbol with trades, and parts of the trades that such a sum can't take.
    """

    def __init__(self) -> None:
        self._tally = Tally()
        self._odd: dict[str, dict[int, Part]] = {}

    def __len__(self) -> int:
        """How many sums and parts are held."""
        return len(self._tally) + sum(map(len, self._odd.values()))

    def add(self, rows: Iterable[TradeRow]) -> None:
        """Take in trades of one exchange, none of which was taken in before."""
        for row in self._tally.add(rows):
            _add(self._odd.setdefault(row.symbol, {}), row, NS_PER_SECOND)

    def symbols(self) -> list[str]:
        """Those of the trades that are held, about in the order in which they came first."""
        return list(dict.fromkeys((*self._tally.symbols(), *self._odd)))

    def take_out(self, symbols: Iterable[str]) -> dict[tuple[str, str], list[Part]]:
        """Parts by symbol and stored interval, in the order of time, to merge with the stored.

        They are forgotten here.
        """
        found = {}
        for symbol in symbols:
            odd = self._odd.pop(symbol, {}).values()
            parts: Iterable[Part] = [*starmap(Part, self._tally.take_out(symbol)), *odd]
            for interval in STORED:
                parts = regrouped(parts, INTERVALS_NS[interval])
                found[symbol, interval] = parts
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._tally.clear()
        self._odd.clear()


def source_of(interval_ns: int) -> str:
    """The stored interval that bars are made of: the longest of which the length is a multiple.

    Raises
    ------
    ValueError
        the length isn't a number of seconds
    """
    for interval in reversed(STORED):
        if interval_ns % INTERVALS_NS[interval] == 0:
            return interval
    raise ValueError(f"bars of {interval_ns} ns can't be made: use a multiple of {NS_PER_SECOND}")


def parts_of(trades: Iterable[TradeRow], interval_ns: int) -> list[Part]:
    """One part for each bar, in the order of time."""
    parts: dict[int, Part] = {}
    for trade in trades:
        _add(parts, trade, interval_ns)
    return [parts[begin] for begin in sorted(parts)]


def regrouped(parts: Iterable[Part], interval_ns: int) -> list[Part]:
    """One part for each bar, in the order of time, of parts of such bars or of finer ones.

    Parameters
    ----------
    parts : in any order, any number for a bar; they aren't changed
    interval_ns : length of the bars, a multiple of those of the parts
    """
    merged: dict[int, Part] = {}
    for part in parts:
        begin = part.begin_ns - part.begin_ns % interval_ns
        whole = merged.get(begin)
        if whole is None:
            merged[begin] = replace(part, begin_ns=begin)
        else:
            whole.merge(part)
    return [merged[begin] for begin in sorted(merged)]


def bars_of(parts: Iterable[Part], interval_ns: int) -> list[BarRow]:
    """Bars, oldest first; the parts are as for `regrouped`."""
    return [
        BarRow(
            timestamp_ns=part.begin_ns,
            open=part.open,
            high=part.high,
            low=part.low,
            close=part.close,
            price_exponent=part.price_exponent,
            volume=part.volume,
            size_exponent=part.size_exponent,
            trades=part.trades,
        )
        for part in regrouped(parts, interval_ns)
    ]


def consolidated(venues: Mapping[str, Iterable[Part]], interval_ns: int) -> list[BarRow]:
    """Bars of one symbol over several exchanges, oldest first.

    Trades of the same time are in the order of their exchanges' names.

    Parameters
    ----------
    venues : parts by exchange, as for `regrouped`
    interval_ns : length of the bars
    """
    parts = []
    for exchange, of_exchange in venues.items():
        for part in regrouped(of_exchange, interval_ns):
            # Among exchanges time and name decide; within one, the first and last are known.
            part.first = part.first[0], 0, exchange
            part.last = part.last[0], 0, exchange
            parts.append(part)
    return bars_of(parts, interval_ns)


def span_of_bars(
    interval_ns: int, start_ns: int | None, end_ns: int | None
) -> tuple[int | None, int | None]:
    """Times between which the trades of all bars lie that begin in a span, both ends included."""
    start = None if start_ns is None else -(-start_ns // interval_ns) * interval_ns
    end = None if end_ns is None else (end_ns // interval_ns + 1) * interval_ns - 1
    return start, end


def _add(parts: dict[int, Part], trade: TradeRow, interval_ns: int) -> None:
    begin = trade.timestamp_ns - trade.timestamp_ns % interval_ns
    part = parts.get(begin)
    if part is None:
        parts[begin] = Part.of(trade, interval_ns)
    elif part.price_exponent == trade.price_exponent and part.size_exponent == trade.size_exponent:
        part.add(trade)
    else:
        part.merge(Part.of(trade, interval_ns))

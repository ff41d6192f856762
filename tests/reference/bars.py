"""Bars by a plain group-by over trades, in Decimal."""

from __future__ import annotations

import decimal
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from alphapulse.history import BarRow, TradeRow
from alphapulse.model import IdKind

EXACT = decimal.Context(prec=200, traps=[decimal.Inexact])


class Bar(NamedTuple):
    """A bar without scales."""

    timestamp_ns: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int


def value(scaled: int, exponent: int) -> Decimal:
    return EXACT.scaleb(Decimal(scaled), -exponent)


def plain(bar: BarRow) -> Bar:
    """A store's bar without scales."""
    return Bar(
        bar.timestamp_ns,
        value(bar.open, bar.price_exponent),
        value(bar.high, bar.price_exponent),
        value(bar.low, bar.price_exponent),
        value(bar.close, bar.price_exponent),
        value(bar.volume, bar.size_exponent),
        bar.trades,
    )


def place(trade: TradeRow) -> tuple[int, int, str]:
    """A trade's place among others: ids that are no numbers come first."""
    if trade.id_kind is IdKind.TEXT:
        return trade.timestamp_ns, 0, trade.trade_id
    return trade.timestamp_ns, int(trade.trade_id), ""


def bars(trades: Iterable[TradeRow], interval_ns: int) -> list[Bar]:
    """Group by time, in the order of (time, id)."""
    groups: dict[int, list[TradeRow]] = {}
    for trade in sorted(trades, key=place):
        begin = trade.timestamp_ns - trade.timestamp_ns % interval_ns
        groups.setdefault(begin, []).append(trade)
    result = []
    for begin, group in sorted(groups.items()):
        prices = [value(trade.price, trade.price_exponent) for trade in group]
        volume = Decimal(0)
        for trade in group:
            volume = EXACT.add(volume, value(trade.size, trade.size_exponent))
        result.append(
            Bar(begin, prices[0], max(prices), min(prices), prices[-1], volume, len(group))
        )
    return result

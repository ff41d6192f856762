"""The trades that the history benchmarks store: of ten symbols in turns, the same for everybody."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from alphapulse.delta import Encoder, encode_instrument
from alphapulse.history import TradeRow
from alphapulse.model import IdKind, Instrument, Side
from alphapulse.shm import RingWriter
from alphapulse.simulators.specs import pair_specs

EXCHANGE = "kraken"
SPECS = pair_specs(10)
SEED = 1

_QUOTES = 1000 * len(SPECS)
"""Prices and sizes come again after so many trades."""


class Quote(NamedTuple):
    """A trade without its id and its times; price and size are scaled."""

    market: int
    price: int
    size: int
    side: Side


def _made() -> list[Quote]:
    rng = random.Random(SEED)
    quotes = []
    for number in range(_QUOTES):
        spec = SPECS[number % len(SPECS)]
        price = spec.price + spec.tick * rng.randint(-100, 100)
        size = spec.lot * max(1, round(spec.size / spec.lot * rng.expovariate(1.0)))
        side = Side.BUY if rng.random() < 0.5 else Side.SELL
        quotes.append(Quote(number % len(SPECS), price, size, side))
    return quotes


QUOTES = _made()


def quote(number: int) -> Quote:
    """What trade `number` is, from 0."""
    return QUOTES[number % _QUOTES]


def trade_id(number: int) -> int:
    """The venue's id of trade `number`; each symbol's ids go up by one from 1."""
    return number // len(SPECS) + 1


def rows(first: int, count: int, begin_ns: int, step_ns: int) -> list[TradeRow]:
    """Trades as a store takes them.

    Parameters
    ----------
    first : number of the first one
    count : how many
    begin_ns : time of trade 0
    step_ns : between a trade and the next
    """
    found = []
    for number in range(first, first + count):
        market, price, size, side = QUOTES[number % _QUOTES]
        spec = SPECS[market]
        found.append(
            TradeRow(
                exchange=EXCHANGE,
                symbol=spec.symbol,
                trade_id=str(number // len(SPECS) + 1),
                timestamp_ns=begin_ns + number * step_ns,
                received_ns=begin_ns + number * step_ns + 1_000_000,
                price=price,
                price_exponent=spec.price_exponent,
                size=size,
                size_exponent=spec.size_exponent,
                side=side,
            )
        )
    return found


class PlainTrade(NamedTuple):
    """A trade as anybody's program would have it."""

    symbol: str
    side: str
    size: Decimal
    price: Decimal
    trade_id: str


def plain_trades(count: int) -> Iterator[PlainTrade]:
    """The first trades."""
    for number in range(count):
        market, price, size, side = quote(number)
        spec = SPECS[market]
        yield PlainTrade(
            spec.symbol,
            side.text,
            Decimal(size).scaleb(-spec.size_exponent),
            Decimal(price).scaleb(-spec.price_exponent),
            str(trade_id(number)),
        )


class RingFeed:
    """Writes the trades to a ring as a collector would.

    Parameters
    ----------
    writer : the ring
    first : number of the first trade
    """

    def __init__(self, writer: RingWriter, first: int = 0) -> None:
        self.number = first
        self._write = writer.write
        self._encoder = Encoder()
        for index, spec in enumerate(SPECS):
            instrument = Instrument(
                id=index + 1,
                exchange=EXCHANGE,
                symbol=spec.symbol,
                venue_symbol=f"{spec.base}/{spec.quote}",
                base=spec.base,
                quote=spec.quote,
                price_exponent=spec.price_exponent,
                size_exponent=spec.size_exponent,
            )
            self._write(encode_instrument(self._encoder, instrument))

    def send(self, now_ns: int) -> None:
        """Write the next trade.

        Parameters
        ----------
        now_ns : its time, the venue's and ours
        """
        number = self.number
        market, price, size, side = QUOTES[number % _QUOTES]
        self._write(
            self._encoder.trade(
                market + 1,
                price=price,
                size=size,
                side=side,
                trade_id=number // len(SPECS) + 1,
                id_kind=IdKind.TRADE,
                exchange_ns=now_ns,
                received_ns=now_ns,
            )
        )
        self.number = number + 1

"""The market that is fanned out: many symbols' trades and book changes, as records and as JSON.

Our server gets the records through a ring; a peer gets, through a pipe, the very JSON texts that
our server makes of them.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from alphapulse.delta import Book, ChangeSet, Encoder, LevelStage, encode_instrument
from alphapulse.model import (
    Action,
    BookSide,
    BookState,
    IdKind,
    Instrument,
    Reason,
    RecordFlag,
    Side,
    Trade,
)
from alphapulse.shm import RingWriter
from alphapulse.stream.messages import Times, encode_changes, encode_trade

EXCHANGE = "kraken"
LEVELS = 100
"""A side of each book: as many as a subscription shows unless it says otherwise."""
SEED = 1

_TRADES = 0.3
"""Share of the events."""
_MOST_CHANGED = 2
"""Levels, in one book change."""
_PRICE_PLACES = 1
_SIZE_PLACES = 8
_MIDDLE = 294_300
_SIZES = (100_000, 500_000_000)


def symbols(count: int) -> list[str]:
    """Unified names of the first so many symbols."""
    return [f"A{number:03d}-USD" for number in range(count)]


class Step(NamedTuple):
    """One event: a trade, or sizes that change at some levels."""

    market: int
    """Number of the symbol."""
    changes: list[tuple[int, int, int, int]]
    """(side, price, size, action); empty for a trade."""
    price: int
    size: int
    side: Side


class Market:
    """Books of constant prices whose sizes change; the same for every contestant.

    Parameters
    ----------
    count : symbols
    """

    def __init__(self, count: int) -> None:
        self.instruments = [_instrument(number, name) for number, name in enumerate(symbols(count))]
        self.versions = [1] * count
        self.sequence = 0
        self._random = random.Random(SEED)
        self._sizes = [
            {(side, level): self._size() for side in (0, 1) for level in range(LEVELS)}
            for _ in range(count)
        ]

    def _size(self) -> int:
        return self._random.randint(*_SIZES)

    def step(self) -> Step:
        """What happens next."""
        rng = self._random
        market = rng.randrange(len(self.instruments))
        if rng.random() < _TRADES:
            side = Side.BUY if rng.random() < 0.5 else Side.SELL
            price = _price(1 if side is Side.BUY else 0, 0)
            return Step(market, [], price, self._size(), side)
        sizes = self._sizes[market]
        wanted = {
            # Most of what changes is near the best price.
            (rng.randrange(2), min(int(rng.expovariate(0.2)), LEVELS - 1))
            for _ in range(rng.randint(1, _MOST_CHANGED))
        }
        changes = []
        for place in sorted(wanted):
            size = self._size()
            sizes[place] = size + (size == sizes[place])
            changes.append((place[0] + 1, _price(*place), sizes[place], int(Action.UPDATE)))
        self.versions[market] += 1
        return Step(market, changes, 0, 0, Side.BUY)

    def text(self, step: Step, stamp_ns: int) -> str:
        """The event as our server's JSON message.

        Parameters
        ----------
        stamp_ns : stands for the venue's time
        """
        self.sequence += 1
        instrument = self.instruments[step.market]
        if step.changes:
            version = self.versions[step.market]
            times = Times(stamp_ns, stamp_ns, self.sequence)
            return encode_changes(instrument, version, version - 1, times, step.changes)
        trade = Trade(
            exchange=EXCHANGE,
            sequence=self.sequence,
            exchange_ns=stamp_ns,
            received_ns=stamp_ns,
            instrument=instrument,
            price=step.price,
            size=step.size,
            side=step.side,
            trade_id=str(self.sequence),
            id_kind=IdKind.TRADE,
        )
        return encode_trade(trade)

    def book(self, market: int) -> Book:
        """A symbol's book as it is now."""
        stage = LevelStage()
        for (side, level), size in self._sizes[market].items():
            stage.append(BookSide(side + 1), _price(side, level), size)
        book = Book()
        book.load(stage)
        return book


class RingFeed:
    """Writes the market to a ring.

    Parameters
    ----------
    market : from its beginning
    writer : of an empty ring
    """

    def __init__(self, market: Market, writer: RingWriter) -> None:
        self._market = market
        self._writer = writer
        self._encoder = Encoder()
        self._changes = ChangeSet()
        for instrument in market.instruments:
            self._write(encode_instrument(self._encoder, instrument))
            self._snapshot(instrument, Reason.SUBSCRIBED, 0)
            live = self._encoder.state(instrument.id, BookState.LIVE, Reason.SUBSCRIBED)
            self._write(live)
        self.flush()

    def send(self, step: Step, stamp_ns: int) -> None:
        """Write an event."""
        instrument_id = step.market + 1
        if step.changes:
            self._changes.assign(step.changes)
            version = self._market.versions[step.market]
            record = self._encoder.delta(
                self._changes,
                instrument_id,
                version,
                version - 1,
                exchange_ns=stamp_ns,
                received_ns=stamp_ns,
            )
        else:
            record = self._encoder.trade(
                instrument_id,
                step.price,
                step.size,
                step.side,
                self._writer.sequence + 1,
                exchange_ns=stamp_ns,
                received_ns=stamp_ns,
            )
        self._write(record)

    def flush(self) -> None:
        """Wake the readers."""
        self._writer.wake()

    def beat(self, now_ns: int) -> None:
        """Do what a ring's writer does about once a second.

        Parameters
        ----------
        now_ns : Unix nanoseconds
        """
        self._writer.beat()
        for instrument_id in self._writer.due(now_ns):
            instrument = self._market.instruments[instrument_id - 1]
            self._snapshot(instrument, Reason.REPEATED, RecordFlag.REPEAT)

    def _snapshot(self, instrument: Instrument, reason: Reason, flags: int) -> None:
        market = instrument.id - 1
        record = self._encoder.snapshot(
            self._market.book(market),
            instrument.id,
            self._market.versions[market],
            reason,
            exchange_ns=0,
            received_ns=0,
            flags=flags,
        )
        self._write(record)

    def _write(self, record: Encoder) -> None:
        self._writer.write(record)


def _instrument(number: int, symbol: str) -> Instrument:
    base, _, quote = symbol.partition("-")
    return Instrument(
        id=number + 1,
        exchange=EXCHANGE,
        symbol=symbol,
        venue_symbol=f"{base}/{quote}",
        base=base,
        quote=quote,
        price_exponent=_PRICE_PLACES,
        size_exponent=_SIZE_PLACES,
    )


def _price(side: int, level: int) -> int:
    return _MIDDLE + 1 + level if side else _MIDDLE - level

"""What the engine knows of venues and their books."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from alphapulse.arbitrage.skew import Skew
from alphapulse.arbitrage.terms import Terms
from alphapulse.clock import NO_TIME

_NO_COST = 1 << 256
_NO_VALUE = -1
"""Of a side without levels, and of a book that isn't live: crosses nothing."""


class Levels(Protocol):
    """A book's levels as scaled (price, size); `alphapulse.delta.Book` is one."""

    def best(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Best bid and best ask, None where a side is empty."""
        ...

    def bids(self, limit: int) -> Sequence[tuple[int, int]]:
        """At most `limit` bids, highest price first."""
        ...

    def asks(self, limit: int) -> Sequence[tuple[int, int]]:
        """At most `limit` asks, lowest price first."""
        ...


class Market:
    """A symbol's books at all venues, and the exponents that they are compared on."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.price_exponent = 0
        self.size_exponent = 0
        """The largest of the books'."""
        self.quotes: list[Quote] = []

    def widen(self, price_exponent: int, size_exponent: int) -> tuple[int, int]:
        """Use exponents that are at least these; by what prices and sizes grow."""
        price_factor = 10 ** max(price_exponent - self.price_exponent, 0)
        size_factor = 10 ** max(size_exponent - self.size_exponent, 0)
        self.price_exponent = max(price_exponent, self.price_exponent)
        self.size_exponent = max(size_exponent, self.size_exponent)
        return price_factor, size_factor


class Venue:
    """An exchange.

    Parameters
    ----------
    exchange : its name
    terms : with its fee, if known
    changed : where its books note that they have to be looked at
    """

    def __init__(self, exchange: str, terms: Terms, changed: dict[Quote, None]) -> None:
        self.exchange = exchange
        self.seen_ns = NO_TIME
        """Wall time of its latest sign of life; whoever reads its ring keeps it current."""
        self.stale = True
        """Whether that was too long ago, as of `Engine.evaluate`."""
        self.skew = Skew()
        self.quotes: dict[str, Quote] = {}
        """Its books, by symbol."""
        self.changed = changed
        known = terms.knows(exchange)
        self.needs = terms.needs(exchange) if known else None
        self.gets = terms.gets(exchange) if known else None
        self.margin = terms.margin

    def age(self, now_ns: int, max_age_ns: int) -> bool:
        """Look at the clock; whether the venue has become stale, or isn't any more."""
        stale = self.seen_ns == NO_TIME or now_ns - self.seen_ns > max_age_ns
        turned = stale is not self.stale
        self.stale = stale
        return turned

    def lose(self) -> None:
        """None of its books is live any more."""
        for quote in self.quotes.values():
            quote.lose()


class Quote:
    """One book, as the engine knows it.

    Parameters
    ----------
    venue, market : whose it is
    levels : the book's levels, always the present ones
    """

    __slots__ = (
        *("ask", "bid", "cost", "crossings", "delay_ns", "exchange_ns", "levels", "live"),
        *("market", "price_factor", "received_ns", "size_factor", "value", "venue", "version"),
        *("_price_exponent", "_size_exponent"),
    )

    def __init__(self, venue: Venue, market: Market, levels: Levels) -> None:
        self.venue = venue
        self.market = market
        self.levels = levels
        self.live = False
        self.version = 0
        self.exchange_ns = NO_TIME
        self.received_ns = NO_TIME
        self.delay_ns: int | None = None
        """Time from the venue's to ours of the latest change, on the two clocks."""
        self.bid = self.ask = 0
        """Best prices, in the book's own scale; 0 where there is none."""
        self.cost = _NO_COST
        """What a seller elsewhere has to get for what is bought here at the best price."""
        self.value = _NO_VALUE
        """What is got here at the best price."""
        self.crossings = 0
        """How many pairs with another book cross."""
        self.price_factor = self.size_factor = 1
        """From the book's scale to the market's."""
        self._price_exponent = self._size_exponent = 0
        market.quotes.append(self)

    def scale(self, price_exponent: int, size_exponent: int) -> None:
        """Say what the levels are scaled by; until its next `update` the book isn't live."""
        self.lose()
        self._price_exponent = price_exponent
        self._size_exponent = size_exponent
        self.fit()

    def fit(self) -> None:
        """Follow the market's exponents."""
        self.price_factor = 10 ** (self.market.price_exponent - self._price_exponent)
        self.size_factor = 10 ** (self.market.size_exponent - self._size_exponent)
        if self.live:
            self._weigh()

    def update(
        self, version: int, exchange_ns: int, received_ns: int, *, timely: bool = True
    ) -> None:
        """The book is live and has changed.

        Parameters
        ----------
        version : of the book
        exchange_ns : the venue's time of the change, `NO_TIME` where unknown
        received_ns : our time of it
        timely : whether the venue sends a change when it happens; false for a snapshot, whose
            time may be long past
        """
        self.version = version
        self.exchange_ns = exchange_ns
        self.received_ns = received_ns
        if timely and exchange_ns != NO_TIME:
            self.delay_ns = received_ns - exchange_ns
            self.venue.skew.add(received_ns, self.delay_ns)
        else:
            self.delay_ns = None
        best_bid, best_ask = self.levels.best()
        bid = 0 if best_bid is None else best_bid[0]
        ask = 0 if best_ask is None else best_ask[0]
        if bid != self.bid or ask != self.ask or not self.live:
            self.live = True
            self.bid = bid
            self.ask = ask
            self._weigh()
            cost, value = self.cost, self.value
            for other in self.market.quotes:
                if (other.value >= cost or value >= other.cost) and other is not self:
                    self.venue.changed[self] = None
                    return
        if self.crossings:
            self.venue.changed[self] = None

    def lose(self) -> None:
        """The book isn't live any more."""
        if self.live:
            self.live = False
            self.cost = _NO_COST
            self.value = _NO_VALUE
            if self.crossings:
                self.venue.changed[self] = None

    def pairs(self) -> Iterator[tuple[Quote, Quote]]:
        """This book and each other one of its symbol, as (buy here, sell there) and reversed."""
        for other in self.market.quotes:
            if other is not self:
                yield self, other
                yield other, self

    def asks(self, limit: int) -> Iterator[tuple[int, int]]:
        """Asks in the market's scale."""
        return self._scaled(self.levels.asks(limit))

    def bids(self, limit: int) -> Iterator[tuple[int, int]]:
        """Bids in the market's scale."""
        return self._scaled(self.levels.bids(limit))

    @property
    def lag_ns(self) -> int | None:
        """How much longer the latest change took than the venue's quickest; None where unknown."""
        least_ns = self.venue.skew.least_ns
        return None if self.delay_ns is None or least_ns is None else self.delay_ns - least_ns

    def _scaled(self, levels: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        price_factor, size_factor = self.price_factor, self.size_factor
        return ((price * price_factor, size * size_factor) for price, size in levels)

    def _weigh(self) -> None:
        venue = self.venue
        if venue.needs is None or venue.gets is None:
            return  # a venue of unknown fee crosses nothing
        factor = self.price_factor
        self.cost = self.ask * factor * venue.needs + venue.margin if self.ask else _NO_COST
        self.value = self.bid * factor * venue.gets if self.bid else _NO_VALUE

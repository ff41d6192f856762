"""The engine: books in, opportunities out."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from alphapulse.arbitrage.books import Levels, Market, Quote, Venue
from alphapulse.arbitrage.opportunity import Event, Opportunity, Status
from alphapulse.arbitrage.pair import Pair, net_bps
from alphapulse.arbitrage.terms import Terms

_Key = tuple[Quote, Quote]


class Nearest(NamedTuple):
    """The two books of a symbol that are nearest to being an opportunity, or furthest beyond."""

    symbol: str
    buy_exchange: str
    sell_exchange: str
    net_bps: Decimal
    """Of a trade at the best prices, after fees; below 0 where it would make a loss."""


class Engine:
    """Finds the opportunities between the books that it is told of.

    It is told of signs of life (`Venue.seen_ns`), and of books' changes (`Quote.update`,
    `Quote.lose`). Then `evaluate` says what that means. It is to be called when all that has come
    from all venues has been told: a book that is ahead of the other would make opportunities that
    there never were.

    Parameters
    ----------
    terms : fees and limits
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.venues: dict[str, Venue] = {}
        self._markets: dict[str, Market] = {}
        self._changed: dict[Quote, None] = {}
        self._pairs: dict[_Key, Pair] = {}

    def venue(self, exchange: str) -> Venue:
        """A venue, known from now on."""
        venue = self.venues.get(exchange)
        if venue is None:
            venue = self.venues[exchange] = Venue(exchange, self.terms, self._changed)
        return venue

    def quote(
        self, exchange: str, symbol: str, levels: Levels, price_exponent: int, size_exponent: int
    ) -> Quote:
        """A book, known from now on; again whenever it has got other exponents.

        Parameters
        ----------
        levels : the book's levels, of which the engine always takes the present ones
        price_exponent, size_exponent : that the levels are scaled by
        """
        venue = self.venue(exchange)
        market = self._markets.get(symbol)
        if market is None:
            market = self._markets[symbol] = Market(symbol)
        quote = venue.quotes.get(symbol)
        if quote is None:
            quote = venue.quotes[symbol] = Quote(venue, market, levels)
        quote.levels = levels
        factors = market.widen(price_exponent, size_exponent)
        quote.scale(price_exponent, size_exponent)
        if factors != (1, 1):
            for other in market.quotes:
                other.fit()
            for pair in self._pairs.values():
                if pair.fill is not None and pair.buy.market is market:
                    pair.fill = pair.fill.rescale(*factors)
        return quote

    def evaluate(self, now_ns: int) -> Sequence[Event]:
        """What has opened, changed and closed since the last time.

        To be called several times a second, too, where nothing has changed: what a venue without a
        sign of life quotes is no opportunity any more.

        Parameters
        ----------
        now_ns : wall time, on the clock of `Venue.seen_ns`
        """
        if not self._changed and not self._pairs:
            return ()
        max_age_ns = self.terms.max_age_ns
        # No shortcut among the venues: each has to look at the clock.
        turned = sum([venue.age(now_ns, max_age_ns) for venue in self.venues.values()])
        if not self._changed and not turned:
            return ()
        events: list[Event] = []
        looked: dict[_Key, None] = {}
        for quote in self._changed:
            for key in quote.pairs():
                if key not in looked:
                    looked[key] = None
                    self._look(key, now_ns, events)
        self._changed.clear()
        if turned:
            for key, pair in self._pairs.items():
                if key not in looked:
                    self._judge(pair, now_ns, events)
        return events

    def opportunities(
        self, now_ns: int, *, symbol: str | None = None, min_bps: Decimal | None = None
    ) -> list[Opportunity]:
        """What was open when `evaluate` was called last, the most profitable first.

        Parameters
        ----------
        now_ns : wall time
        symbol : only this one's
        min_bps : least profit of each part, where it is to be more than the terms'; volumes and
            profits are then of the parts that make it, and so are the best ones, which are the
            present ones; how long it has lasted is by the terms
        """
        stricter = min_bps is not None and min_bps > self.terms.min_bps
        terms = self.terms.at_least(min_bps) if stricter and min_bps is not None else self.terms
        found = []
        for pair in self._pairs.values():
            if pair.opened_ns is None or symbol not in (None, pair.buy.market.symbol):
                continue
            fill = pair.match(terms) if stricter else pair.fill
            if fill is not None:
                found.append(pair.describe(terms, fill, now_ns, alone=stricter))
        found.sort(key=lambda item: (item.symbol, -item.profit, item.buy_exchange))
        return found

    def nearest(self) -> list[Nearest]:
        """For each symbol with two live books the best pair, by symbol; credible or not."""
        found = []
        for symbol, market in sorted(self._markets.items()):
            pairs = [
                Nearest(symbol, buy.venue.exchange, sell.venue.exchange, bps)
                for buy in market.quotes
                for sell in market.quotes
                if buy is not sell and (bps := net_bps(buy, sell, self.terms)) is not None
            ]
            if pairs:
                found.append(max(pairs, key=lambda pair: pair.net_bps))
        return found

    def _look(self, key: _Key, now_ns: int, events: list[Event]) -> None:
        """A book of this pair has changed."""
        buy, sell = key
        pair = self._pairs.get(key)
        if sell.value < buy.cost:
            if pair is not None:
                del self._pairs[key]
                buy.crossings -= 1
                sell.crossings -= 1
                live = buy.live and sell.live
                _close(pair, "uncrossed" if live else "not_live", now_ns, events)
            return
        if pair is None:
            pair = self._pairs[key] = Pair(buy, sell)
            buy.crossings += 1
            sell.crossings += 1
        pair.changed = True
        self._judge(pair, now_ns, events)

    def _judge(self, pair: Pair, now_ns: int, events: list[Event]) -> None:
        """Whether a crossing may be believed, and what it comes to."""
        hindrance = pair.hindrance(self.terms)
        if hindrance is not None:
            pair.changed = True
            _close(pair, hindrance, now_ns, events)
            return
        if not pair.changed:
            return
        pair.changed = False
        fill = pair.match(self.terms)
        if fill is None:
            _close(pair, "uncrossed", now_ns, events)
        elif fill != pair.fill:
            pair.fill = fill
            status = Status.CHANGED
            if pair.opened_ns is None:
                pair.opened_ns = now_ns
                status = Status.OPENED
            pair.told = pair.describe(self.terms, fill, now_ns)
            events.append(Event(status=status, opportunity=pair.told))


def _close(pair: Pair, reason: str, now_ns: int, events: list[Event]) -> None:
    if pair.told is not None:
        opportunity = msgspec.structs.replace(pair.told, at_ns=now_ns)
        events.append(Event(status=Status.CLOSED, reason=reason, opportunity=opportunity))
    pair.told = pair.fill = pair.opened_ns = None

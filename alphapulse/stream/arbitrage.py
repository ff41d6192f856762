"""Channel ``arbitrage``: crossings between exchanges, told when they open, change and close."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from alphapulse.arbitrage import Engine, Event, Status, Terms, encode_event
from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.stream.client import Group
from alphapulse.stream.items import event_item

if TYPE_CHECKING:
    from alphapulse.model import Instrument
    from alphapulse.stream.client import Client
    from alphapulse.stream.market import Market
    from alphapulse.stream.venue import Venue

UNWATCHED_NS = 100_000_000
"""How often crossings are looked for where nobody subscribes, so that a newcomer can be told since
when there is one."""

BEHIND_NS = 250_000_000
"""How long to wait for all rings to be read, before books of different times are compared."""


class Arbitrage:
    """The engine, and what of the books it hasn't been told yet.

    Parameters
    ----------
    terms : fees and limits
    venues : the exchanges by name; may grow
    """

    def __init__(self, terms: Terms, venues: Mapping[str, Venue]) -> None:
        self.engine = Engine(terms)
        self.changed: dict[Market, bool] = {}
        """Books that have changed, or aren't live any more, and whether by a delta."""
        self.watched: dict[Crossings, None] = {}
        """Symbols with subscribers."""
        self._venues = venues
        self._crossings: dict[str, Crossings] = {}
        self._scales: dict[Market, Instrument] = {}
        self._next_ns = 0

    def crossings(self, symbol: str) -> Crossings:
        """Those of a symbol, which are looked for from now on."""
        crossings = self._crossings.get(symbol)
        if crossings is None:
            crossings = self._crossings[symbol] = Crossings(self, symbol)
        return crossings

    def advance(self, now_ns: int, *, behind: bool) -> bool:
        """Tell subscribers what has opened, changed and closed; whether there was any of it.

        Parameters
        ----------
        now_ns : monotonic time
        behind : whether there is more to be read of some rings
        """
        if now_ns < self._next_ns and (behind or not self.watched):
            return False
        self._next_ns = now_ns + (BEHIND_NS if self.watched else UNWATCHED_NS)
        for exchange, venue in self._venues.items():
            self.engine.venue(exchange).seen_ns = venue.seen_ns or NO_TIME
        for market, delta in self.changed.items():
            self._tell(market, delta)
        self.changed.clear()
        events = self.engine.evaluate(wall_ns())
        for event in events:
            self._crossings[event.opportunity.symbol].tell(event)
        return bool(events)

    def _tell(self, market: Market, delta: bool) -> None:
        """Tell the engine how a book is."""
        exchange, symbol = market.exchange, market.symbol
        quote = self.engine.venue(exchange).quotes.get(symbol)
        if not market.shown:
            if quote is not None:
                quote.lose()
            return
        instrument = market.instrument
        if quote is None or self._scales.get(market) is not instrument:
            exponents = instrument.price_exponent, instrument.size_exponent
            quote = self.engine.quote(exchange, symbol, market.book.book, *exponents)
            self._scales[market] = instrument
        times = market.times
        quote.update(market.book.version, times.exchange_ns, times.received_ns, timely=delta)


class Crossings:
    """A symbol's crossings, and who wants to know of them.

    Parameters
    ----------
    arbitrage : of all symbols
    symbol : unified
    """

    def __init__(self, arbitrage: Arbitrage, symbol: str) -> None:
        self._arbitrage = arbitrage
        self._symbol = symbol
        self._clients: Group[Client] = Group()

    def changed(self, market: Market, *, delta: bool) -> None:
        """A book of the symbol has changed by a delta, or begins anew, or isn't live any more."""
        self._arbitrage.changed[market] = delta

    def join(self, client: Client, *, wanted: bool) -> None:
        """Make a client a subscriber, or none."""
        if wanted:
            self._clients.add(client)
            self._arbitrage.watched[self] = None
            return
        self._clients.discard(client)
        if not self._clients:
            self._arbitrage.watched.pop(self, None)

    def greet(self, client: Client) -> None:
        """Tell a new subscriber what is open."""
        for found in self._arbitrage.engine.opportunities(wall_ns(), symbol=self._symbol):
            opened = Event(status=Status.OPENED, opportunity=found)
            client.send(event_item(encode_event(opened)))

    def tell(self, event: Event) -> None:
        """Tell all subscribers."""
        if self._clients:
            self._clients.deliver(event_item(encode_event(event)))

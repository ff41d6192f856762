"""One symbol at all exchanges: the markets that a consolidated book is made of, and its viewers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from alphapulse.clock import NO_TIME, monotonic_ns, wall_ns
from alphapulse.fixed import format_decimal
from alphapulse.model import BookSide, BookState, Instrument, Reason, StateChange
from alphapulse.stream.consolidated import ConsolidatedView, Quoted, Scale
from alphapulse.stream.items import told_state
from alphapulse.stream.messages import Times, quote
from alphapulse.stream.quotes import Best, Quote, Quotes
from alphapulse.stream.requests import ALL, Channel, Look
from alphapulse.stream.viewing import Views
from alphapulse.stream.views import Changes, Shared

if TYPE_CHECKING:
    from alphapulse.stream.arbitrage import Crossings
    from alphapulse.stream.client import Client
    from alphapulse.stream.market import Market

Touched = Iterable[tuple[int, int, int, int]]
"""(side, price, size before, size after) of one market, scaled by its instrument."""


class Pool:
    """The markets of one symbol.

    The consolidated book has the levels of all books that are live. Where a book becomes live or
    isn't any more, or begins anew, so does the consolidated one, with a snapshot.

    Parameters
    ----------
    symbol : unified
    shared : with other books
    crossings : to be told when a book changes
    """

    channels: tuple[Channel, ...] = ("orderbook", "bbo", "arbitrage")
    """What can be subscribed to here."""

    exchange = ALL

    def __init__(self, symbol: str, shared: Shared, crossings: Crossings) -> None:
        self.symbol = symbol
        self.crossings = crossings
        self.version = 0
        """Of the consolidated book, in the epoch `Shared.epoch`."""
        self.times = Times(NO_TIME, NO_TIME, 0)
        self.source = ""
        """The exchange whose change was the latest."""
        self.markets: dict[str, Market] = {}
        """By exchange, in the order of their names."""
        self.views: Views[ConsolidatedView] = Views(self, lambda look: ConsolidatedView(look, self))
        self.quotes = Quotes(ALL, symbol, self._quote, shared)
        self.shared = shared
        self._shown: frozenset[str] = frozenset()
        self._state = BookState.SYNCING
        self._reason = Reason.STARTED

    @property
    def live(self) -> list[Market]:
        """The markets whose books take part."""
        return [market for market in self.markets.values() if market.shown]

    @property
    def scale(self) -> Scale:
        """Decimal places that hold the prices and sizes of all books that take part."""
        instruments = [market.instrument for market in self.live]
        return Scale(
            max((each.price_exponent for each in instruments), default=0),
            max((each.size_exponent for each in instruments), default=0),
        )

    def enter(self, market: Market) -> None:
        """An exchange has the symbol, too."""
        self.markets[market.exchange] = market
        self.markets = dict(sorted(self.markets.items()))

    def before(self, market: Market, changes: Changes) -> Touched:
        """What the levels are, before a book's changes are applied."""
        if not self.views or not market.shown:
            return ()
        book = market.book.book
        return [(side, price, book.size_at(side, price), size) for side, price, size, _ in changes]

    def changed(self, market: Market, touched: Touched) -> None:
        """A live book has changed."""
        if not market.shown:
            return
        self.times = market.times
        self.source = market.exchange
        if self.views:
            self.version += 1
            now_ns = monotonic_ns()
            for view in self.views.values():
                view.advance(market, touched, now_ns)
        self.quotes.changed(self.times, self.source)
        self.crossings.changed(market, delta=True)

    def renewed(self, market: Market, reason: Reason) -> None:
        """A book has become live, isn't any more, or has begun anew while it was."""
        if not market.shown and market.exchange not in self._shown:
            return
        self._note(market)
        live = self.live
        self._shown = frozenset(each.exchange for each in live)
        self.version += 1
        state = BookState.LIVE if live else market.state.state
        if live:
            for view in self.views.values():
                view.reset()
                view.clients.owe(view, reason)
        if state is not self._state:
            self._state, self._reason = state, reason
            self._tell_state()
        self.quotes.changed(self.times, self.source)
        self.crossings.changed(market, delta=False)

    def join(self, client: Client, channel: Channel, look: Look | None) -> None:
        """Make a client a subscriber of a channel, or none of it where `look` is None."""
        if channel == "bbo":
            self.quotes.join(client, look)
            return
        if channel == "arbitrage":
            self.crossings.join(client, wanted=look is not None)
            return
        self.views.unwatch(client)
        if look is not None:
            view = self.views.watch(client, look)
            if self._shown:
                client.owe(view, Reason.SUBSCRIBED)

    def greet(self, client: Client, channels: tuple[Channel, ...]) -> None:
        """Tell a new subscriber that there is no book, if so, and what crossings there are."""
        if "orderbook" in channels and not self._shown:
            self.remind(client)
        if "arbitrage" in channels:
            self.crossings.greet(client)

    def remind(self, client: Client) -> None:
        """Tell a subscriber the state."""
        client.send(told_state(self._state_change()).item("json"))

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self.quotes.join(client, None)
        self.crossings.join(client, wanted=False)
        self.views.unwatch(client)

    def quoted(self, side: int, price: int, scale: Scale) -> Quoted:
        """Who quotes a price, and how much, all scaled alike."""
        found = {}
        for market in self.live:
            instrument = market.instrument
            coarser = 10 ** (scale.price - instrument.price_exponent)
            own, rest = divmod(price, coarser)
            size = 0 if rest else market.book.book.size_at(side, own)
            if size:
                found[market.exchange] = size * 10 ** (scale.size - instrument.size_exponent)
        return found

    def levels(self, side: int, limit: int, scale: Scale) -> dict[int, Quoted]:
        """The best levels of all books together, best first; `limit` 0 for all.

        A price among the best of all has no more than so many better ones in any book, so it is
        among the best of each book that has it.
        """
        merged: dict[int, Quoted] = {}
        for market in self.live:
            book, instrument = market.book.book, market.instrument
            price_factor = 10 ** (scale.price - instrument.price_exponent)
            size_factor = 10 ** (scale.size - instrument.size_exponent)
            for price, size in book.bids(limit) if side == BookSide.BID else book.asks(limit):
                sizes = merged.setdefault(price * price_factor, {})
                sizes[market.exchange] = size * size_factor
        best = sorted(merged, reverse=side == BookSide.BID)
        return {price: merged[price] for price in (best[:limit] if limit else best)}

    def _note(self, market: Market) -> None:
        state = market.state
        self.times = (
            market.times
            if market.shown
            else Times(state.exchange_ns, state.received_ns, state.sequence)
        )
        self.source = market.exchange

    def _tell_state(self) -> None:
        live = self._state is BookState.LIVE
        item = told_state(self._state_change()).item("json")
        for view in self.views.values():
            if not live:
                view.halt()
            view.clients.tell(item, view, live)

    def _state_change(self) -> StateChange:
        return StateChange(
            exchange=ALL,
            sequence=self.times.sequence,
            received_ns=wall_ns(),
            instrument=Instrument.named(ALL, self.symbol),
            state=self._state,
            reason=self._reason,
        )

    def _quote(self) -> Quote:
        live = self.live
        if not live:
            return Quote(None, None, self._state.text)
        scale = self.scale
        bid, ask = (self._best(live, side, scale) for side in BookSide)
        return Quote(bid, ask, self._state.text)

    def _best(self, live: list[Market], side: BookSide, scale: Scale) -> Best | None:
        """The best price of a side, the total there, and who quotes it."""
        found = []
        for market in live:
            level = market.book.book.best()[side - 1]
            if level is not None:
                instrument = market.instrument
                price = level[0] * 10 ** (scale.price - instrument.price_exponent)
                size = level[1] * 10 ** (scale.size - instrument.size_exponent)
                found.append((price, size, market.exchange))
        if not found:
            return None
        choose = max if side is BookSide.BID else min
        best = choose(price for price, _, _ in found)
        names = [exchange for price, _, exchange in found if price == best]
        total = sum(size for price, size, _ in found if price == best)
        who = ",".join(map(quote, names))
        return (
            format_decimal(best, scale.price),
            format_decimal(total, scale.size),
            who if len(names) == 1 else f"[{who}]",
        )

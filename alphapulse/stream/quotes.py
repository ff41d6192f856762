"""Channel ``bbo``: best bid and best offer, told when they change and at no other time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from alphapulse.clock import NO_TIME, monotonic_ns
from alphapulse.model import Reason
from alphapulse.stream.client import Group, Item, Kind
from alphapulse.stream.frames import text_frame
from alphapulse.stream.messages import Times, encode_times, quote
from alphapulse.stream.requests import Look
from alphapulse.stream.views import Shared

if TYPE_CHECKING:
    from alphapulse.stream._fanout import Outbox
    from alphapulse.stream.client import Client

Best = tuple[str, str, str | None]
"""JSON of price and volume, and of who quotes it where several might."""


class Quote(NamedTuple):
    """The best prices of a book, and whether it can be trusted."""

    bid: Best | None
    ask: Best | None
    state: str


class Quotes:
    """The best prices of one book, and who wants to know them.

    Parameters
    ----------
    exchange : or `requests.ALL`
    read : gives the best prices of now
    shared : with other books
    """

    def __init__(
        self, exchange: str, symbol: str, read: Callable[[], Quote], shared: Shared
    ) -> None:
        self.names = f'"exchange":{quote(exchange)},"symbol":{quote(symbol)}'
        self.read = read
        self.shared = shared
        self.times = Times(NO_TIME, NO_TIME, 0)
        """Of the latest change."""
        self.source: str | None = None
        """Whose change it was, where several exchanges' could be."""
        self._views: dict[int, QuoteView] = {}

    def __bool__(self) -> bool:
        return bool(self._views)

    def join(self, client: Client, look: Look | None) -> None:
        """Make a client a subscriber, who is told the present prices, or none where None."""
        for view in list(self._views.values()):
            if client in view.clients:
                view.clients.discard(client)
                client.forget(view)
                if not view.clients:
                    del self._views[view.conflate_ms]
        if look is None:
            return
        joined = self._views.get(look.conflate_ms)
        if joined is None:
            joined = self._views[look.conflate_ms] = QuoteView(self, look.conflate_ms)
        joined.clients.add(client)
        client.owe(joined, Reason.SUBSCRIBED)

    def changed(self, times: Times, source: str | None = None) -> None:
        """The book has changed, perhaps not at its best prices."""
        self.times = times
        self.source = source
        if self._views:
            now_ns = monotonic_ns()
            best = self.read()
            for view in self._views.values():
                view.advance(best, now_ns)


class QuoteView:
    """What subscribers that want an event equally often were told last.

    Parameters
    ----------
    conflate_ms : least time between two events; 0 for every change
    """

    lapse = None
    """Whoever isn't told a change is told the present prices."""

    def __init__(self, quotes: Quotes, conflate_ms: int) -> None:
        self.conflate_ms = conflate_ms
        self.clients: Group[Client] = Group()
        self._quotes = quotes
        self._scheduled = False
        self._tell(quotes.read(), monotonic_ns())

    def serves(self, client: Outbox) -> bool:
        """Whether the client is subscribed to this view."""
        return client in self.clients

    def snapshot(self, reason: Reason) -> list[Item]:
        """What was told last."""
        return [Item(self._frame, Kind.SNAPSHOT, self, 0)]

    def advance(self, best: Quote, now_ns: int) -> None:
        """Follow the book."""
        if not self.conflate_ms or best.state != self._told.state:
            if best != self._told:
                self._tell(best, now_ns)
        elif not self._scheduled:
            self._scheduled = True
            self._quotes.shared.timetable.add(self._told_ns + self.conflate_ms * 1_000_000, self)

    def due(self, now_ns: int) -> None:
        """Tell what has changed since the event before."""
        self._scheduled = False
        best = self._quotes.read()
        if self.clients and best != self._told:
            self._tell(best, now_ns)

    def _tell(self, best: Quote, now_ns: int) -> None:
        self._told = best
        self._told_ns = now_ns
        self._frame = text_frame(_encode(self._quotes, best))
        self.clients.deliver(Item(self._frame, Kind.DELTA, self, now_ns))


def _encode(quotes: Quotes, best: Quote) -> str:
    source = f',"source":{quote(quotes.source)}' if quotes.source else ""
    return (
        f'{{"type":"bbo","data":{{{quotes.names},"bid":{_level(best.bid)},"ask":{_level(best.ask)}'
        f',"state":"{best.state}"{encode_times(quotes.times)}{source}}}}}'
    )


def _level(best: Best | None) -> str:
    if best is None:
        return "null"
    price, volume, who = best
    return f"[{price},{volume}]" if who is None else f"[{price},{volume},{who}]"

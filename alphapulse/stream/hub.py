"""Everything of the stream but the sockets: rings' records in, each client's frames out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product

from alphapulse import metrics
from alphapulse.clock import monotonic_ns
from alphapulse.delta import LevelStage
from alphapulse.errors import RequestError
from alphapulse.model import BookState, Reason
from alphapulse.model import Channel as GapChannel
from alphapulse.stream import answers
from alphapulse.stream.client import Client, Limits, Ready, Sink
from alphapulse.stream.market import Market, event_item
from alphapulse.stream.requests import (
    CHANNELS,
    Channel,
    Names,
    Ping,
    Request,
    Snapshot,
    Subscribe,
    Unsubscribe,
)
from alphapulse.stream.venue import Venue

_CONCERNED: dict[GapChannel, tuple[Channel, ...]] = {
    GapChannel.TRADES: ("trades",),
    GapChannel.ORDERBOOK: ("orderbook", "state"),
    GapChannel.RING: CHANNELS,
}
"""Subscribers of these channels are told of a gap in that one."""


class Hub:
    """The markets of all exchanges, and the clients.

    Whoever calls something here that may produce frames calls `flush` afterwards, once for as much
    as is due: what a client gets by then goes out in one write.

    Parameters
    ----------
    exchanges : names of the venues that may have a ring; others are known once theirs is there
    limits : of each client
    later : how to call `flush` again soon, after others of the event loop; at once where None
    """

    def __init__(
        self,
        exchanges: Iterable[str],
        limits: Limits,
        later: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.clients: dict[Client, None] = {}
        self.venues: dict[str, Venue] = {}
        self._limits = limits
        self._stage = LevelStage()
        self._ready: Ready[Client] = Ready()
        self._later = later
        self._scheduled = False
        self._conflations = metrics.STREAM_CONFLATIONS.bind()
        self._messages = metrics.Tally(metrics.STREAM_MESSAGES.bind())
        for exchange in exchanges:
            self.venue(exchange)

    def venue(self, exchange: str) -> Venue:
        """An exchange, known from now on."""
        venue = self.venues.get(exchange)
        if venue is None:

            def announce(text: str, channel: GapChannel) -> None:
                self._announce(exchange, text, channel)

            venue = Venue(exchange, self._stage, self._joined, announce)
            self.venues[exchange] = venue
        return venue

    def connect(self, sink: Sink, *, compressed: bool = False) -> Client:
        """A client has come, who may have agreed to compressed messages."""
        client = Client(sink, self._limits, self._ready, monotonic_ns(), compressed=compressed)
        self.clients[client] = None
        return client

    def disconnect(self, client: Client) -> None:
        """A client is gone. May be called again."""
        client.drop()
        self.clients.pop(client, None)
        self._conflations.inc(client.take_conflations())
        for market in client.markets:
            market.leave(client)
        client.markets.clear()

    def request(self, client: Client, request: Request) -> None:
        """Serve a client.

        Raises
        ------
        RequestError
            it can't be served; `refuse` tells the client
        """
        if isinstance(request, Subscribe):
            self._subscribe(client, request)
        elif isinstance(request, Unsubscribe):
            self._unsubscribe(client, request)
        elif isinstance(request, Snapshot):
            self._send_again(client, request)
        elif isinstance(request, Ping):
            client.send(event_item(answers.PONG))

    def refuse(self, client: Client, error: RequestError) -> None:
        """Tell a client why its request isn't served."""
        client.send(event_item(answers.refused(error)))

    def flush(self) -> None:
        """Send what is due."""
        self._flush()
        while self._ready and self._later is None:
            self._flush()
        if self._ready and self._later is not None and not self._scheduled:
            self._scheduled = True
            self._later(self._continue)

    def check(self) -> None:
        """Conflate and close slow clients, free memory; to be called several times a second."""
        now_ns = monotonic_ns()
        self._messages.count = self._ready.messages
        self._messages.flush()
        for client in list(self.clients):
            client.check(now_ns)
            conflations = client.take_conflations()
            if conflations:
                self._conflations.inc(conflations)
            if client.closed:
                self.disconnect(client)
        for venue in self.venues.values():
            for market in venue.markets.values():
                for view in market.views.values():
                    view.drop_snapshots()

    def describe(self) -> Mapping[str, object]:
        """What the health page says."""
        return {
            "clients": len(self.clients),
            "rings": {
                exchange: {
                    "connected": venue.connected,
                    "epoch": venue.epoch,
                    "sequence": venue.sequence,
                    "symbols": len(venue.markets),
                }
                for exchange, venue in self.venues.items()
            },
        }

    def _continue(self) -> None:
        self._scheduled = False
        self.flush()

    def _flush(self) -> None:
        for client in self._ready.flush(monotonic_ns()):
            self.disconnect(client)

    def _subscribe(self, client: Client, request: Subscribe) -> None:
        venues = self._selected(request.exchanges)
        waiting = [venue.exchange for venue in venues if not venue.markets]
        if not waiting:
            self._check_symbols(venues, request.symbols)
        client.subscriptions.add(request)
        epochs = {venue.exchange: venue.epoch for venue in venues if venue.epoch}
        client.send(event_item(answers.subscribed(request, epochs, waiting)))
        for market in self._matching(venues, request.symbols):
            for channel in request.channels:
                self._join(client, market, channel)
            live = market.state.state is BookState.LIVE
            if "state" in request.channels or ("orderbook" in request.channels and not live):
                client.send_state(market.state_item(), client.views.get(market), live)

    def _unsubscribe(self, client: Client, request: Unsubscribe) -> None:
        venues = self._selected(request.exchanges)
        client.subscriptions.remove(request)
        for market in self._matching(venues, request.symbols):
            for channel in request.channels:
                self._join(client, market, channel)
        client.send(event_item(answers.unsubscribed(request)))

    def _send_again(self, client: Client, request: Snapshot) -> None:
        venues = self._selected(request.exchanges)
        found = False
        for market in self._matching(venues, request.symbols):
            view = client.views.get(market)
            if view is None:
                continue
            found = True
            if market.live:
                client.owe(view, Reason.REQUESTED)
            else:
                client.send(market.state_item())
        if not found:
            raise RequestError(
                "not_subscribed", "no book of your subscriptions fits; subscribe to orderbook first"
            )

    def _join(self, client: Client, market: Market, channel: Channel) -> None:
        """Make one membership of a client what its subscriptions say."""
        exchange, symbol = market.instrument.exchange, market.instrument.symbol
        depth = client.subscriptions.find(channel, exchange, symbol)
        if depth is not None:
            client.markets[market] = None
        if channel == "orderbook":
            view = client.views.pop(market, None)
            if view is not None:
                market.unwatch(client, view)
            if depth is not None:
                client.views[market] = market.watch(client, depth)
            return
        members = market.traders if channel == "trades" else market.watchers
        if depth is None:
            members.discard(client)
        else:
            members.add(client)

    def _joined(self, market: Market) -> None:
        """A market is new: whoever subscribed to all, or to it in advance, gets it."""
        for client in self.clients:
            for channel in CHANNELS:
                self._join(client, market, channel)

    def _announce(self, exchange: str, text: str, channel: GapChannel) -> None:
        item = event_item(text)
        for client in self.clients:
            if client.subscriptions.concern(exchange, _CONCERNED[channel]):
                client.send(item)

    def _selected(self, exchanges: Names) -> list[Venue]:
        if exchanges is None:
            return list(self.venues.values())
        unknown = sorted(exchanges - self.venues.keys())
        if unknown:
            raise RequestError(
                "unknown_exchange",
                f"no exchange {_listed(unknown)}; there are {', '.join(sorted(self.venues))}",
            )
        return [self.venues[exchange] for exchange in sorted(exchanges)]

    def _check_symbols(self, venues: list[Venue], symbols: Names) -> None:
        known = {symbol for venue in venues for symbol in venue.markets}
        unknown = sorted((symbols or known) - known)
        if unknown:
            where = ", ".join(venue.exchange for venue in venues)
            raise RequestError("unknown_symbol", f"no symbol {_listed(unknown)} at {where}")

    def _matching(self, venues: list[Venue], symbols: Names) -> Iterator[Market]:
        if symbols is None:
            for venue in venues:
                yield from venue.markets.values()
            return
        for venue, symbol in product(venues, sorted(symbols)):
            market = venue.markets.get(symbol)
            if market is not None:
                yield market


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)

"""Who subscribes to what: requests are served here, from all exchanges' markets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Protocol

from alphapulse.arbitrage import Terms
from alphapulse.clock import monotonic_ns, wall_ns
from alphapulse.delta import LevelStage
from alphapulse.errors import RequestError
from alphapulse.model import Channel as GapChannel
from alphapulse.model import Instrument, Reason
from alphapulse.shm import Position, RingReader
from alphapulse.stream import answers
from alphapulse.stream.arbitrage import Arbitrage
from alphapulse.stream.client import Client
from alphapulse.stream.items import Told, event_item, told_gap
from alphapulse.stream.market import Market
from alphapulse.stream.pool import Pool
from alphapulse.stream.requests import (
    ALL,
    CHANNELS,
    Channel,
    Look,
    Names,
    Snapshot,
    Subscribe,
    Unsubscribe,
)
from alphapulse.stream.resume import Past, Progress, Replay
from alphapulse.stream.subscriptions import exchanges_of
from alphapulse.stream.timetable import Timetable
from alphapulse.stream.venue import Venue
from alphapulse.stream.views import Shared

_CONCERNED: dict[GapChannel, tuple[Channel, ...]] = {
    GapChannel.TRADES: ("trades",),
    GapChannel.ORDERBOOK: ("orderbook", "state"),
    GapChannel.RING: CHANNELS,
}
"""Subscribers of these channels are told of a gap in that one."""

RESUME_NS = 10_000_000
"""How long records of the past are given at a time, before all else has its turn."""


class Source(Protocol):
    """What is subscribed to: a symbol of one exchange, or of all together."""

    exchange: str
    symbol: str
    channels: tuple[Channel, ...]

    @property
    def live(self) -> object:
        """Truthy if there is a book to be sent."""

    def join(self, client: Client, channel: Channel, look: Look | None) -> None:
        """Make a client a subscriber of a channel, or none of it where `look` is None."""

    def greet(self, client: Client, channels: tuple[Channel, ...]) -> None:
        """Tell a new subscriber of these channels how things are, besides the books."""

    def remind(self, client: Client) -> None:
        """Tell a subscriber the state."""

    def leave(self, client: Client) -> None:
        """Forget a client."""


class Desk:
    """All exchanges' markets, and which client wants what of them.

    Parameters
    ----------
    clients : all of them
    open_ring : opens a reader of an exchange's ring at a position, for clients that resume
    wake : calls back after some seconds; None where `Timetable.run` is called often enough
    terms : fees and limits of the channel ``arbitrage``
    """

    def __init__(
        self,
        clients: Mapping[Client, None],
        open_ring: Callable[[str, Position], RingReader] | None,
        wake: Callable[[float, Callable[[], None]], object] | None,
        terms: Terms,
    ) -> None:
        self.venues: dict[str, Venue] = {}
        self.arbitrage = Arbitrage(terms, self.venues)
        self.pools: dict[str, Pool] = {}
        """By symbol."""
        self.timetable = Timetable(wake)
        self._clients = clients
        self._shared = Shared(LevelStage(), self.timetable, wall_ns() // 1_000_000)
        self._past = None if open_ring is None else Past(open_ring)
        self._replays: dict[Client, list[Replay]] = {}

    def venue(self, exchange: str) -> Venue:
        """An exchange, known from now on."""
        venue = self.venues.get(exchange)
        if venue is None:
            venue = self.venues[exchange] = Venue(exchange, self)
        return venue

    def create(self, venue: Venue, instrument: Instrument) -> Market:
        """A market that is new: whoever subscribed to all, or to it in advance, gets it."""
        symbol = instrument.symbol
        pool = self.pools.get(symbol)
        sources: list[Source] = []
        if pool is None:
            pool = Pool(symbol, self._shared, self.arbitrage.crossings(symbol))
            self.pools[symbol] = pool
            sources.append(pool)
        market = Market(instrument, venue.epoch, self._shared, pool)
        venue.markets[symbol] = market
        sources.append(market)
        for client, source in product(self._clients, sources):
            for channel in source.channels:
                self._join(client, source, channel)
        return market

    def announce(self, venue: Venue, told: Told, channel: GapChannel) -> None:
        """Tell a loss that isn't one market's to those whom it concerns."""
        for client in self._clients:
            wanted = client.subscriptions.concern(venue.exchange, _CONCERNED[channel])
            if wanted is not None and not self._replayed(client, venue):
                client.send(told.item(wanted))

    def turn_over(self, venue: Venue) -> None:
        """Tell that an exchange's sequences and versions count from a new beginning."""
        item = event_item(answers.epoch(venue.exchange, venue.epoch))
        for client in self._clients:
            if not client.subscriptions.tells_epochs:
                continue
            wanted = client.subscriptions.concern(venue.exchange, CHANNELS)
            if wanted is not None and not self._replayed(client, venue):
                client.send(item)

    def leave(self, client: Client) -> None:
        """A client is gone."""
        for replay in self._replays.pop(client, ()):
            replay.close()
        for source in client.markets:
            source.leave(client)
        client.markets.clear()

    def resume(self) -> bool:
        """Give those who resume some of what they missed, each in its turn, for a while.

        Returns
        -------
        bool
            whether there is more to do at once
        """
        if not self._replays:
            return False
        until_ns = monotonic_ns() + RESUME_NS
        more = False
        for client in list(self._replays):
            for replay in self._replays[client][:]:
                progress = replay.step()
                if progress is Progress.MORE:
                    more = True
                elif progress is not Progress.WAITING:
                    self._finish(replay, lost=progress is Progress.LOST)
            if client in self._replays:
                self._replays[client] = self._replays.pop(client)  # behind the others
            if monotonic_ns() > until_ns:
                return bool(self._replays)
        return more

    def tidy(self) -> None:
        """Free what is kept for clients who ask at the same time."""
        for venue in self.venues.values():
            for market in venue.markets.values():
                market.views.drop_snapshots()
        for pool in self.pools.values():
            pool.views.drop_snapshots()
        if self._past is not None and not self._replays:
            self._past.forget()

    def subscribe(self, client: Client, request: Subscribe) -> None:
        """Serve a subscription. Raises `RequestError`."""
        venues = self._selected(request.exchanges)
        self._check_resume(request)
        waiting = [venue.exchange for venue in venues if not venue.markets]
        if not waiting:
            self._check_symbols(venues, request.symbols)
        client.subscriptions.add(request)
        self._withdraw(client, request)
        begun, lost = self._resume(client, request)
        client.send(event_item(self._subscribed(request, venues, waiting, begun, lost)))
        for replay in lost:
            client.send(told_gap(replay.gap()).item(request.look.format))
        replayed = {(replay.venue.exchange, *pair) for replay in begun for pair in replay.pairs}
        for source, channels in self._matching(request, venues):
            joined = tuple(
                channel
                for channel in channels
                if (source.exchange, channel, source.symbol) not in replayed
            )
            for channel in joined:
                self._join(client, source, channel)
            source.greet(client, joined)

    def unsubscribe(self, client: Client, request: Unsubscribe) -> None:
        """End a subscription. Raises `RequestError`."""
        venues = self._selected(request.exchanges)
        client.subscriptions.remove(request)
        self._withdraw(client, request)
        for source, channels in self._matching(request, venues):
            for channel in channels:
                self._join(client, source, channel)
        client.send(event_item(answers.unsubscribed(request)))

    def send_again(self, client: Client, request: Snapshot) -> None:
        """Send books once more. Raises `RequestError`."""
        venues = self._selected(request.exchanges)
        wanted = Unsubscribe(("orderbook",), request.exchanges, request.symbols)
        found = False
        for source, _ in self._matching(wanted, venues):
            for replay in self._replays.get(client, ()):
                if replay.venue.exchange == source.exchange:
                    found |= ("orderbook", source.symbol) in replay.pairs
                    replay.books.discard(source.symbol)
            view = client.views.get(source)
            if view is None:
                continue
            found = True
            if source.live:
                client.owe(view, Reason.REQUESTED)
            else:
                source.remind(client)
        if not found:
            raise RequestError(
                "not_subscribed", "no book of your subscriptions fits; subscribe to orderbook first"
            )

    def _subscribed(
        self,
        request: Subscribe,
        venues: list[Venue],
        waiting: list[str],
        begun: list[Replay],
        lost: list[Replay],
    ) -> str:
        epochs = {venue.exchange: venue.epoch for venue in venues if venue.epoch}
        if "orderbook" in request.channels and ALL in (request.exchanges or ()):
            epochs[ALL] = self._shared.epoch
        return answers.subscribed(
            request,
            epochs,
            {venue.exchange: venue.sequence for venue in venues if venue.sequence},
            waiting,
            {
                **{replay.venue.exchange: "records" for replay in begun},
                **{replay.venue.exchange: "snapshot" for replay in lost},
            },
        )

    def _resume(self, client: Client, request: Subscribe) -> tuple[list[Replay], list[Replay]]:
        """Begin to read what was missed; which of it is being read, and which can't be."""
        begun, lost = [], []
        for exchange, point in request.resume.items():
            venue = self.venues[exchange]
            pairs = {
                (channel, source.symbol)
                for source, channels in self._matching(request, [venue])
                for channel in channels
                if channel in ("trades", "orderbook", "state") and source.exchange == exchange
            }
            assert self._past is not None
            replay = Replay(self._past, client, venue, point, pairs, request.look)
            if replay.begin():
                begun.append(replay)
                self._replays.setdefault(client, []).append(replay)
            else:
                replay.close()
                lost.append(replay)
        return begun, lost

    def _check_resume(self, request: Subscribe) -> None:
        self._selected(frozenset(request.resume))
        if request.resume and self._past is None:
            raise RequestError("unsupported", "this server resumes nothing")

    def _withdraw(self, client: Client, request: Subscribe | Unsubscribe) -> None:
        """What is subscribed to anew, or not any more, needs no record of the past."""
        for replay in self._replays.get(client, ()):
            for source, channels in self._matching(request, [replay.venue]):
                if source.exchange != replay.venue.exchange:
                    continue
                replay.pairs.difference_update((channel, source.symbol) for channel in channels)
                if "orderbook" in channels:
                    replay.books.discard(source.symbol)

    def _finish(self, replay: Replay, *, lost: bool) -> None:
        """Make a client a member of what it was given the past of."""
        client, venue = replay.client, replay.venue
        replay.close()
        replays = self._replays[client]
        replays.remove(replay)
        if not replays:
            del self._replays[client]
        if lost:
            client.send(told_gap(replay.gap()).item(replay.format))
        replay.tell_epoch(venue.epoch)
        seen = replay.point.sequence if replay.point.epoch == venue.epoch else 0
        by_symbol: dict[str, list[Channel]] = {}
        for channel, symbol in replay.pairs:
            by_symbol.setdefault(symbol, []).append(channel)
        for symbol, channels in by_symbol.items():
            market = venue.markets[symbol]
            client.markets[market] = None
            # States that the stream made meanwhile, or an earlier one before it ended, aren't
            # among the records.
            earlier = seen < venue.first_sequence
            made = not earlier and seen <= market.made_sequence
            for channel in channels:
                look = client.subscriptions.find(channel, venue.exchange, symbol)
                follows = channel == "orderbook" and symbol in replay.books
                follows = follows and not lost and not made
                market.join(client, channel, look, follows=follows, known=replay.announced)
            if lost or earlier or made:
                market.greet(client, ("state",))
            elif symbol not in replay.books:
                market.greet(client, tuple(each for each in channels if each == "orderbook"))

    def _join(self, client: Client, source: Source, channel: Channel) -> None:
        """Make one membership of a client what its subscriptions say."""
        look = client.subscriptions.find(channel, source.exchange, source.symbol)
        if look is not None:
            client.markets[source] = None
        source.join(client, channel, look)

    def _replayed(self, client: Client, venue: Venue) -> bool:
        """Whether a client is still being told an exchange's past."""
        return any(replay.venue is venue for replay in self._replays.get(client, ()))

    def _selected(self, exchanges: Names) -> list[Venue]:
        if exchanges is None:
            return list(self.venues.values())
        unknown = sorted(exchanges - self.venues.keys() - {ALL})
        if unknown:
            raise RequestError(
                "unknown_exchange",
                f"no exchange {_listed(unknown)}; there are {', '.join(sorted(self.venues))}, "
                f"and {ALL} for all of them together",
            )
        if ALL in exchanges:
            return list(self.venues.values())
        return [self.venues[exchange] for exchange in sorted(exchanges)]

    def _check_symbols(self, venues: list[Venue], symbols: Names) -> None:
        known = {symbol for venue in venues for symbol in venue.markets}
        unknown = sorted((symbols or known) - known)
        if unknown:
            where = ", ".join(venue.exchange for venue in venues)
            raise RequestError("unknown_symbol", f"no symbol {_listed(unknown)} at {where}")

    def _matching(
        self, request: Subscribe | Unsubscribe, venues: Iterable[Venue]
    ) -> Iterator[tuple[Source, tuple[Channel, ...]]]:
        """What a request is about, and which of its channels it has."""
        symbols = request.symbols
        everywhere: list[Mapping[str, Source]] = [venue.markets for venue in venues]
        everywhere.append(self.pools)
        for sources in everywhere:
            for symbol in sources if symbols is None else sorted(symbols):
                source = sources.get(symbol)
                if source is None:
                    continue
                channels = tuple(
                    channel
                    for channel in request.channels
                    if channel in source.channels and _names(request, channel, source.exchange)
                )
                if channels:
                    yield source, channels


def _names(request: Subscribe | Unsubscribe, channel: Channel, exchange: str) -> bool:
    """Whether a request is about a channel of an exchange, or of all together."""
    exchanges = exchanges_of(channel, request.exchanges)
    if exchanges is None:
        # The book of all together is to be asked for by name.
        return channel != "orderbook" or exchange != ALL or isinstance(request, Unsubscribe)
    return exchange in exchanges


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)

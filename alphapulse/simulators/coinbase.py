"""Coinbase Exchange's feed.

Knowledge of the protocol: Coinbase's API documentation (docs.cdp.coinbase.com/exchange).
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from alphapulse.clock import wall_ns
from alphapulse.fixed import format_decimal
from alphapulse.simulators.batch import Batches
from alphapulse.simulators.book import BID, Fill, VenueBook
from alphapulse.simulators.coinbase_rest import CoinbaseRest
from alphapulse.simulators.connection import Connection
from alphapulse.simulators.limits import TokenBucket
from alphapulse.simulators.market import MarketEvent
from alphapulse.simulators.source import EVERYONE, Topic
from alphapulse.simulators.text import fixed_text, iso_text

BATCH_MILLISECONDS = 50
MAX_SUBSCRIPTIONS = 10
"""Of one product and channel, by one address."""

_CHANNELS = frozenset(("level2", "level2_batch", "matches", "heartbeat", "ticker"))
_AUTHENTICATED = frozenset(("level2", "level3", "full"))
_BOOK_CHANNELS = ("level2_batch", "level2")


class _Channel(msgspec.Struct):
    name: str
    product_ids: list[str] | None = None


class _Request(msgspec.Struct):
    type: str
    channels: list[str | _Channel] = []
    product_ids: list[str] = []
    signature: str = ""
    key: str = ""
    passphrase: str = ""
    timestamp: str = ""


class _RecordedFrame(msgspec.Struct):
    type: str
    product_id: str | None = None
    trade_id: int | None = None
    sequence: int | None = None


class CoinbaseSimulator(CoinbaseRest):
    """Coinbase Exchange: ``level2_batch``, ``level2``, ``matches``, ``heartbeat``, ``ticker``."""

    awaited: ClassVar[dict[str, tuple[str, ...]]] = {
        "level2_batch": _BOOK_CHANNELS,
        "matches": ("matches",),
    }
    trade_channels: ClassVar[frozenset[str]] = frozenset(("matches",))

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.connections_budget = TokenBucket(8.0, 20.0)
        paced = self.market is not None and self.market.market.paced
        self._batches = Batches(BATCH_MILLISECONDS if paced else 0)
        self._request = msgspec.json.Decoder(_Request)
        self._recorded = msgspec.json.Decoder(_RecordedFrame)
        self._last_recorded: dict[str, tuple[int, int]] = {}

    # Requests

    def message(self, connection: Connection, message: bytes) -> None:
        """Implement `VenueSimulator`."""
        if self.over_rate(connection):
            return
        try:
            request = self._request.decode(message)
        except (msgspec.MsgspecError, UnicodeError):
            self.send_error(connection, "Malformed JSON")
            return
        wanted = [
            (channel, product)
            for entry in request.channels
            for channel, products in [_channel(entry, request.product_ids)]
            for product in products or [""]
        ]
        subscribing = request.type == "subscribe"
        if not subscribing and request.type != "unsubscribe":
            self.send_error(connection, "Malformed request", f"{request.type} is no valid type")
            return
        reason = self._problem(connection, request, wanted) if subscribing else ""
        if reason:
            self.send_error(connection, "Failed to subscribe", reason)
            return
        news = []
        for topic in dict.fromkeys(wanted):
            if not subscribing:
                self._forget(connection, topic)
            elif topic not in connection.topics:
                self.subscribe(connection, topic)
                news.append(topic)
        self._acknowledge(connection)
        for channel, product in news:
            if self.market is not None and product not in self.faults.silent_symbols:
                self._begin(connection, channel, self.books[product])

    def _problem(self, connection: Connection, request: _Request, wanted: list[Topic]) -> str:
        """Why the whole message is refused; empty if it isn't."""
        signed = all((request.signature, request.key, request.passphrase, request.timestamp))
        if not wanted:
            return "No channels provided"
        for channel, product in wanted:
            if channel in _AUTHENTICATED and not signed:
                return f"{channel} requires authentication"
            if channel not in _CHANNELS:
                return f"{channel} is not a valid channel"
            if product not in self.symbols.values():
                return f"{product} is not a valid product"
            topic = (channel, product)
            if topic not in connection.topics and self.subscribers(*topic) >= MAX_SUBSCRIPTIONS:
                return f"too many subscriptions to {channel} of {product}"
        if self.faults.armed:
            for _, product in wanted:
                if self.faults.take("refuse", product):
                    return f"{product} can't be subscribed to at the moment"
        return ""

    def _forget(self, connection: Connection, topic: Topic) -> None:
        channel, product = topic
        for held in list(connection.topics):
            if held[0] == channel and product in {"", held[1]}:
                self.unsubscribe(connection, held)

    def _acknowledge(self, connection: Connection) -> None:
        """All that the connection is subscribed to now."""
        channels: dict[str, list[str]] = {}
        for channel, product in sorted(connection.topics):
            channels.setdefault(channel, []).append(product)
        connection.send(
            msgspec.json.encode(
                {
                    "type": "subscriptions",
                    "channels": [{"name": n, "product_ids": p} for n, p in channels.items()],
                }
            )
        )

    def _begin(self, connection: Connection, channel: str, book: VenueBook) -> None:
        """What a new subscriber gets at once."""
        if channel in _BOOK_CHANNELS:
            connection.send(_snapshot(book))
        elif channel == "matches" and book.fills:
            connection.send(_match("last_match", book, book.fills[-1], book.sequence))

    # What subscribers get

    def event(self, event: MarketEvent) -> None:
        """Implement `VenueSimulator`."""
        book = event.book
        product = book.venue_symbol
        if event.fills:
            self._send_fills(event, book, product)
        if ("level2", product) in self.topics:
            self._send_update("level2", book, event.changes, event.t_ns)
        if ("level2_batch", product) in self.topics:
            if self._batches.milliseconds:
                self._batches.add(book, event.changes, event.t_ns)
            else:
                self._send_update("level2_batch", book, event.changes, event.t_ns)

    def batch_due_ns(self) -> int | None:
        """Implement `VenueSimulator`."""
        return self._batches.due_ns

    def flush_batches(self, until_ns: int | None = None) -> None:
        """Implement `VenueSimulator`."""
        for batch in self._batches.take(until_ns):
            levels = [(side, price, size) for (side, price), size in batch.levels.items()]
            self._send_update("level2_batch", batch.book, levels, batch.t_ns)

    def _send_update(self, channel: str, book: VenueBook, changes: Any, t_ns: int) -> None:
        product = book.venue_symbol
        if self.faults.armed and self.faults.take("drop_update", product):
            return
        price, size = book.spec.price_exponent, book.spec.size_exponent
        # A removed level's size is written as "0" or with all its digits, as it comes.
        rows = ",".join(
            f'["{"sell" if change[0] else "buy"}","{fixed_text(change[1], price)}","'
            f'{fixed_text(change[2], size) if change[2] or change[1] & 1 else "0"}"]'
            for change in changes
        )
        self.publish(
            (channel, product),
            f'{{"type":"l2update","product_id":"{product}","changes":[{rows}],'
            f'"time":"{iso_text(t_ns)}"}}'.encode(),
        )

    def _send_fills(self, event: MarketEvent, book: VenueBook, product: str) -> None:
        wanted = ("matches", product) in self.topics
        sequence = book.sequence - len(event.changes) - len(event.fills)
        for fill in event.fills:
            sequence += 1
            if wanted:
                if self.faults.armed and self.faults.take("skip_trade", product):
                    continue
                self.publish(("matches", product), _match("match", book, fill, sequence))
            if ("ticker", product) in self.topics:
                self.publish(("ticker", product), _ticker(book, fill, sequence))

    def heartbeat(self) -> None:
        """Implement `VenueSimulator`."""
        now = iso_text(wall_ns())
        for topic in list(self.topics):
            channel, product = topic
            if channel != "heartbeat":
                continue
            if self.market is not None:
                book = self.books[product]
                numbers = book.sequence, book.next_trade_id - 1
            elif product in self._last_recorded:
                numbers = self._last_recorded[product]
            else:
                continue
            self.publish(
                topic,
                f'{{"type":"heartbeat","sequence":{numbers[0]},"last_trade_id":{numbers[1]},'
                f'"product_id":"{product}","time":"{now}"}}'.encode(),
            )

    # A capture

    def route(self, raw: bytes) -> tuple[Topic, ...] | None:
        """Implement `VenueSimulator`."""
        try:
            frame = self._recorded.decode(raw)
        except (msgspec.MsgspecError, UnicodeError):
            return EVERYONE
        if frame.type in {"subscriptions", "error"}:
            return None
        product = frame.product_id
        if product is None:
            return EVERYONE
        if frame.type in {"snapshot", "l2update"}:
            return ("level2_batch", product), ("level2", product)
        if frame.type in {"match", "last_match"}:
            return (("matches", product),)
        return ((frame.type, product),)

    def played(self, raw: bytes) -> None:
        """Implement `VenueSimulator`: heartbeats tell the last match that was played."""
        if b"match" in raw[:32]:
            frame = self._recorded.decode(raw)
            if frame.product_id and frame.trade_id is not None and frame.sequence is not None:
                self._last_recorded[frame.product_id] = frame.sequence, frame.trade_id


def _channel(entry: str | _Channel, product_ids: list[str]) -> tuple[str, list[str]]:
    if isinstance(entry, str):
        return entry, product_ids
    return entry.name, product_ids if entry.product_ids is None else entry.product_ids


def _snapshot(book: VenueBook) -> bytes:
    price, size = book.spec.price_exponent, book.spec.size_exponent
    asks, bids = (
        ",".join(f'["{fixed_text(p, price)}","{fixed_text(s, size)}"]' for p, s in side)
        for side in (book.asks, book.bids)
    )
    return (
        f'{{"type":"snapshot","product_id":"{book.venue_symbol}","asks":[{asks}],"bids":[{bids}]}}'
    ).encode()


def _match(kind: str, book: VenueBook, fill: Fill, sequence: int) -> bytes:
    spec = book.spec
    # The side is the maker's.
    return (
        f'{{"type":"{kind}","trade_id":{fill.trade_id},'
        f'"maker_order_id":"{_order_id(1, fill.trade_id)}",'
        f'"taker_order_id":"{_order_id(2, fill.order)}",'
        f'"side":"{"sell" if fill.buy else "buy"}",'
        f'"size":"{format_decimal(fill.size, spec.size_exponent)}",'
        f'"price":"{format_decimal(fill.price, spec.price_exponent)}",'
        f'"product_id":"{book.venue_symbol}","sequence":{sequence},'
        f'"time":"{iso_text(fill.t_ns)}"}}'
    ).encode()


def _ticker(book: VenueBook, fill: Fill, sequence: int) -> bytes:
    price, size = book.spec.price_exponent, book.spec.size_exponent
    return (
        f'{{"type":"ticker","sequence":{sequence},"product_id":"{book.venue_symbol}",'
        f'"price":"{format_decimal(fill.price, price)}",'
        f'"best_bid":"{fixed_text(book.side(BID).best(), price)}",'
        f'"best_ask":"{fixed_text(book.asks.best(), price)}",'
        f'"side":"{"buy" if fill.buy else "sell"}","time":"{iso_text(fill.t_ns)}",'
        f'"trade_id":{fill.trade_id},"last_size":"{format_decimal(fill.size, size)}"}}'
    ).encode()


def _order_id(kind: int, number: int) -> str:
    return f"{kind:08x}-0000-4000-8000-{number:012x}"

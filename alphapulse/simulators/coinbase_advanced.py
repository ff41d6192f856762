"""Coinbase Advanced Trade's feed.

Knowledge of the protocol: Coinbase's API documentation (docs.cdp.coinbase.com/advanced-trade).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import msgspec

from alphapulse.clock import NS_PER_SECOND, monotonic_ns, wall_ns
from alphapulse.simulators.batch import NS_PER_MILLISECOND, Batches
from alphapulse.simulators.book import ASK, BID, Fill, VenueBook
from alphapulse.simulators.coinbase_rest import CoinbaseRest
from alphapulse.simulators.connection import Connection
from alphapulse.simulators.limits import TokenBucket
from alphapulse.simulators.market import MarketEvent
from alphapulse.simulators.source import EVERYONE, Topic
from alphapulse.simulators.text import fixed_text, iso_text

BOOK_BATCH_MILLISECONDS = 50
TRADE_BATCH_MILLISECONDS = 250
TRADE_SNAPSHOT = 50
MAX_BOOKS = 16
"""``level2`` products of one connection."""

_CHANNELS = frozenset(("heartbeats", "level2", "market_trades"))
_NO_TIME = "1970-01-01T00:00:00Z"


class _Request(msgspec.Struct):
    type: str
    channel: str = ""
    product_ids: list[str] = []


class _RecordedItem(msgspec.Struct):
    product_id: str | None = None


class _RecordedEvent(msgspec.Struct):
    product_id: str | None = None
    trades: list[_RecordedItem] = []


class _RecordedFrame(msgspec.Struct):
    channel: str | None = None
    type: str | None = None
    events: list[_RecordedEvent] = []


class CoinbaseAdvancedSimulator(CoinbaseRest):
    """Coinbase Advanced Trade: ``level2``, ``market_trades``, ``heartbeats``.

    Parameters
    ----------
    trade_side : whose side ``market_trades`` tells; sources disagree about the venue
    usdc_twins : list a -USDC product beside each -USD one, which answers as the -USD one
    text_counter : write ``heartbeat_counter`` as text
    """

    awaited: ClassVar[dict[str, tuple[str, ...]]] = {
        "level2": ("level2",),
        "market_trades": ("market_trades",),
    }
    trade_channels: ClassVar[frozenset[str]] = frozenset(("market_trades",))

    idle_close_seconds = 75.0

    def __init__(
        self,
        *arguments: Any,
        trade_side: Literal["maker", "taker"] = "maker",
        usdc_twins: bool = False,
        text_counter: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self.connections_budget = TokenBucket(8.0, 8.0)
        self.message_bucket = TokenBucket(8.0, 8.0)
        self._taker_side = trade_side == "taker"
        self._usdc_twins = usdc_twins
        self._text_counter = text_counter
        paced = self.market is not None and self.market.market.paced
        self._batches = Batches(BOOK_BATCH_MILLISECONDS if paced else 0)
        self._trade_batch_ms = TRADE_BATCH_MILLISECONDS if paced else 0
        self._trades_due_ns: int | None = None
        self._waiting_trades: dict[str, list[Fill]] = {}
        self._counter = 0
        self._request = msgspec.json.Decoder(_Request)
        self._recorded = msgspec.json.Decoder(_RecordedFrame)

    def products(self) -> list[dict[str, Any]]:
        """Implement `CoinbaseRest`."""
        listed = super().products()
        if self._usdc_twins:
            listed += [
                {**product, "id": f"{product['id']}C", "quote_currency": "USDC"}
                for product in listed
                if product["quote_currency"] == "USD"
            ]
        return listed

    # Requests

    def message(self, connection: Connection, message: bytes) -> None:
        """Implement `VenueSimulator`."""
        if self.over_rate(connection):
            return
        try:
            request = self._request.decode(message)
        except (msgspec.MsgspecError, UnicodeError):
            self._refuse(connection, "malformed request")
            return
        if request.type not in {"subscribe", "unsubscribe"}:
            self._refuse(connection, f"unknown message type {request.type}")
            return
        channel = request.channel
        products = (
            [""]
            if channel == "heartbeats"
            else [self._twin(product) for product in request.product_ids]
        )
        topics = list(dict.fromkeys((channel, product) for product in products))
        problem = self._problem(connection, topics) if request.type == "subscribe" else ""
        if channel not in _CHANNELS:
            problem = f"channel {channel!r} is not valid"
        if problem:
            self._refuse(connection, problem)
            return
        news = []
        for topic in topics:
            if request.type == "unsubscribe":
                self.unsubscribe(connection, topic)
            elif topic not in connection.topics:
                self.subscribe(connection, topic)
                news.append(topic)
        self._acknowledge(connection)
        for topic in news:
            if self.market is not None and topic[1] not in self.faults.silent_symbols:
                self._begin(connection, topic)

    def _twin(self, product: str) -> str:
        """The -USD product that a -USDC one answers as."""
        if self._usdc_twins and product.endswith("-USDC") and product not in self.books:
            return product[:-1]
        return product

    def _problem(self, connection: Connection, topics: list[Topic]) -> str:
        """Why a subscription is refused; empty if it isn't."""
        if not topics:
            return "no product_ids"
        for _, product in topics:
            if product and product not in self.symbols.values():
                return f"product {product!r} is not valid"
            if self.faults.armed and self.faults.take("refuse", product):
                return f"product {product!r} can't be subscribed to at the moment"
        books = {topic for topic in connection.topics | set(topics) if topic[0] == "level2"}
        if len(books) > MAX_BOOKS:
            return f"at most {MAX_BOOKS} level2 products per connection"
        return ""

    def _refuse(self, connection: Connection, problem: str) -> None:
        self.send_error(connection, problem)

    def _acknowledge(self, connection: Connection) -> None:
        channels: dict[str, list[str]] = {}
        for channel, product in sorted(connection.topics):
            channels.setdefault(channel, []).append(product or "heartbeats")
        events = msgspec.json.encode([{"subscriptions": channels}]).decode()
        self._send(connection, "subscriptions", events)

    def _begin(self, connection: Connection, topic: Topic) -> None:
        """What a new subscriber gets at once."""
        channel, product = topic
        if channel == "level2":
            book = self.books[product]
            levels = [
                (side, price, size)
                for side, all_of_it in ((BID, book.bids), (ASK, book.asks))
                for price, size in all_of_it
            ]
            event = _book_event("snapshot", book, levels, _NO_TIME)
            self._send(connection, "l2_data", f"[{event}]")
        elif channel == "market_trades":
            book = self.books[product]
            latest = list(book.fills)[: -TRADE_SNAPSHOT - 1 : -1]
            rows = ",".join(self._trade_row(book, fill) for fill in latest)
            self._send(connection, "market_trades", f'[{{"type":"snapshot","trades":[{rows}]}}]')

    def _send(self, connection: Connection, channel: str, events: str) -> None:
        """Send a frame with the connection's next number."""
        connection.send(
            f'{{"channel":"{channel}","client_id":"","timestamp":"{iso_text(wall_ns(), 9)}",'
            f'"sequence_num":{connection.sequence},"events":{events}}}'.encode()
        )
        connection.sequence += 1

    # What subscribers get

    def event(self, event: MarketEvent) -> None:
        """Implement `VenueSimulator`."""
        book = event.book
        product = book.venue_symbol
        if ("level2", product) in self.topics:
            self._batches.add(book, event.changes, event.t_ns)
        if event.fills and ("market_trades", product) in self.topics:
            self._waiting_trades.setdefault(product, []).extend(event.fills)
            if self._trades_due_ns is None:
                self._trades_due_ns = event.t_ns + self._trade_batch_ms * NS_PER_MILLISECOND

    def batch_due_ns(self) -> int | None:
        """Implement `VenueSimulator`."""
        dues = [due for due in (self._batches.due_ns, self._trades_due_ns) if due is not None]
        return min(dues) if dues else None

    def flush_batches(self, until_ns: int | None = None) -> None:
        """Implement `VenueSimulator`."""
        self._flush_books(until_ns)
        due = self._trades_due_ns
        if due is not None and (until_ns is None or due <= until_ns):
            self._flush_trades()

    def _flush_books(self, until_ns: int | None) -> None:
        """All changed books of a connection go into one message, an event each."""
        by_connection: dict[Connection, list[str]] = {}
        dropped: set[Connection] = set()
        for batch in self._batches.take(until_ns):
            product = batch.book.venue_symbol
            if product in self.faults.silent_symbols:
                continue
            subscribers = self.topics.get(("level2", product), {})
            if self.faults.armed and self.faults.take("drop_update", product):
                dropped.update(subscribers)
            levels = ((side, price, size) for (side, price), size in batch.levels.items())
            event = _book_event("update", batch.book, levels, iso_text(batch.t_ns))
            for connection in subscribers:
                by_connection.setdefault(connection, []).append(event)
        for connection, events in by_connection.items():
            if connection in dropped:
                connection.sequence += 1
            else:
                self._send(connection, "l2_data", f"[{','.join(events)}]")

    def _flush_trades(self) -> None:
        """All trades of a connection go into one message, the latest first."""
        by_connection: dict[Connection, list[str]] = {}
        for product, fills in self._waiting_trades.items():
            if product in self.faults.silent_symbols:
                continue
            if self.faults.armed:
                fills = [f for f in fills if not self.faults.take("skip_trade", product)]
            rows = [self._trade_row(self.books[product], fill) for fill in reversed(fills)]
            for connection in self.topics.get(("market_trades", product), ()):
                by_connection.setdefault(connection, []).extend(rows)
        self._waiting_trades.clear()
        self._trades_due_ns = None
        for connection, rows in by_connection.items():
            if rows:
                self._send(
                    connection,
                    "market_trades",
                    f'[{{"type":"update","trades":[{",".join(rows)}]}}]',
                )

    def _trade_row(self, book: VenueBook, fill: Fill) -> str:
        spec = book.spec
        return (
            f'{{"trade_id":"{fill.trade_id}","product_id":"{book.venue_symbol}",'
            f'"price":"{fixed_text(fill.price, spec.price_exponent)}",'
            f'"size":"{fixed_text(fill.size, spec.size_exponent)}",'
            f'"side":"{"BUY" if fill.buy is self._taker_side else "SELL"}",'
            f'"time":"{iso_text(fill.t_ns)}"}}'
        )

    def heartbeat(self) -> None:
        """Implement `VenueSimulator`; connections where nothing flows are closed."""
        self._counter += 1
        counter = f'"{self._counter}"' if self._text_counter else str(self._counter)
        event = f'[{{"current_time":"{iso_text(wall_ns(), 9)}","heartbeat_counter":{counter}}}]'
        for connection in list(self.connections):
            if ("heartbeats", "") in connection.topics:
                self._send(connection, "heartbeats", event)
            elif monotonic_ns() - connection.sent_ns > self.idle_close_seconds * NS_PER_SECOND:
                connection.close(1000, "idle")

    # A capture

    def route(self, raw: bytes) -> tuple[Topic, ...] | None:
        """Implement `VenueSimulator`."""
        try:
            frame = self._recorded.decode(raw)
        except (msgspec.MsgspecError, UnicodeError):
            return EVERYONE
        if frame.channel == "subscriptions" or frame.type == "error":
            return None
        if frame.channel == "heartbeats":
            return (("heartbeats", ""),)
        channel = "level2" if frame.channel == "l2_data" else frame.channel or ""
        products = {event.product_id for event in frame.events} | {
            trade.product_id for event in frame.events for trade in event.trades
        }
        return tuple((channel, product) for product in sorted(p for p in products if p))


def _book_event(
    kind: str, book: VenueBook, levels: Iterable[tuple[int, int, int]], time_text: str
) -> str:
    price, size = book.spec.price_exponent, book.spec.size_exponent
    rows = ",".join(
        f'{{"side":"{"offer" if side else "bid"}","event_time":"{time_text}",'
        f'"price_level":"{fixed_text(p, price)}",'
        f'"new_quantity":"{fixed_text(s, size) if s else "0"}"}}'
        for side, p, s in levels
    )
    return f'{{"type":"{kind}","product_id":"{book.venue_symbol}","updates":[{rows}]}}'

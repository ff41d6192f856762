"""Kraken, WebSocket v2.

Knowledge of the protocol: Kraken's API documentation (docs.kraken.com/api), book checksum guide.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from alphapulse.clock import NS_PER_SECOND, monotonic_ns, wall_ns
from alphapulse.fixed import format_decimal
from alphapulse.simulators.book import Fill, VenueBook
from alphapulse.simulators.connection import Connection
from alphapulse.simulators.kraken_checksum import TopLevels
from alphapulse.simulators.kraken_rest import KrakenRest
from alphapulse.simulators.limits import RollingBudget, TokenBucket
from alphapulse.simulators.market import MarketEvent
from alphapulse.simulators.source import EVERYONE, Topic
from alphapulse.simulators.text import fixed_text, iso_text
from alphapulse.symbols import normalize_symbol

DEPTHS = frozenset((10, 25, 100, 500, 1000))
TRADE_SNAPSHOT = 50
IDLE_HEARTBEAT_NS = NS_PER_SECOND * 9 // 10
_FIRST_CONNECTION_ID = 15_113_583_034_416_118_705
_HEARTBEAT = b'{"channel":"heartbeat"}'


class _Parameters(msgspec.Struct):
    channel: str = ""
    symbol: list[str] = []
    depth: int | None = None
    snapshot: bool | None = None


class _Request(msgspec.Struct):
    method: str
    params: _Parameters = msgspec.field(default_factory=_Parameters)
    req_id: int | None = None


class _RecordedPair(msgspec.Struct):
    symbol: str


class _RecordedFrame(msgspec.Struct):
    channel: str | None = None
    method: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class _RecordedInstruments(msgspec.Struct):
    pairs: list[_RecordedPair]


class KrakenSimulator(KrakenRest):
    """Kraken: ``instrument``, ``book`` and ``trade`` channels, REST trades and pairs."""

    awaited: ClassVar[dict[str, tuple[str, ...]]] = {"book": ("book",), "trade": ("trade",)}
    trade_channels: ClassVar[frozenset[str]] = frozenset(("trade",))

    messages_per_second = 20.0
    messages_burst = 60.0

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.connections_budget = RollingBudget(150, 600.0, ban_seconds=600.0)
        self._top: dict[str, TopLevels] = {}
        self._messages: dict[Connection, TokenBucket] = {}
        self._recorded_status: bytes | None = None
        self._recorded_instruments: bytes | None = None
        self._request = msgspec.json.Decoder(_Request)
        self._recorded = msgspec.json.Decoder(_RecordedFrame)

    @property
    def ws_url(self) -> str:
        """Address of the v2 endpoint."""
        return f"{super().ws_url}/v2"

    def serves(self, path: str) -> bool:
        """Implement `VenueSimulator`."""
        return path == "/v2"

    # Connections

    def greet(self, connection: Connection) -> None:
        """Implement `VenueSimulator`."""
        self._messages[connection] = TokenBucket(self.messages_per_second, self.messages_burst)
        connection.send(self._recorded_status or self._status())

    def disconnected(self, connection: Connection) -> None:
        """Implement `VenueSimulator`."""
        self._messages.pop(connection, None)
        super().disconnected(connection)

    def heartbeat(self) -> None:
        """Implement `VenueSimulator`."""
        now = monotonic_ns()
        for connection in self.connections:
            if now - connection.sent_ns >= IDLE_HEARTBEAT_NS:
                connection.send(_HEARTBEAT)

    def set_status(self, status: str) -> None:
        """Implement `VenueSimulator`; ``cancel_only`` and ``post_only`` rest as well."""
        super().set_status(status)
        self.broadcast(self._status())

    def _status(self) -> bytes:
        number = _FIRST_CONNECTION_ID + self.counts["connections"]
        return (
            '{"channel":"status","type":"update","data":[{"version":"2.0.10",'
            f'"system":"{self.status}","api_version":"v2","connection_id":{number}}}]}}'
        ).encode()

    def message(self, connection: Connection, message: bytes) -> None:
        """Implement `VenueSimulator`."""
        arrived_ns = wall_ns()
        try:
            request = self._request.decode(message)
        except (msgspec.MsgspecError, UnicodeError):
            self._answer(connection, arrived_ns, {"error": "Malformed request", "success": False})
            return
        fields: dict[str, Any] = {"method": request.method}
        if request.req_id is not None:
            fields["req_id"] = request.req_id
        if not self._messages[connection].take():
            fields |= {"error": "Exceeded msg rate", "success": False}
            self._answer(connection, arrived_ns, fields)
        elif request.method == "ping":
            self._answer(connection, arrived_ns, fields | {"method": "pong"})
        elif request.method in {"subscribe", "unsubscribe"}:
            channel = request.params.channel
            symbols = [""] if channel == "instrument" else request.params.symbol
            if channel not in {"book", "trade", "instrument"} or not symbols:
                problem = "Channel not supported" if symbols else "Symbol(s) not found"
                fields |= {"error": problem, "success": False}
                self._answer(connection, arrived_ns, fields)
                return
            for symbol in dict.fromkeys(symbols):
                self._subscription(connection, arrived_ns, request, fields, symbol)
        else:
            fields |= {"error": "Method not supported", "success": False}
            self._answer(connection, arrived_ns, fields)

    def _answer(self, connection: Connection, arrived_ns: int, fields: dict[str, Any]) -> None:
        times = {"time_in": iso_text(arrived_ns), "time_out": iso_text(wall_ns())}
        connection.send(msgspec.json.encode(fields | times))

    def _subscription(
        self,
        connection: Connection,
        arrived_ns: int,
        request: _Request,
        fields: dict[str, Any],
        symbol: str,
    ) -> None:
        """Answer for one symbol; a refusal leaves the others and the connection alone."""
        params = request.params
        subscribing = request.method == "subscribe"
        topic = (params.channel, symbol)
        problem = self._problem(connection, topic, params, subscribing)
        if problem:
            named = {"symbol": symbol} if symbol else {}
            self._answer(
                connection, arrived_ns, fields | named | {"error": problem, "success": False}
            )
            return
        result: dict[str, Any] = {"channel": params.channel}
        if symbol:
            result["symbol"] = symbol
        depth = None
        if params.channel == "book":
            held = self.topics.get(topic, {}).get(connection)
            depth = params.depth or held or 10
            result["depth"] = depth
        snapshot = params.snapshot if params.snapshot is not None else params.channel != "trade"
        if subscribing:
            result["snapshot"] = snapshot
        self._answer(connection, arrived_ns, fields | {"result": result, "success": True})
        if not subscribing:
            self.unsubscribe(connection, topic)
            return
        self.subscribe(connection, topic, depth)
        if snapshot and symbol not in self.faults.silent_symbols:
            self._send_snapshot(connection, topic, depth)

    def _problem(
        self, connection: Connection, topic: Topic, params: _Parameters, subscribing: bool
    ) -> str | None:
        """Why a request for one symbol is refused, in the venue's words."""
        channel, symbol = topic
        if symbol and symbol not in self.symbols.values():
            return f"Currency pair not supported {symbol}"
        if channel == "book" and params.depth is not None and params.depth not in DEPTHS:
            return "Subscription depth not supported"
        held = topic in connection.topics
        if subscribing:
            if held:
                return "Already subscribed"
            if self.faults.armed and self.faults.take("refuse", symbol):
                return "Subscription refused"
            return None
        depth = self.topics.get(topic, {}).get(connection)
        if not held or (params.depth is not None and params.depth != depth):
            return "Subscription Not Found"
        return None

    # What subscribers get

    def _send_snapshot(self, connection: Connection, topic: Topic, depth: int | None) -> None:
        channel, symbol = topic
        if self.market is None:
            if channel == "instrument" and self._recorded_instruments is not None:
                connection.send(self._recorded_instruments)
            return
        if channel == "instrument":
            connection.send(self._instruments())
        elif channel == "book":
            book = self.books[symbol]
            connection.send(
                self._book_message(
                    "snapshot",
                    book,
                    book.bids.top(depth),
                    book.asks.top(depth),
                    self._checksum(book),
                    self.market.now_ns(),
                )
            )
        else:
            fills = list(self.books[symbol].fills)[-TRADE_SNAPSHOT:]
            connection.send(_trade_message("snapshot", self.books[symbol], fills))

    def event(self, event: MarketEvent) -> None:
        """Implement `VenueSimulator`."""
        book = event.book
        symbol = book.venue_symbol
        top = self._top.get(symbol)
        if top is not None:
            top.follow(event.changes)
        subscribers = self.topics.get(("book", symbol))
        if subscribers and symbol not in self.faults.silent_symbols:
            self._send_update(event, subscribers)
        topic = ("trade", symbol)
        if event.fills and topic in self.topics:
            fills = list(event.fills)
            if self.faults.armed:
                fills = [f for f in fills if not self.faults.take("skip_trade", symbol)]
            if fills:
                self.publish(topic, _trade_message("update", book, fills))

    def _send_update(self, event: MarketEvent, subscribers: dict[Connection, int]) -> None:
        """Send the change to each depth that shows any of it."""
        book = event.book
        checksum = self._checksum(book)
        # What nobody is sent can't be dropped or damaged.
        if self.faults.armed and _within(event, max(subscribers.values())):
            if self.faults.take("drop_update", book.venue_symbol):
                return
            if self.faults.take("corrupt_checksum", book.venue_symbol):
                checksum ^= 0x5A5A5A5A
        by_depth: dict[int, bytes | None] = {}
        for connection, depth in subscribers.items():
            if depth not in by_depth:
                by_depth[depth] = self._update(event, depth, checksum)
            payload = by_depth[depth]
            if payload is not None:
                connection.send(payload)

    def _update(self, event: MarketEvent, depth: int, checksum: int) -> bytes | None:
        book = event.book
        shown: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        removed: list[int] = []
        for side, price, size, rank in event.changes:
            if 0 <= rank < depth:
                shown[side].append((price, size))
                if not size:
                    removed.append(side)
        for side in set(removed):
            # What moves up into view must be told; what drops out of it is not.
            levels = book.side(side)
            for rank in range(max(depth - removed.count(side), 0), min(depth, len(levels))):
                price = levels.at(rank)
                shown[side].append((price, levels.sizes[price]))
        bids, asks = shown
        if not (bids or asks):
            return None
        return self._book_message("update", book, bids, asks, checksum, event.t_ns)

    def _book_message(
        self,
        kind: str,
        book: VenueBook,
        bids: list[tuple[int, int]],
        asks: list[tuple[int, int]],
        checksum: int,
        t_ns: int,
    ) -> bytes:
        price, size = book.spec.price_exponent, book.spec.size_exponent
        bids_text, asks_text = (
            ",".join(
                f'{{"price":{fixed_text(p, price)},"qty":{fixed_text(q, size)}}}' for p, q in side
            )
            for side in (bids, asks)
        )
        return (
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{book.venue_symbol}",'
            f'"bids":[{bids_text}],"asks":[{asks_text}],"checksum":{checksum},'
            f'"timestamp":"{iso_text(t_ns)}"}}]}}'
        ).encode()

    def _checksum(self, book: VenueBook) -> int:
        top = self._top.get(book.venue_symbol)
        if top is None:
            top = self._top[book.venue_symbol] = TopLevels(book)
        return top.checksum()

    def _instruments(self) -> bytes:
        pairs = []
        for book in self.books.values():
            spec = book.spec
            tick = format_decimal(spec.tick, spec.price_exponent)
            lot = _increment_text(spec.lot, spec.size_exponent)
            pairs.append(
                f'{{"symbol":"{book.venue_symbol}","base":"{spec.base}","quote":"{spec.quote}",'
                f'"status":"online","qty_precision":{spec.size_exponent},"qty_increment":{lot},'
                f'"price_precision":{spec.price_exponent},"cost_precision":5,"marginable":false,'
                f'"has_index":true,"cost_min":0.50,"tick_size":{tick},"price_increment":{tick},'
                f'"qty_min":{lot}}}'
            )
        return (
            '{"channel":"instrument","type":"snapshot","data":{"assets":[],"pairs":['
            f"{','.join(pairs)}]}}}}"
        ).encode()

    # A capture

    def scanned(self, raw: bytes) -> None:
        """Implement `VenueSimulator`."""
        try:
            frame = self._recorded.decode(raw)
            if frame.channel == "status" and self._recorded_status is None:
                self._recorded_status = raw
                self.given.append(raw)
            elif frame.channel == "instrument" and self._recorded_instruments is None:
                self._recorded_instruments = raw
                self.given.append(raw)
                recorded = msgspec.json.decode(frame.data, type=_RecordedInstruments)
                for pair in recorded.pairs:
                    self.symbols[normalize_symbol(pair.symbol)] = pair.symbol
        except (msgspec.MsgspecError, ValueError):
            return

    def route(self, raw: bytes) -> tuple[Topic, ...] | None:
        """Implement `VenueSimulator`."""
        try:
            frame = self._recorded.decode(raw)
            if frame.method is not None:
                return None
            if frame.channel == "instrument":
                return (("instrument", ""),)
            if frame.channel not in {"book", "trade"}:
                return EVERYONE
            rows = msgspec.json.decode(frame.data, type=list[_RecordedPair])
        except (msgspec.MsgspecError, UnicodeError):
            return EVERYONE
        return tuple((frame.channel, row.symbol) for row in rows)


def _within(event: MarketEvent, depth: int) -> bool:
    """Whether anything of a change is among the best levels, so many on each side."""
    return any(0 <= rank < depth for _, _, _, rank in event.changes)


def _trade_message(kind: str, book: VenueBook, fills: list[Fill]) -> bytes:
    price, size = book.spec.price_exponent, book.spec.size_exponent
    rows = ",".join(
        f'{{"symbol":"{book.venue_symbol}","side":"{"buy" if f.buy else "sell"}",'
        f'"price":{fixed_text(f.price, price)},"qty":{fixed_text(f.size, size)},'
        f'"ord_type":"market","trade_id":{f.trade_id},"timestamp":"{iso_text(f.t_ns)}"}}'
        for f in fills
    )
    return f'{{"channel":"trade","type":"{kind}","data":[{rows}]}}'.encode()


def _increment_text(scaled: int, exponent: int) -> str:
    """A JSON number; small powers of ten in exponent notation, as the venue writes them."""
    text = format_decimal(scaled, exponent)
    places = len(text) - 2
    return f"1e-{places:02d}" if places > 4 and text.strip("0.") == "1" else text

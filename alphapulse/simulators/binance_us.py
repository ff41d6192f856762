"""Binance.US's market streams.

Knowledge of the protocol: Binance.US's API documentation (docs.binance.us).
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from alphapulse.clock import NS_PER_SECOND, monotonic_ns
from alphapulse.simulators.batch import Batch, Batches
from alphapulse.simulators.binance_rest import BinanceRest, wide
from alphapulse.simulators.book import ASK, BID, Fill, VenueBook
from alphapulse.simulators.connection import Connection
from alphapulse.simulators.limits import TokenBucket
from alphapulse.simulators.market import MarketEvent
from alphapulse.simulators.source import EVERYONE, Topic

BATCH_MILLISECONDS = 100
MAX_STREAMS = 1024
MESSAGES_PER_SECOND = 5.0
PING_SECONDS = 180.0
PONG_SECONDS = 600.0
LIFE_SECONDS = 86_400.0

_DEPTH = "depth@100ms"


class _Request(msgspec.Struct):
    method: str
    params: list[str] = []
    id: int | str | None = None


class _RecordedFrame(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    id: int | str | None = None


class BinanceUsSimulator(BinanceRest):
    """Binance.US: ``@depth@100ms``, ``@trade``, ``@aggTrade``; combined streams and raw ones."""

    awaited: ClassVar[dict[str, tuple[str, ...]]] = {
        _DEPTH: (_DEPTH,),
        "trade": ("trade", "aggTrade"),
        "aggTrade": ("aggTrade", "trade"),
    }
    trade_channels: ClassVar[frozenset[str]] = frozenset(("trade", "aggTrade"))

    life_seconds = LIFE_SECONDS
    ping_seconds = PING_SECONDS
    pong_seconds = PONG_SECONDS

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        paced = self.market is not None and self.market.market.paced
        self._batches = Batches(BATCH_MILLISECONDS if paced else 0)
        self._messages: dict[Connection, TokenBucket] = {}
        self._pinged_ns: dict[Connection, int] = {}
        self._answered_ns: dict[Connection, int] = {}
        self._request = msgspec.json.Decoder(_Request)
        self._recorded = msgspec.json.Decoder(_RecordedFrame)

    # Connections

    def serves(self, path: str) -> bool:
        """Implement `VenueSimulator`."""
        return path in {"/stream", "/ws"} or path.startswith("/ws/")

    def greet(self, connection: Connection) -> None:
        """Implement `VenueSimulator`: the address may name streams."""
        self._messages[connection] = TokenBucket(MESSAGES_PER_SECOND, MESSAGES_PER_SECOND)
        now = monotonic_ns()
        self._pinged_ns[connection] = self._answered_ns[connection] = now
        self.later(connection, self.life_seconds, lambda c: c.close(1001, "24 hours"))
        if connection.path == "/stream":
            named = connection.query.get("streams", [""])[0]
        else:
            named = connection.path.removeprefix("/ws").strip("/")
        self._add_streams(connection, [name for name in named.split("/") if name])

    def disconnected(self, connection: Connection) -> None:
        """Implement `VenueSimulator`."""
        for table in (self._messages, self._pinged_ns, self._answered_ns):
            table.pop(connection, None)
        super().disconnected(connection)

    def control_frame(self, connection: Connection, pong: bool = False) -> None:
        """Implement `VenueSimulator`: pings and pongs count as messages."""
        if pong:
            self._answered_ns[connection] = monotonic_ns()
        self._over_rate(connection)

    def heartbeat(self) -> None:
        """Implement `VenueSimulator`: pings now and then; who doesn't answer is dropped."""
        now = monotonic_ns()
        for connection in list(self.connections):
            if now - self._answered_ns[connection] > self.pong_seconds * NS_PER_SECOND:
                connection.close(1008, "pong timeout")
            elif now - self._pinged_ns[connection] >= self.ping_seconds * NS_PER_SECOND:
                self._pinged_ns[connection] = now
                connection.ping()

    def _over_rate(self, connection: Connection) -> bool:
        """Whether the client sends too much; it is dropped then."""
        if self._messages[connection].take():
            return False
        connection.close(1008, "too many messages")
        return True

    def message(self, connection: Connection, message: bytes) -> None:
        """Implement `VenueSimulator`."""
        if self._over_rate(connection):
            return
        try:
            request = self._request.decode(message)
        except (msgspec.MsgspecError, UnicodeError):
            self._fail(connection, None, 3, "Invalid JSON")
            return
        result: Any = None
        if request.method == "SUBSCRIBE":
            if self._refused(request.params):
                self._fail(connection, request.id, 1, "Too many requests")
                return
            self._add_streams(connection, request.params)
        elif request.method == "UNSUBSCRIBE":
            for stream in request.params:
                self.unsubscribe(connection, _topic(stream))
        elif request.method == "LIST_SUBSCRIPTIONS":
            result = sorted(_stream(topic) for topic in connection.topics)
        else:
            self._fail(connection, request.id, 2, f"Invalid request: {request.method}")
            return
        connection.send(msgspec.json.encode({"result": result, "id": request.id}))

    def _fail(
        self, connection: Connection, number: int | str | None, code: int, message: str
    ) -> None:
        error = {"code": code, "msg": message}
        connection.send(msgspec.json.encode({"error": error, "id": number}))

    def _refused(self, streams: list[str]) -> bool:
        return self.faults.armed and any(
            self.faults.take("refuse", _topic(stream)[1]) for stream in streams
        )

    def _add_streams(self, connection: Connection, streams: list[str]) -> None:
        """Subscribe; a stream that doesn't exist is accepted, and silent."""
        topics = [_topic(stream) for stream in streams]
        if len(connection.topics.union(topics)) > MAX_STREAMS:
            connection.close(1008, "too many streams")
            return
        for topic in topics:
            self.subscribe(connection, topic)

    def _publish(self, topic: Topic, data: str) -> None:
        """Send an event: as it is on ``/ws``, wrapped on ``/stream``."""
        subscribers = self.topics.get(topic)
        if not subscribers or topic[1] in self.faults.silent_symbols:
            return
        raw = data.encode()
        wrapped = f'{{"stream":"{_stream(topic)}","data":{data}}}'.encode()
        for connection in subscribers:
            connection.send(wrapped if connection.path == "/stream" else raw)

    # What subscribers get

    def event(self, event: MarketEvent) -> None:
        """Implement `VenueSimulator`."""
        book = event.book
        symbol = book.venue_symbol
        if (_DEPTH, symbol) in self.topics:
            self._batches.add(book, event.changes, event.t_ns)
            if not self._batches.milliseconds:
                self.flush_batches()
        if event.fills and (
            ("trade", symbol) in self.topics or ("aggTrade", symbol) in self.topics
        ):
            self._send_fills(event.t_ns, book, event.fills)

    def batch_due_ns(self) -> int | None:
        """Implement `VenueSimulator`."""
        return self._batches.due_ns

    def flush_batches(self, until_ns: int | None = None) -> None:
        """Implement `VenueSimulator`."""
        for batch in self._batches.take(until_ns):
            self._send_depth(batch)

    def _send_depth(self, batch: Batch) -> None:
        book = batch.book
        symbol = book.venue_symbol
        if self.faults.armed and self.faults.take("drop_update", symbol):
            return
        price, size = book.spec.price_exponent, book.spec.size_exponent
        rows: tuple[list[str], list[str]] = ([], [])
        for side, level, quantity in ((s, p, q) for (s, p), q in batch.levels.items()):
            rows[side].append(f'["{wide(level, price)}","{wide(quantity, size)}"]')
        self._publish(
            (_DEPTH, symbol),
            f'{{"e":"depthUpdate","E":{batch.t_ns // self.time_unit_ns},"s":"{symbol}",'
            f'"U":{batch.first_id},"u":{batch.last_id},'
            f'"b":[{",".join(rows[BID])}],"a":[{",".join(rows[ASK])}]}}',
        )

    def _send_fills(self, t_ns: int, book: VenueBook, fills: tuple[Fill, ...]) -> None:
        symbol = book.venue_symbol
        price, size = book.spec.price_exponent, book.spec.size_exponent
        moment = max(t_ns, fills[-1].t_ns) // self.time_unit_ns
        complete = True
        for fill in fills:
            if self.faults.armed and self.faults.take("skip_trade", symbol):
                complete = False
                continue
            self._publish(
                ("trade", symbol),
                f'{{"e":"trade","E":{moment},"s":"{symbol}","t":{fill.trade_id},'
                f'"p":"{wide(fill.price, price)}","q":"{wide(fill.size, size)}",'
                f'"b":{2 * fill.order},"a":{2 * fill.order + 1},'
                f'"T":{fill.t_ns // self.time_unit_ns},"m":{"false" if fill.buy else "true"},'
                '"M":true}',
            )
        if complete:
            self._publish(
                ("aggTrade", symbol),
                f'{{"e":"aggTrade","E":{moment},"s":"{symbol}",'
                f"{self.aggregate_fields(book, list(fills))}}}",
            )

    # A capture

    def route(self, raw: bytes) -> tuple[Topic, ...] | None:
        """Implement `VenueSimulator`."""
        try:
            frame = self._recorded.decode(raw)
        except (msgspec.MsgspecError, UnicodeError):
            return EVERYONE
        if frame.stream is None:
            return None if frame.id is not None else EVERYONE
        return (_topic(frame.stream),)

    def send_recorded(self, connection: Connection, raw: bytes) -> None:
        """Implement `VenueSimulator`."""
        if connection.path == "/stream":
            connection.send(raw)
        else:
            connection.send(bytes(self._recorded.decode(raw).data))


def _topic(stream: str) -> Topic:
    """Kind and symbol; a name that isn't in lower case is no stream's."""
    symbol, _, kind = stream.partition("@")
    return (kind, symbol.upper()) if symbol == symbol.lower() else ("", stream)


def _stream(topic: Topic) -> str:
    kind, symbol = topic
    return f"{symbol.lower()}@{kind}" if kind else symbol

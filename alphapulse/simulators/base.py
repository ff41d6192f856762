"""What the simulated venues have in common: servers, connections, the source, faults.

A venue's class adds its protocol: what it says on connecting, how it answers messages, how it
writes a change of its book. A simulator has one source, a generated `Market` or a capture
(`CaptureSource`), and runs wholly within the event loop that entered it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from picows import WSUpgradeRequest, ws_create_server
from picows.common import WSUpgradeResponse, WSUpgradeResponseWithListener
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.errors import SymbolError
from alphapulse.fixed import to_decimal
from alphapulse.simulators.book import VenueBook
from alphapulse.simulators.connection import GOODBYE_SECONDS, Connection
from alphapulse.simulators.driver import CaptureDriver, MarketDriver
from alphapulse.simulators.faults import Faults
from alphapulse.simulators.limits import RollingBudget, TokenBucket
from alphapulse.simulators.market import Market
from alphapulse.simulators.protocol import VenueProtocol
from alphapulse.simulators.source import CaptureSource, Topic, rest_key
from alphapulse.simulators.web import (
    Handler,
    WebServer,
    control_routes,
    json_response,
    listen,
)

MAX_CLIENT_MESSAGE_BYTES = 1024 * 1024
MAX_WAITING_BYTES = 256 * 1024 * 1024
"""A client that lets more than this wait is dropped, as the venues do."""

REST_BODY_TIMEOUT_SECONDS = 30.0
HEARTBEAT_SECONDS = 1.0

Source = Market | CaptureSource
Start = Literal["now", "subscribed", "manual"]


class FinalBook(NamedTuple):
    """A venue's book: (price, size) levels, best first."""

    bids: list[tuple[Decimal, Decimal]]
    asks: list[tuple[Decimal, Decimal]]


class VenueSimulator(VenueProtocol):
    """The venue's side of one exchange's protocol, on a WebSocket and a REST port.

    Parameters
    ----------
    source : a generated market, which several simulators of a process may share, or a capture
    host, ws_port, rest_port : where to listen; port 0 takes any free one
    start : when the source begins: ``"now"``, with the ``"subscribed"`` one of somebody (of a
        capture: once all its books and trades have a subscriber, so that none of it is lost), or
        ``"manual"`` with `play`. By default ``"now"`` for a market with a rate, else
        ``"subscribed"``
    prepared : of a market without a rate and with a number of events, make all the frames first
        and send them then, so that the network and the client alone set the pace; until then
        the clients hear nothing

    Use it as an asynchronous context manager; on leaving it, nothing remains.
    """

    connections_budget: RollingBudget | TokenBucket | None = None
    """Connection attempts that the venue bears; None for any number."""
    rest_bucket: TokenBucket | None = None
    """REST requests that the venue bears; None for any number."""

    def __init__(
        self,
        source: Source,
        *,
        host: str = "127.0.0.1",
        ws_port: int = 0,
        rest_port: int = 0,
        start: Start | None = None,
        prepared: bool = False,
    ) -> None:
        if prepared and not (isinstance(source, Market) and source.events and not source.book_rate):
            raise ValueError("prepared needs a market without a rate and with a number of events")
        self.source = source
        self.host = host
        self._ports = ws_port, rest_port
        self.books: dict[str, VenueBook] = {}
        """By the venue's symbol; empty with a capture."""
        self.symbols: dict[str, str] = {}
        """Venue symbol by unified symbol."""
        self.connections: set[Connection] = set()
        self.unflushed: list[Connection] = []
        self.prepared = prepared
        self.holding = False
        """While frames are prepared, nothing is written."""
        self.topics: dict[Topic, dict[Connection, Any]] = {}
        """Subscribers, with what the venue noted about each subscription."""
        self.faults = Faults(self)
        self.counts: Counter[str] = Counter()
        """What happened: ``connections``, ``messages``, ``rest <path>``, ..."""
        self.given: list[bytes] = []
        """Recorded frames that clients get by themselves, and that the play leaves out."""
        self.status = "online"
        self.finished = asyncio.Event()
        """Set when the source has come to its end and all of it was written, or has failed."""
        self.failure: Exception | None = None
        """Why the source failed; raised on leaving the simulator too."""
        self._changed = asyncio.Event()
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None
        self._web = WebServer([*control_routes(self), *self.routes()])
        self.market: MarketDriver | None = None
        self.capture: CaptureDriver | None = None
        if isinstance(source, Market):
            self.market = MarketDriver(self, source.venue(self.exchange))
            self._list_pairs(self.market.market.books)
        else:
            self.capture = CaptureDriver(self, source)
        paced = isinstance(source, Market) and source.book_rate is not None
        self._start: Start = start or ("now" if paced else "subscribed")

    # Life

    async def __aenter__(self) -> Self:
        if self.capture is not None:
            self.capture.scan()
        await self._web.start(self.host, self._ports[1])
        try:
            self._server = await ws_create_server(
                self._accept,
                sock=listen(self.host, self._ports[0]),
                enable_auto_pong=False,
                max_frame_size=MAX_CLIENT_MESSAGE_BYTES,
                logger_name="simulator",
            )
        except BaseException:
            await self._web.stop()
            raise
        self._tasks = [asyncio.create_task(self._drive()), asyncio.create_task(self._beat())]
        if self._start == "now":
            self.play()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.capture is not None:
            self.capture.bodies.end()
        if self._server is not None:
            self._server.close()
        await self._part()
        if self._server is not None:
            await self._server.wait_closed()
        await self._web.stop()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _part(self) -> None:
        """Say goodbye to all clients; those that don't take it are cut off."""
        leaving = list(self.connections)
        for connection in leaving:
            connection.close(1001)
        try:
            async with asyncio.timeout(2 * GOODBYE_SECONDS):
                for connection in leaving:
                    await connection.wait_closed()
        except TimeoutError:
            for connection in leaving:
                connection.abort()
                await connection.wait_closed()

    @property
    def ws_url(self) -> str:
        """Base of the WebSocket addresses."""
        assert self._server is not None, "enter the simulator first"
        return f"ws://{self.host}:{self._server.sockets[0].getsockname()[1]}"

    @property
    def rest_url(self) -> str:
        """Base of the REST addresses."""
        return f"http://{self.host}:{self._web.port}"

    def play(self) -> None:
        """Start the source now."""
        self._started.set()

    def pause(self) -> None:
        """Stop the market after what has happened was sent; a capture isn't affected."""
        if self.market is not None:
            self.market.pause()

    def resume(self) -> None:
        """Go on after `pause`; the time in between is left out."""
        if self.market is not None:
            self.market.resume()

    def set_status(self, status: str) -> None:
        """Change the venue's status; anything but ``online`` lets the market rest."""
        self.status = status
        if status == "online":
            self.resume()
        else:
            self.pause()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; asked whenever a client did something."""
        while not condition():
            await self._changed.wait()

    # What tests and demos look at

    def venue_symbol(self, symbol: str) -> str:
        """The venue's symbol for a unified one or its own. Raises `SymbolError`."""
        if symbol in self.symbols:
            return self.symbols[symbol]
        if symbol in self.symbols.values():
            return symbol
        raise SymbolError(self.exchange, symbol)

    def book(self, symbol: str, depth: int | None = None) -> FinalBook:
        """The venue's own book, `depth` levels a side or all.

        Raises
        ------
        SymbolError
            the venue doesn't list the symbol
        LookupError
            the source is a capture: its books are in the frames alone
        """
        if self.market is None:
            raise LookupError("a simulator that plays a capture keeps no books")
        book = self.books[self.venue_symbol(symbol)]
        price, size = book.spec.price_exponent, book.spec.size_exponent
        bids, asks = (
            [(to_decimal(p, price), to_decimal(s, size)) for p, s in side.top(depth)]
            for side in (book.bids, book.asks)
        )
        return FinalBook(bids, asks)

    def subscribers(self, channel: str, symbol: str = "") -> int:
        """How many connections are subscribed; the symbol is the venue's."""
        return len(self.topics.get((channel, symbol), ()))

    def describe(self) -> dict[str, Any]:
        """State for ``GET /control``."""
        return {
            "exchange": self.exchange,
            "ws_url": self.ws_url,
            "rest_url": self.rest_url,
            "status": self.status,
            "finished": self.finished.is_set(),
            "symbols": self.symbols,
            "connections": [
                {
                    "path": connection.path,
                    "topics": sorted(connection.topics),
                    "frames_sent": connection.frames_sent,
                    "waiting_bytes": connection.waiting_bytes(),
                }
                for connection in self.connections
            ],
            "counts": dict(self.counts),
            "pending_faults": self.faults.pending(),
        }

    # Connections

    def _accept(
        self, request: WSUpgradeRequest
    ) -> Connection | WSUpgradeResponseWithListener | None:
        self.counts["attempts"] += 1
        status = 0
        if self.faults.connections_refused:
            status = 503
        elif self.connections_budget is not None and not self.connections_budget.take():
            status = 429
        if status:
            self._notify()
            return WSUpgradeResponseWithListener(
                WSUpgradeResponse.create_error_response(status, b"try again later"), None
            )
        target = request.path.decode("latin-1")
        if not self.serves(urlsplit(target).path):
            return None
        return Connection(self, target)

    def connected(self, connection: Connection) -> None:
        """Called by a connection."""
        self.counts["connections"] += 1
        self.connections.add(connection)
        connection.silent = self.faults.silent_newcomers
        self.greet(connection)
        self._notify()

    def disconnected(self, connection: Connection) -> None:
        """Called by a connection."""
        self.connections.discard(connection)
        for topic in list(connection.topics):
            self.unsubscribe(connection, topic)
        self._notify()

    def received(self, connection: Connection, message: bytes) -> None:
        """Called by a connection."""
        self.counts["messages"] += 1
        self.message(connection, message)
        self._notify()

    def later(
        self, connection: Connection, seconds: float, action: Callable[[Connection], None]
    ) -> None:
        """Call this if the connection is still there then."""

        def act() -> None:
            action(connection)
            self.flush()

        loop = asyncio.get_running_loop()
        connection.timers.append(loop.call_later(seconds, act))

    def subscribe(self, connection: Connection, topic: Topic, note: Any = None) -> None:
        """Note a subscription."""
        connection.topics.add(topic)
        self.topics.setdefault(topic, {})[connection] = note
        if self._start == "subscribed" and not self._started.is_set():
            awaited = self.capture.awaited if self.capture is not None else []
            if all(any(self.topics.get(topic) for topic in group) for group in awaited):
                self.play()

    def unsubscribe(self, connection: Connection, topic: Topic) -> None:
        """Forget a subscription."""
        connection.topics.discard(topic)
        subscribers = self.topics.get(topic)
        if subscribers is not None:
            subscribers.pop(connection, None)
            if not subscribers:
                del self.topics[topic]

    def publish(self, topic: Topic, payload: bytes) -> None:
        """Send to the subscribers of a topic."""
        subscribers = self.topics.get(topic)
        if subscribers and topic[1] not in self.faults.silent_symbols:
            for connection in subscribers:
                connection.send(payload)

    def broadcast(self, payload: bytes) -> None:
        """Send to every connection."""
        for connection in self.connections:
            connection.send(payload)
        self.flush()

    def flush(self) -> None:
        """Write what was sent; drop clients that are too far behind."""
        waiting, self.unflushed = self.unflushed, []
        for connection in waiting:
            connection.flush()
            if not connection.writable.is_set() and (
                connection.waiting_bytes() > MAX_WAITING_BYTES
            ):
                self.counts["dropped"] += 1
                connection.abort()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # REST

    def rest(self, handler: Handler) -> Handler:
        """Wrap a REST handler: counts, faults and the venue's budget."""

        async def handle(request: Request) -> Response:
            self.counts[f"rest {request.url.path}"] += 1
            self._notify()
            faults = self.faults
            if faults.rest_answer is not None and faults.take("rest_status", None):
                status, retry_after = faults.rest_answer
                return self.rest_refusal(status, retry_after)
            if self.rest_bucket is not None and not self.rest_bucket.take():
                return self.rest_over_budget()
            if faults.rest_delay_seconds:
                await self._rest(faults.rest_delay_seconds)
            return await handler(request)

        return handle

    async def recorded(self, request: Request) -> Response | None:
        """The recorded body for a request; None if the source is no capture."""
        capture = self.capture
        if capture is None:
            return None
        key = rest_key(str(request.url))
        if key[0] == self.metadata_path and capture.metadata is not None:
            return json_response(capture.metadata)
        body = await capture.bodies.get(key, REST_BODY_TIMEOUT_SECONDS)
        if body is None:
            return json_response({"message": "the capture holds no answer to this"}, 404)
        return json_response(body)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    # The source

    async def writable(self) -> None:
        """Let clients catch up, so that what waits for them stays bounded."""
        await asyncio.sleep(0)
        for connection in list(self.connections):
            await connection.writable.wait()

    def _list_pairs(self, books: list[VenueBook]) -> None:
        for book in books:
            book.venue_symbol = self.name_symbol(book.spec)
            self.books[book.venue_symbol] = book
            self.symbols[book.spec.symbol] = book.venue_symbol

    async def _drive(self) -> None:
        await self._started.wait()
        driver = self.market or self.capture
        assert driver is not None
        try:
            await driver.run()
        except Exception as error:
            self.failure = error
            raise
        finally:
            self.finished.set()
            self._notify()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if not (self.faults.heartbeats_lost or self.holding):
                self.heartbeat()
                self.flush()

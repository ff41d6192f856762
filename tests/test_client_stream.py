"""The stream client: a real server that is cut off, replaced or slow, and a false one."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve

from alphapulse.client import (
    Bbo,
    ConsolidatedDelta,
    ConsolidatedSnapshot,
    Disconnected,
    Reconnected,
    StreamClient,
    StreamEvent,
    session,
)
from alphapulse.errors import (
    AnswerTimeout,
    BookNotLive,
    ClientClosed,
    ClientError,
    ConnectionFailed,
    HandshakeRefused,
    ProtocolError,
    RequestError,
)
from alphapulse.model import (
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Channel,
    Gap,
    Reason,
    StateChange,
    Trade,
)
from alphapulse.shm import remove_dead
from tests.certificates import write_certificates
from tests.clients import PATIENCE_SECONDS, ServerThread, exact, server_thread
from tests.streaming import Exchange
from tests.support import ROOT

BID, ASK = BookSide
QUICK: dict[str, Any] = {"retry_seconds": 0.01, "max_retry_seconds": 0.05}
FORMATS = pytest.mark.parametrize("format_", ["json", "binary"])


@pytest.fixture
def exchange(ring_prefix: str) -> Iterator[Exchange]:
    with Exchange(ring_prefix, symbols=("BTC-USD", "ETH-USD"), size_bytes=1 << 22) as exchange:
        exchange.reset("BTC-USD", {10012: 5, 10000: 10}, {10111: 3})
        yield exchange


@pytest.fixture
def server(ring_prefix: str, exchange: Exchange) -> Iterator[ServerThread]:
    with server_thread(ring_prefix) as server:
        yield server


class Taken:
    """A client's events, and its book compared at each of them."""

    def __init__(self, client: StreamClient, exchange: Exchange) -> None:
        self.client = client
        self.exchange = exchange
        self.events: list[StreamEvent] = []

    async def until(self, wanted: Callable[[StreamEvent], bool]) -> StreamEvent:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                event = await anext(self.client)
                self.events.append(event)
                if isinstance(event, BookSnapshot | BookDelta):
                    self.compare(event)
                if wanted(event):
                    return event

    async def have(self, kind: type[Any], count: int) -> list[Any]:
        """Wait until so many events of a kind were taken."""
        while len(self.of(kind)) < count:
            await self.until(lambda _: True)
        return self.of(kind)

    async def version(self, symbol: str = "BTC-USD") -> None:
        version = self.exchange.versions[symbol]
        await self.until(
            lambda event: (
                isinstance(event, BookSnapshot | BookDelta)
                and (event.symbol, event.version) == (symbol, version)
            )
        )

    def compare(self, event: BookSnapshot | BookDelta) -> None:
        book = self.client.books[event.exchange, event.symbol]
        bids, asks = self.exchange.history[book.epoch, event.symbol, event.version]
        assert [tuple(level) for level in book.bids()] == exact(sorted(bids.items(), reverse=True))
        assert [tuple(level) for level in book.asks()] == exact(sorted(asks.items()))

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def a(kind: type[Any]) -> Callable[[StreamEvent], bool]:
    return lambda event: isinstance(event, kind)


@FORMATS
@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("restart", [True, False])
async def test_a_lost_connection_goes_on_where_it_was(
    server: ServerThread,
    exchange: Exchange,
    ring_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    format_: Any,
    settled: bool,
    restart: bool,
) -> None:
    monkeypatch.setattr(session, "SETTLE_SECONDS", 0.0 if settled else 1e9)
    async with StreamClient(server.url, format=format_, **QUICK) as client:
        await client.subscribe("trades")
        await client.subscribe("orderbook", symbols="BTC-USD", depth="full")
        taken = Taken(client, exchange)
        await taken.until(a(BookSnapshot))
        exchange.trade("BTC-USD")
        exchange.change("BTC-USD", (BID, 10012, 6))
        await taken.version()
        book = client.books["kraken", "BTC-USD"]
        successor: ServerThread | None = None
        if restart:
            await asyncio.to_thread(server.stop)
        else:
            await asyncio.to_thread(server.drop_clients)
        await taken.until(a(Disconnected))
        assert (book.live, book.state, book.reason) == (
            False,
            BookState.STALE,
            Reason.DISCONNECTED,
        )
        with pytest.raises(BookNotLive, match="disconnected"):
            book.bids()
        exchange.trade("BTC-USD")
        exchange.trade("ETH-USD")
        exchange.change("BTC-USD", (ASK, 10111, 0), (ASK, 10112, 4))
        if restart:
            successor = await asyncio.to_thread(ServerThread, ring_prefix, server.port)
        try:
            back = await taken.until(a(Reconnected))
            assert isinstance(back, Reconnected)
            assert back.resumed == {"kraken": "records"}
            exchange.trade("ETH-USD")
            exchange.change("BTC-USD", (BID, 10012, 7))
            await taken.version()
            trades = await taken.have(Trade, 4)
            assert [trade.trade_id for trade in trades] == ["1", "2", "3", "4"]
            assert taken.of(Gap) == []
            snapshots = [event.reason for event in taken.of(BookSnapshot)]
            if settled:
                assert snapshots == [Reason.SUBSCRIBED]
            else:
                again = (await taken.have(BookSnapshot, 2))[1]
                assert again.reason is Reason.REQUESTED
            assert book.live
        finally:
            if successor is not None:
                await client.close()
                await asyncio.to_thread(successor.stop)


@FORMATS
async def test_a_storm_of_losses_leaves_no_trade_out_and_no_book_wrong(
    server: ServerThread, exchange: Exchange, format_: Any
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    trades: list[str] = []
    async with StreamClient(server.url, format=format_, **QUICK) as client:
        await client.subscribe("trades")
        await client.subscribe(["orderbook", "state"], depth="full")
        taken = Taken(client, exchange)
        for _ in range(40):
            for _ in range(rng.randrange(40)):
                symbol = rng.choice(("BTC-USD", "ETH-USD"))
                what = rng.random()
                if what < 0.3:
                    trades.append(exchange.trade(symbol))
                elif what < 0.97:
                    side = rng.choice((BID, ASK))
                    price = 10000 + rng.randrange(20) + (side is ASK) * 50
                    exchange.change(symbol, (side, price, rng.randrange(5)))
                else:
                    exchange.state(symbol, BookState.INVALID, Reason.CHECKSUM)
                    exchange.reset(symbol, {9000: 1}, {}, Reason.RESYNCED)
                    exchange.state(symbol, BookState.LIVE, Reason.RESYNCED)
            if rng.random() < 0.4:
                await asyncio.to_thread(server.drop_clients)
            elif trades:
                await taken.have(Trade, rng.randint(len(taken.of(Trade)), len(trades)))
        for symbol in ("BTC-USD", "ETH-USD"):
            exchange.change(symbol, (BID, 10030, rng.randrange(10, 1000)))
        await taken.have(Trade, len(trades))
        for symbol in ("BTC-USD", "ETH-USD"):
            book = client.books["kraken", symbol]
            while not (book.live and book.version == exchange.versions[symbol]):
                await taken.until(lambda _: True)
        assert [trade.trade_id for trade in taken.of(Trade)] == trades
        assert taken.of(Gap) == []


@FORMATS
async def test_what_the_ring_no_longer_holds_is_a_gap(ring_prefix: str, format_: Any) -> None:
    with (
        Exchange(ring_prefix, size_bytes=1 << 16) as exchange,
        server_thread(ring_prefix) as server,
    ):
        async with StreamClient(server.url, format=format_, **QUICK) as client:
            await client.subscribe(["trades", "orderbook"], depth="full")
            taken = Taken(client, exchange)
            exchange.trade("BTC-USD")
            await taken.until(a(Trade))
            await asyncio.to_thread(server.stop)
            for number in range(2000):
                exchange.trade("BTC-USD")
                exchange.change("BTC-USD", (BID, 100, number + 1))
                if number % 50 == 0:
                    exchange.repeat("BTC-USD")
            successor = await asyncio.to_thread(ServerThread, ring_prefix, server.port)
            try:
                gap = await taken.until(a(Gap))
                assert isinstance(gap, Gap)
                assert (gap.channel, gap.reason) == (Channel.RING, Reason.LAPPED)
                await taken.version()
                back = taken.of(Reconnected) or [await taken.until(a(Reconnected))]
                assert back[0].resumed == {"kraken": "snapshot"}
            finally:
                await client.close()
                await asyncio.to_thread(successor.stop)


@FORMATS
async def test_a_collector_is_replaced_while_the_connection_is_lost(
    server: ServerThread, exchange: Exchange, ring_prefix: str, format_: Any
) -> None:
    async with StreamClient(server.url, format=format_, **QUICK) as client:
        await client.subscribe(["trades", "orderbook"], "kraken", "BTC-USD", depth="full")
        taken = Taken(client, exchange)
        exchange.trade("BTC-USD")
        await taken.have(BookSnapshot, 1)
        await taken.have(Trade, 1)
        await asyncio.to_thread(server.stop)
        await taken.until(a(Disconnected))
        exchange.writer.close()
        with Exchange(ring_prefix, symbols=("ETH-USD", "BTC-USD")) as after:
            after.reset("BTC-USD", {777: 7}, {})
            taken.exchange = after
            successor = await asyncio.to_thread(ServerThread, ring_prefix, server.port)
            try:
                await taken.until(a(BookSnapshot))
                back = await taken.have(Reconnected, 1)
                assert back[0].resumed == {"kraken": "snapshot"}
                gap = (await taken.have(Gap, 1))[0]
                assert (gap.channel, gap.reason) == (Channel.RING, Reason.RESTARTED)
                after.trade("BTC-USD")
                after.change("BTC-USD", (BID, 778, 1))
                await taken.version()
                await taken.have(Trade, 2)
                assert client.books["kraken", "BTC-USD"].epoch == after.epoch
            finally:
                await client.close()
                await asyncio.to_thread(successor.stop)


@FORMATS
async def test_records_of_a_killed_collector_come_before_its_successors(
    ring_prefix: str, format_: Any
) -> None:
    pipe = asyncio.subprocess.PIPE
    collector = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stream_processes", "venue", ring_prefix),
        cwd=ROOT,
        stdin=pipe,
        stdout=pipe,
    )
    assert collector.stdin is not None
    assert collector.stdout is not None
    epoch = int(await collector.stdout.readline())
    server = await asyncio.to_thread(ServerThread, ring_prefix)
    successor = server
    client = StreamClient(server.url, format=format_, **QUICK)
    try:
        await client.open()
        await client.subscribe("orderbook", depth="full")
        seen: list[StreamEvent] = [await anext(client)]
        while not isinstance(seen[-1], BookSnapshot):
            seen.append(await anext(client))
        assert client.books["kraken", "BTC-USD"].epoch == epoch
        await asyncio.to_thread(server.stop)
        collector.stdin.write(b"\n")
        missed = int(await collector.stdout.readline())
        collector.kill()
        await collector.wait()
        with Exchange(ring_prefix) as after:
            after.reset("BTC-USD", {777: 7}, {})
            successor = await asyncio.to_thread(ServerThread, ring_prefix, server.port)
            while client.books["kraken", "BTC-USD"].epoch != after.epoch:
                seen.append(await asyncio.wait_for(anext(client), PATIENCE_SECONDS))
            changes = [event.version for event in seen if isinstance(event, BookDelta)]
            assert changes == [missed]
            reasons = [event.reason for event in seen if isinstance(event, StateChange)]
            assert Reason.RESTARTED in reasons
            assert BookState.INVALID not in [getattr(event, "state", None) for event in seen]
            after.change("BTC-USD", (BID, 778, 1))
            taken = Taken(client, after)
            await taken.version()
    finally:
        await client.close()
        await asyncio.to_thread(successor.stop)
        if collector.returncode is None:
            collector.kill()
        await collector.communicate()
        remove_dead(prefix=ring_prefix)


async def test_views_of_limited_depth_begin_anew(server: ServerThread, exchange: Exchange) -> None:
    async with StreamClient(server.url, **QUICK) as client:
        await client.subscribe("orderbook", symbols="BTC-USD", depth=1)
        await client.subscribe("state", exchanges=["kraken"], symbols="ETH-USD")
        await client.unsubscribe("state", symbols="ETH-USD")
        first = await anext(client)
        while not isinstance(first, BookSnapshot):
            first = await anext(client)
        await asyncio.to_thread(server.drop_clients)
        exchange.change("BTC-USD", (BID, 10012, 6))
        seen: list[Any] = []
        while not (seen and isinstance(seen[-1], BookSnapshot)):
            seen.append(await anext(client))
        assert seen[-1].bids[0].size == 6
        lost = [isinstance(event, Disconnected) for event in seen].index(True)
        assert "ETH-USD" not in [getattr(event, "symbol", None) for event in seen[lost:]]
        assert client.books["kraken", "BTC-USD"].bids() == [(Decimal("100.12"), Decimal("0.0006"))]


async def test_without_a_server_there_is_a_clear_error() -> None:
    with pytest.raises(ConnectionFailed, match=r"ws://127.0.0.1:9/ws: no connection: .*refused|"):
        await StreamClient("ws://127.0.0.1:9/ws").open()
    for url in ("http://127.0.0.1:9/ws", "127.0.0.1"):
        with pytest.raises(ConnectionFailed, match="isn't"):
            await StreamClient(url).open()
    with pytest.raises(ConnectionFailed, match="after 3 attempts") as caught:
        await StreamClient(
            "ws://127.0.0.1:9/ws", wait_for_server=True, max_attempts=3, **QUICK
        ).open()
    assert caught.value.attempts == 3


async def test_it_waits_for_a_server_that_comes_later(ring_prefix: str, exchange: Exchange) -> None:
    with server_thread(ring_prefix) as server:
        url, port = server.url, server.port
    client = StreamClient(url, wait_for_server=True, **QUICK)
    opening = asyncio.create_task(client.open())
    successor = await asyncio.to_thread(ServerThread, ring_prefix, port)
    try:
        await opening
        assert client.connected
        await client.close()
        assert not client.connected
    finally:
        await asyncio.to_thread(successor.stop)


async def test_a_token_is_needed_where_the_server_wants_one(
    ring_prefix: str, exchange: Exchange
) -> None:
    with server_thread(ring_prefix, token="s3cret") as server:
        with pytest.raises(HandshakeRefused) as caught:
            await StreamClient(server.url, token="guess", wait_for_server=True).open()
        assert caught.value.status == 401
        assert server.url in str(caught.value)
        assert "guess" not in str(caught.value)
        async with StreamClient(server.url, token="s3cret") as client:
            assert await client.ping() >= 0
        with pytest.raises(HandshakeRefused) as missing:
            await StreamClient(server.url.replace("/ws", "/wss"), token="s3cret").open()
        assert missing.value.status == 404


async def test_an_encrypted_connection(
    ring_prefix: str, exchange: Exchange, tmp_path: Path
) -> None:
    tls = write_certificates(tmp_path)
    certificate, key = str(tls / "certificate.pem"), str(tls / "key.pem")
    with server_thread(ring_prefix, tls_certificate=certificate, tls_key=key) as server:
        url = f"wss://localhost:{server.port}/ws"
        with pytest.raises(ConnectionFailed, match="certificate"):
            await StreamClient(url).open()
        context = ssl.create_default_context(cafile=tls / "authority.pem")
        async with StreamClient(url, ssl_context=context, format="json") as client:
            await client.subscribe("orderbook", symbols="BTC-USD", depth="full")
            await Taken(client, exchange).until(a(BookSnapshot))


async def test_a_refusal_names_the_problem(server: ServerThread) -> None:
    async with StreamClient(server.url) as client:
        with pytest.raises(RequestError, match="LUNA-USD") as caught:
            await client.subscribe("trades", "kraken", "LUNA-USD")
        assert caught.value.code == "unknown_symbol"
        with pytest.raises(ValueError, match="no channel"):
            await client.subscribe([])
        with pytest.raises(ClientError, match="opened before"):
            await client.open()
    with pytest.raises(ClientClosed, match="isn't open"):
        await StreamClient(server.url).subscribe("trades")
    wrong: list[dict[str, Any]] = [{"format": "xml"}, {"queue_bytes": 0}]
    for options in wrong:
        with pytest.raises(ValueError, match=next(iter(options))):
            StreamClient(server.url, **options)


async def test_best_prices_and_the_book_of_all(server: ServerThread, exchange: Exchange) -> None:
    async with StreamClient(server.url) as client:
        answers = await client.subscribe(
            ["bbo", "orderbook", "trades"], ["kraken", "all"], "BTC-USD", depth="full"
        )
        assert [answer.format for answer in answers] == ["json", "json", "binary", "binary"]
        taken: dict[str, Any] = {}
        while not {"kraken", "all", "ConsolidatedSnapshot", "BookSnapshot"} <= taken.keys():
            event = await anext(client)
            taken[event.exchange if isinstance(event, Bbo) else type(event).__name__] = event
        bbo = taken["all"]
        assert bbo.bid == (Decimal("100.12"), Decimal("0.0005"), ("kraken",))
        assert taken["kraken"].ask.price == Decimal("101.11")
        shared = client.consolidated["BTC-USD"]
        assert isinstance(taken["ConsolidatedSnapshot"], ConsolidatedSnapshot)
        assert shared.sources["kraken"].state is BookState.LIVE
        exchange.change("BTC-USD", (BID, 10012, 0), (BID, 10013, 8), (ASK, 10111, 4))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not isinstance(event, ConsolidatedDelta):
                event = await anext(client)
        assert shared.version == event.version
        assert shared.best_bid == (
            Decimal("100.13"),
            Decimal("0.0008"),
            {"kraken": Decimal("0.0008")},
        )
        assert [level.price for level in shared.bids()] == [Decimal("100.13"), Decimal("100.00")]
        assert [level.size for level in shared.asks(1)] == [Decimal("0.0004")]
        await asyncio.to_thread(server.drop_clients)
        while not isinstance(event, Disconnected):
            event = await anext(client)
        with pytest.raises(BookNotLive, match="all BTC-USD"):
            shared.bids()


async def test_conflated_books_are_right(server: ServerThread, exchange: Exchange) -> None:
    async with StreamClient(server.url) as client:
        await client.subscribe("orderbook", symbols="BTC-USD", depth="full", conflate_ms=20)
        taken = Taken(client, exchange)
        await taken.until(a(BookSnapshot))
        for number in range(500):
            exchange.change("BTC-USD", (BID, 10000 + number % 7, number + 1))
        await taken.version()
        assert len(taken.of(BookDelta)) < 500


@FORMATS
async def test_a_full_queue_stops_the_reading(ring_prefix: str, format_: Any) -> None:
    queue_bytes = 64 * 1024
    with (
        Exchange(ring_prefix, size_bytes=1 << 24) as exchange,
        server_thread(ring_prefix, max_queue_bytes=128 * 1024, behind_seconds=60) as server,
    ):
        async with StreamClient(
            server.url, format=format_, queue_bytes=queue_bytes, **QUICK
        ) as client:
            await client.subscribe("orderbook", depth="full")
            taken = Taken(client, exchange)
            await taken.until(a(BookSnapshot))
            hub = server.call(lambda server: server.hub)
            while client.waiting_bytes < queue_bytes or not sum(
                each.waiting_bytes for each in list(hub.clients)
            ):
                for number in range(20):
                    exchange.change(
                        "BTC-USD",
                        *((BID, 10000 + level, number + level + 1) for level in range(100)),
                    )
                await asyncio.sleep(0)
            assert queue_bytes <= client.waiting_bytes < 6 * queue_bytes
            exchange.reset("BTC-USD", {10000: 1}, {}, Reason.RESYNCED)
            await taken.version()


class FalseServer:
    """Speaks the protocol, and what a test wants besides."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.url = ""
        self.sequence: int | None = 0
        """Where its ring is, if it says so."""
        self.mute: set[str] = set()
        """Types of requests that aren't answered."""

    async def __call__(self, socket: ServerConnection) -> None:
        await self.sockets.put(socket)
        try:
            async for text in socket:
                request = json.loads(text)
                await self.requests.put(request)
                if request["type"] in self.mute:
                    continue
                if request["type"] == "subscribe":
                    await self.answer(socket, request)
                elif request["type"] == "ping":
                    await socket.send('{"type":"pong"}')
        except websockets.ConnectionClosed:
            return

    async def answer(self, socket: ServerConnection, request: dict[str, Any]) -> None:
        resumed = {"resumed": dict.fromkeys(request.get("resume", ()), "records")}
        answer = {
            "type": "subscribed",
            "channels": request["channels"],
            "exchanges": ["kraken"],
            "symbols": ["BTC-USD"],
            "format": "json",
            "depth": "full",
            "epochs": {"kraken": 7},
            "sequences": {} if self.sequence is None else {"kraken": self.sequence},
            "waiting": [],
            **resumed,
        }
        await socket.send(json.dumps(answer))

    async def asked(self, kind: str) -> dict[str, Any]:
        """The next request of a type."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (request := await self.requests.get())["type"] != kind:
                pass
            return request


@asynccontextmanager
async def false_server() -> AsyncIterator[FalseServer]:
    false = FalseServer()
    async with serve(false, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        false.url = f"ws://127.0.0.1:{port}/ws"
        yield false


def book_event(kind: str, **fields: Any) -> str:
    head = {"exchange": "kraken", "symbol": "BTC-USD", "timestamp_ns": None, "received_ns": 1}
    return json.dumps({"type": kind, "data": {**head, "sequence": 1, **fields}})


SNAPSHOT = book_event(
    "orderbook_snapshot", version=7, epoch=7, reason="subscribed", bids=[[100.5, 1]], asks=[]
)


def delta(version: int, prev_version: int, price: float = 100.5, volume: float = 2) -> str:
    change = {"side": "bid", "price": price, "volume": volume, "action": "update"}
    return book_event(
        "orderbook_delta", version=version, prev_version=prev_version, changes=[change]
    )


@pytest.mark.parametrize("wrong", [delta(9, 8), delta(8, 7, volume=1)])
async def test_a_wrong_book_is_hidden_and_asked_for(wrong: str) -> None:
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        await client.subscribe("orderbook", depth="full")
        socket = await false.sockets.get()
        await socket.send(SNAPSHOT)
        assert isinstance(await anext(client), BookSnapshot)
        book = client.books["kraken", "BTC-USD"]
        assert client.books.live == [book]
        await socket.send(wrong)
        state = await anext(client)
        assert isinstance(state, StateChange)
        assert (state.state, state.reason) == (BookState.INVALID, Reason.GAP)
        assert client.books.live == []
        asked = await false.asked("snapshot")
        assert (asked["exchanges"], asked["symbols"]) == (["kraken"], ["BTC-USD"])
        await socket.send(delta(10, 9))
        await socket.send(SNAPSHOT)
        assert isinstance(await anext(client), BookSnapshot), "deltas of a wrong book are dropped"
        assert book.live
        await socket.send(delta(8, 7))
        assert isinstance(await anext(client), BookDelta)
        assert book.best_bid == (Decimal("100.5"), Decimal(2))


async def test_what_is_repeated_after_a_loss_is_dropped() -> None:
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        await client.subscribe(["trades", "orderbook"], depth="full")
        socket = await false.sockets.get()
        trade = {"price": 1, "volume": 1, "side": "buy", "trade_id": "1"}
        await socket.send(SNAPSHOT)
        await socket.send(book_event("trade", **{**trade, "sequence": 5}))
        await socket.send(delta(8, 7))
        for kind in (BookSnapshot, Trade, BookDelta):
            assert isinstance(await anext(client), kind)
        await socket.close(1001)
        assert isinstance(await anext(client), Disconnected)
        socket = await false.sockets.get()
        await false.asked("subscribe")
        assert (await false.asked("subscribe"))["resume"]
        await socket.send(delta(8, 7))
        await socket.send(book_event("trade", **{**trade, "sequence": 5}))
        await socket.send(book_event("trade", **{**trade, "sequence": 6}))
        await socket.send(delta(9, 8, volume=3))
        kinds = [type(await anext(client)) for _ in range(3)]
        assert sorted(kind.__name__ for kind in kinds) == ["BookDelta", "Reconnected", "Trade"]
        assert client.books["kraken", "BTC-USD"].version == 9


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("no JSON", "malformed"),
        ('{"data":{}}', "type"),
        (book_event("trade", price=1, volume=1, side="up", trade_id="1"), "side"),
        (book_event("trade", price="x", volume=1, side="buy", trade_id="1"), "decimal number"),
        (book_event("state", state="rotten", reason="gap"), "ROTTEN"),
        (b"\x00" * 40, "record"),
        (b"", "record"),
    ],
)
async def test_what_is_no_message_ends_it(message: str | bytes, problem: str) -> None:
    async with false_server() as false, StreamClient(false.url, **QUICK) as client:
        await client.subscribe("trades", format="json")
        socket = await false.sockets.get()
        await socket.send(book_event("weather", sun=True))
        await socket.send(book_event("trade", price=1.5, volume=1, side="buy", trade_id="1"))
        assert isinstance(await anext(client), Trade), "what isn't known yet is passed over"
        await socket.send(message)
        with pytest.raises(ProtocolError, match=problem):
            await anext(client)


async def test_a_server_that_is_mute_is_given_up() -> None:
    silence = asyncio.Event()

    async def nothing(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await silence.wait()

    async with serve(nothing, "127.0.0.1", 0, ping_interval=None, close_timeout=0.1) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}/"
        async with StreamClient(url, ping_seconds=0.05, pong_seconds=0.05, **QUICK) as client:
            event = await anext(client)
            assert isinstance(event, Disconnected)
            assert "nor an answer to a ping" in event.reason
            silence.set()


async def test_an_answer_that_does_not_come_is_an_error() -> None:
    async with false_server() as false:
        false.mute.add("subscribe")
        async with StreamClient(false.url, answer_seconds=0.05) as client:
            with pytest.raises(AnswerTimeout, match="no answer to 'subscribe' within"):
                await client.subscribe("trades")


async def test_a_granted_subscription_that_is_refused_later_is_raised() -> None:
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        await client.subscribe("trades")
        socket = await false.sockets.get()

        async def refuse(socket: ServerConnection, request: dict[str, Any]) -> None:
            await socket.send('{"type":"error","code":"unknown_symbol","message":"gone"}')

        false.answer = refuse  # type: ignore[method-assign]
        await socket.close(1001)
        assert isinstance(await anext(client), Disconnected)
        with pytest.raises(RequestError, match="gone"):
            await anext(client)
        with pytest.raises(RequestError, match="gone"):
            await client.subscribe("trades")


async def test_where_nothing_can_be_resumed_the_client_tells_a_gap() -> None:
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        false.sequence = None
        await client.subscribe("trades")
        await (await false.sockets.get()).close(1001)
        assert isinstance(await anext(client), Disconnected)
        gap = await anext(client)
        assert isinstance(gap, Gap)
        assert (gap.exchange, gap.symbol, gap.count) == ("kraken", None, None)
        assert (gap.channel, gap.reason) == (Channel.RING, Reason.DISCONNECTED)
        assert isinstance(await anext(client), Reconnected)


async def test_requests_too_many_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "TOO_MANY_SECONDS", 0.01)
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        await client.subscribe("trades")
        socket = await false.sockets.get()
        answer, refused = false.answer, asyncio.Event()

        async def refuse_once(socket: ServerConnection, request: dict[str, Any]) -> None:
            if refused.is_set():
                await answer(socket, request)
                return
            refused.set()
            await socket.send('{"type":"error","code":"too_many_requests","message":"slowly"}')

        false.answer = refuse_once  # type: ignore[method-assign]
        await socket.close(1001)
        assert isinstance(await anext(client), Disconnected)
        assert isinstance(await anext(client), Reconnected)
        assert refused.is_set()


async def test_only_one_iterates_at_a_time(server: ServerThread) -> None:
    async with StreamClient(server.url) as client:
        first = asyncio.ensure_future(anext(client))
        await asyncio.sleep(0)
        with pytest.raises(ClientError, match="iterated over already"):
            await anext(client)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        following = asyncio.create_task(client.follow())
        await asyncio.sleep(0)
    await following


async def test_it_collects(server: ServerThread, exchange: Exchange) -> None:
    async with StreamClient(server.url) as client:
        await client.subscribe("trades")
        for number in range(5):
            exchange.trade("BTC-USD", 100 + number, 5)
        collected = await client.collect(5, limit=3)
        assert (len(collected), collected.dropped) == (3, 2)
        assert (await client.collect(seconds=0.01)).trades().columns["price"] == []
        exchange.trade("BTC-USD")
        assert len(await client.collect(until=lambda event: isinstance(event, Trade))) == 1
        with pytest.raises(ValueError, match="collect what"):
            await client.collect()

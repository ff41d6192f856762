"""For tests of the client library: a server in a thread, and every client behind one interface."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Protocol, TypeVar

import uvloop

from alphapulse.client import (
    BlockingLocalClient,
    BlockingStreamClient,
    Books,
    LocalBook,
    LocalClient,
    StreamClient,
    StreamEvent,
)
from alphapulse.client.base import Client
from alphapulse.config import load
from alphapulse.model import BookDelta, BookSnapshot, BookState, StateChange
from alphapulse.stream.server import StreamServer
from tests.streaming import PRICE_PLACES, SIZE_PLACES, Exchange

PATIENCE_SECONDS = 60.0
"""After which a test that waits for an event fails."""

T = TypeVar("T")


class ServerThread:
    """A stream server that tests start, stop and start again on its port.

    Parameters
    ----------
    prefix : of the rings
    port : to listen on; 0 for any
    overrides : settings of section ``stream``
    """

    def __init__(self, prefix: str, port: int = 0, **overrides: Any) -> None:
        self._settings = load(
            environ={},
            overrides={
                "ring.prefix": prefix,
                "stream.port": port,
                **{f"stream.{name}": value for name, value in overrides.items()},
            },
        )
        self.port = 0
        self.server: StreamServer | None = None
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stream server")
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS)
        if self._error is not None:
            raise self._error

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def stop(self) -> None:
        """End the server; its clients are told."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def call(self, function: Callable[[StreamServer], T]) -> T:
        """Call something in the server's thread."""
        assert self.server is not None
        assert self._loop is not None
        server = self.server

        async def called() -> T:
            return function(server)

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(PATIENCE_SECONDS)

    def catch_up(self) -> None:
        """Wait until all that was written to the rings was taken up."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self.call(lambda server: any(each.lag for each in server._pump.readers.values())):
            assert time.monotonic() < until, "the server doesn't keep up with the rings"

    def drop_clients(self) -> None:
        """Cut all connections without a word."""

        def drop(server: StreamServer) -> None:
            for connection in list(server._connections):
                connection.abort()

        self.call(drop)

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.server = StreamServer(self._settings)

        def ready(port: int) -> None:
            self.port = port
            self._ready.set()

        await self.server.run(self._stop, ready)


@contextmanager
def server_thread(prefix: str, **overrides: Any) -> Iterator[ServerThread]:
    """A server that is stopped in the end."""
    server = ServerThread(prefix, **overrides)
    try:
        yield server
    finally:
        server.stop()


class Driver(Protocol):
    """A client as the tests use it: nothing is awaited."""

    books: Books[LocalBook]

    def subscribe(self, *names: Any, **options: Any) -> Any: ...
    def unsubscribe(self, *names: Any, **options: Any) -> None: ...
    def snapshot(self, *names: Any, **options: Any) -> None: ...
    def next(self) -> StreamEvent: ...
    def close(self) -> None: ...


class AsyncDriver:
    """Runs an asyncio client, only as long as something is asked of it."""

    def __init__(self, make: Callable[[], Client[Any]]) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.client = self.run(_made(make))
        self.books = self.client.books

    def run(self, awaitable: Awaitable[T]) -> T:
        """The result of something awaitable."""

        async def patiently() -> T:
            return await asyncio.wait_for(awaitable, PATIENCE_SECONDS)

        return self._runner.run(patiently())

    def subscribe(self, *names: Any, **options: Any) -> Any:
        return self.run(self.client.subscribe(*names, **options))

    def unsubscribe(self, *names: Any, **options: Any) -> None:
        self.run(self.client.unsubscribe(*names, **options))

    def snapshot(self, *names: Any, **options: Any) -> None:
        self.run(self.client.snapshot(*names, **options))

    def next(self) -> StreamEvent:
        return self.run(self.client.__anext__())

    def close(self) -> None:
        self.run(self.client.close())
        self._runner.close()


async def _made(make: Callable[[], Client[Any]]) -> Client[Any]:
    return await make().open()


class BlockingDriver:
    """Runs a blocking client."""

    def __init__(self, client: BlockingStreamClient | BlockingLocalClient) -> None:
        self.client = client.open()
        self.books = client.books

    def subscribe(self, *names: Any, **options: Any) -> Any:
        return self.client.subscribe(*names, **options)

    def unsubscribe(self, *names: Any, **options: Any) -> None:
        self.client.unsubscribe(*names, **options)

    def snapshot(self, *names: Any, **options: Any) -> None:
        self.client.snapshot(*names, **options)

    def next(self) -> StreamEvent:
        event = self.client.get(PATIENCE_SECONDS)
        assert event is not None, "no event"
        return event

    def close(self) -> None:
        self.client.close()


KINDS = ("json", "binary", "blocking", "local", "blocking local")


@contextmanager
def driven(kind: str, prefix: str) -> Iterator[Driver]:
    """A client of one of `KINDS`, with a server where it needs one."""
    driver: Driver
    if "local" in kind:
        if kind == "local":
            driver = AsyncDriver(lambda: LocalClient(prefix=prefix))
        else:
            driver = BlockingDriver(BlockingLocalClient(prefix=prefix))
        try:
            yield driver
        finally:
            driver.close()
        return
    with server_thread(prefix) as server:
        if kind == "blocking":
            driver = BlockingDriver(BlockingStreamClient(server.url))
        else:
            wanted: Any = kind
            driver = AsyncDriver(lambda: StreamClient(server.url, format=wanted))
        try:
            yield driver
        finally:
            driver.close()


class Checker:
    """Takes a client's events and compares its books with the exchange's at each of them.

    Parameters
    ----------
    driver : the client
    exchange : whose books are right
    depth : levels a side that were subscribed to; None for all
    """

    def __init__(self, driver: Driver, *exchanges: Exchange, depth: int | None = None) -> None:
        self.driver = driver
        self.exchanges = {(each.exchange, each.epoch): each for each in exchanges}
        self.depth = depth
        self.events: list[StreamEvent] = []

    def take(self) -> StreamEvent:
        """The next event."""
        event = self.driver.next()
        self.events.append(event)
        if isinstance(event, BookSnapshot | BookDelta):
            self._compare(event)
        elif isinstance(event, StateChange) and event.state is not BookState.LIVE:
            book = self.driver.books.get((event.exchange, event.symbol))
            assert book is None or not book.live
        return event

    def until(self, wanted: Callable[[StreamEvent], bool]) -> StreamEvent:
        """The next event that fits."""
        while not wanted(event := self.take()):
            pass
        return event

    def version(self, symbol: str, version: int) -> None:
        """Wait for a book's version."""
        self.until(
            lambda event: (
                isinstance(event, BookSnapshot | BookDelta)
                and (event.symbol, event.version) == (symbol, version)
            )
        )

    def kinds(self) -> list[str]:
        """Names of the events so far."""
        return [type(event).__name__ for event in self.events]

    def _compare(self, event: BookSnapshot | BookDelta) -> None:
        book = self.driver.books[event.exchange, event.symbol]
        assert book.live
        assert book.version == event.version
        exchange = self.exchanges[event.exchange, book.epoch]
        bids, asks = exchange.history[book.epoch, event.symbol, event.version]
        wanted_bids = sorted(bids.items(), reverse=True)[: self.depth]
        wanted_asks = sorted(asks.items())[: self.depth]
        assert [tuple(level) for level in book.bids()] == exact(wanted_bids)
        assert [tuple(level) for level in book.asks()] == exact(wanted_asks)
        assert book.best_bid == (book.bids(1)[0] if wanted_bids else None)
        assert book.best_ask == (book.asks(1)[0] if wanted_asks else None)


def exact(levels: list[tuple[int, int]]) -> list[tuple[Decimal, Decimal]]:
    """Levels as a client shows them."""
    return [
        (Decimal(price).scaleb(-PRICE_PLACES), Decimal(size).scaleb(-SIZE_PLACES))
        for price, size in levels
    ]

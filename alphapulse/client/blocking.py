"""The clients for scripts: no asyncio, ``for event in client``; Ctrl-C ends the waiting."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import uvloop

from alphapulse.client.base import Client
from alphapulse.client.books import Books, LocalBook
from alphapulse.client.collected import DEFAULT_LIMIT, Collected
from alphapulse.client.consolidated import ConsolidatedBook
from alphapulse.client.events import StreamEvent
from alphapulse.client.local import LocalClient
from alphapulse.client.messages import Format, Subscribed
from alphapulse.client.stream import DEFAULT_URL, StreamClient
from alphapulse.client.subscribing import Names
from alphapulse.errors import ClientClosed, ClientError
from alphapulse.shm import DEFAULT_PREFIX

T = TypeVar("T")


class BlockingClient:
    """A client whose connection lives in a thread of its own; events are made in the caller's.

    Not for use by several threads at a time. Books change only while an event is being taken.

    Parameters
    ----------
    client : the client that runs in the thread; not opened yet
    """

    def __init__(self, client: Client[Any]) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._taking: concurrent.futures.Future[Sequence[Any]] | None = None

    @property
    def books(self) -> Books[LocalBook]:
        """The books that were told of, by (exchange, symbol), live or not."""
        return self._client.books

    @property
    def consolidated(self) -> Mapping[str, ConsolidatedBook]:
        """The books across venues (exchange ``all``), by symbol."""
        return self._client.consolidated

    def open(self) -> Self:
        """Open the client; ``with`` does it. Raises as the client in the thread does."""
        if self._thread is not None:
            raise ClientError("the client was opened before; make a new one")
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(
            target=_run_loop, args=(self._loop,), name="alphapulse client", daemon=True
        )
        self._thread.start()
        try:
            self._run(self._client.open())
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Close the client and end its thread. May be called again."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(self._client.close(), loop).result()
            if self._taking is not None:
                # It ends by itself; what it says about that is of no interest.
                concurrent.futures.wait((self._taking,))
                self._taking.exception()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()

    def __enter__(self) -> Self:
        return self if self._loop is not None else self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def subscribe(
        self,
        channels: str | Iterable[str],
        exchanges: Names = None,
        symbols: Names = None,
        *,
        depth: int | Literal["full"] | None = None,
        conflate_ms: int | None = None,
        format: Format | None = None,  # noqa: A002  the protocol's own word
    ) -> list[Subscribed]:
        """Subscribe, as `StreamClient.subscribe`."""
        return self._run(
            self._client.subscribe(
                channels,
                exchanges,
                symbols,
                depth=depth,
                conflate_ms=conflate_ms,
                format=format,
            )
        )

    def unsubscribe(
        self,
        channels: str | Iterable[str] | None = None,
        exchanges: Names = None,
        symbols: Names = None,
    ) -> None:
        """Take subscriptions back, as `StreamClient.unsubscribe`."""
        self._run(self._client.unsubscribe(channels, exchanges, symbols))

    def snapshot(self, exchanges: Names = None, symbols: Names = None) -> None:
        """Have subscribed books sent once more, with reason ``requested``."""
        self._run(self._client.snapshot(exchanges, symbols))

    def __iter__(self) -> Iterator[StreamEvent]:
        return self

    def __next__(self) -> StreamEvent:
        event = self.get()
        assert event is not None
        return event

    def get(self, timeout: float | None = None) -> StreamEvent | None:
        """The next event; None where there is none within `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            event = self._client.next_waiting()
            if event is not None:
                return event
            loop = self._running()
            if self._taking is None:
                self._taking = asyncio.run_coroutine_threadsafe(self._take(), loop)
            left = None if until is None else max(until - time.monotonic(), 0)
            # Whatever interrupts the waiting, what arrives is still there the next time.
            try:
                entries = self._taking.result(left)
            except concurrent.futures.TimeoutError:
                if not self._taking.done():
                    return None
                raise
            finally:
                if self._taking.done():
                    self._taking = None
            self._client.hold(entries)

    def collect(
        self,
        count: int | None = None,
        *,
        seconds: float | None = None,
        until: Callable[[StreamEvent], bool] | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> Collected:
        """Take events and keep them: for so many events, or seconds, or until one that fits."""
        if count is None and seconds is None and until is None:
            raise ValueError("collect what? Give count, seconds or until")
        collected = Collected(limit)
        end = None if seconds is None else time.monotonic() + seconds
        while count is None or len(collected) + collected.dropped < count:
            event = self.get(None if end is None else max(end - time.monotonic(), 0))
            if event is None:
                break
            collected.append(event)
            if until is not None and until(event):
                break
        return collected

    async def _take(self) -> Sequence[Any]:
        return await self._client.take()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise ClientClosed("the client isn't open; use `with` or `client.open()`")
        return self._loop

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            loop = self._running()
        except ClientClosed:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class BlockingStreamClient(BlockingClient):
    """A `StreamClient` for scripts.

        with BlockingStreamClient("ws://127.0.0.1:8765/ws") as client:
            client.subscribe(["trades"], symbols=["BTC-USD"])
            for event in client:
                ...

    Parameters
    ----------
    url, options : as `StreamClient` takes them
    """

    def __init__(self, url: str = DEFAULT_URL, **options: Any) -> None:
        self._stream = StreamClient(url, **options)
        super().__init__(self._stream)

    @property
    def connected(self) -> bool:
        """Whether there is a connection with all subscriptions."""
        return self._stream.connected

    def ping(self) -> float:
        """Seconds until the server has answered."""
        return self._run(self._stream.ping())


class BlockingLocalClient(BlockingClient):
    """A `LocalClient` for scripts.

    Parameters
    ----------
    venues, prefix, options : as `LocalClient` takes them
    """

    def __init__(
        self,
        venues: str | Iterable[str] | None = None,
        *,
        prefix: str = DEFAULT_PREFIX,
        **options: Any,
    ) -> None:
        super().__init__(LocalClient(venues, prefix=prefix, **options))


def connect(
    url: str = DEFAULT_URL,
    channels: str | Iterable[str] = ("trades", "orderbook", "state"),
    exchanges: Names = None,
    symbols: Names = None,
    *,
    depth: int | Literal["full"] | None = None,
    conflate_ms: int | None = None,
    **options: Any,
) -> BlockingStreamClient:
    """A `BlockingStreamClient`, connected and subscribed: ``for event in connect(url): ...``.

    Parameters
    ----------
    url, options : as `StreamClient` takes them
    channels, exchanges, symbols, depth, conflate_ms : as `StreamClient.subscribe` takes them
    """
    client = BlockingStreamClient(url, **options).open()
    try:
        client.subscribe(channels, exchanges, symbols, depth=depth, conflate_ms=conflate_ms)
    except BaseException:
        client.close()
        raise
    return client


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

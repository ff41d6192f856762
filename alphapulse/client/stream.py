"""`StreamClient`: a stream server's events and books, within asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Literal, Self

from alphapulse.client.books import Books, LocalBook
from alphapulse.client.consolidated import ConsolidatedBook
from alphapulse.client.events import StreamEvent
from alphapulse.client.feed import Entry, Feed
from alphapulse.client.inbox import Inbox
from alphapulse.client.link import LinkOptions
from alphapulse.client.messages import Ping, SendSnapshot, Subscribed, Unsubscribe
from alphapulse.client.session import Retry, Session
from alphapulse.client.subscribing import Names, channel_names, subscriptions, symbol_names
from alphapulse.errors import ClientClosed, ClientError

DEFAULT_URL = "ws://127.0.0.1:8765/ws"
EVENTS_IN_A_ROW = 256
"""So many events are given before others of the event loop have their turn."""


class StreamClient:
    """A connection to ``alphapulse-stream`` that renews itself.

        async with StreamClient("ws://127.0.0.1:8765/ws") as client:
            await client.subscribe(["trades", "orderbook"], symbols=["BTC-USD"])
            async for event in client:
                ...

    Iterating gives events (`events.StreamEvent`) without end; `books` are as of the event that was
    given last. A connection that is lost is renewed, with all subscriptions, from the last record
    on; `Disconnected` and `Reconnected` are events, and what was missed is a `Gap`. Books aren't
    live in between.

    What isn't taken waits; when `queue_bytes` wait, the socket isn't read until half of it has been
    taken, and the server conflates.

    Parameters
    ----------
    url : of the server's WebSocket
    token : where the server wants one
    format : ``"binary"`` (the ring's records; the default depth is ``"full"``) or ``"json"``
    ssl_context : for ``wss``, other than Python's default
    wait_for_server : go on trying where there is no server on opening, instead of an error
    connect_seconds, answer_seconds : how long to wait for a connection, and for a request's answer
    retry_seconds, max_retry_seconds : means of the first and of the longest pause between attempts
    max_attempts : attempts in a row before `ConnectionFailed` is raised; None for no limit
    ping_seconds, pong_seconds : silence after which the server is probed, and its time to answer
    queue_bytes : see above
    max_message_bytes : a longer message ends the connection
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        format: Literal["binary", "json"] = "binary",  # noqa: A002  the protocol's own word
        ssl_context: ssl.SSLContext | None = None,
        wait_for_server: bool = False,
        connect_seconds: float = 10.0,
        answer_seconds: float = 10.0,
        retry_seconds: float = 0.25,
        max_retry_seconds: float = 15.0,
        max_attempts: int | None = None,
        ping_seconds: float = 10.0,
        pong_seconds: float = 10.0,
        queue_bytes: int = 16 << 20,
        max_message_bytes: int = 256 << 20,
    ) -> None:
        if format not in ("binary", "json"):
            raise ValueError(f"format {format!r}: 'binary' or 'json'")
        if queue_bytes <= 0:
            raise ValueError(f"queue_bytes {queue_bytes}: a positive number")
        self.url = url
        self.format: Literal["binary", "json"] = format
        self._wait_for_server = wait_for_server
        self._feed = Feed()
        self._inbox = Inbox(queue_bytes)
        self._session = Session(
            LinkOptions(
                url=url,
                token=token,
                ssl_context=ssl_context,
                connect_seconds=connect_seconds,
                ping_seconds=ping_seconds,
                pong_seconds=pong_seconds,
                max_message_bytes=max_message_bytes,
            ),
            Retry(retry_seconds, max_retry_seconds, RESET_SECONDS, max_attempts),
            self._inbox,
            answer_seconds,
        )
        self._entries: deque[Entry] = deque()
        self._events: deque[StreamEvent] = deque()
        self._given = 0
        self._taking = False
        self._opened = False

    @property
    def books(self) -> Books[LocalBook]:
        """The books that were told of, by (exchange, symbol), live or not."""
        return self._feed.books

    @property
    def consolidated(self) -> Mapping[str, ConsolidatedBook]:
        """The books across venues (exchange ``all``), by symbol."""
        return self._feed.consolidated

    @property
    def connected(self) -> bool:
        """Whether there is a connection with all subscriptions, whatever was taken of it."""
        return self._session.connected

    @property
    def waiting_bytes(self) -> int:
        """How much has arrived and wasn't taken yet."""
        return self._inbox.waiting_bytes

    async def open(self) -> Self:
        """Connect; ``async with`` does it.

        Raises
        ------
        HandshakeRefused
            the server refuses: a wrong token, too many clients, ...
        ConnectionFailed
            there is no such server
        """
        if self._opened:
            raise ClientError("the client was opened before; make a new one")
        self._opened = True
        await self._session.open(wait=self._wait_for_server)
        return self

    async def close(self) -> None:
        """Take leave of the server. May be called again."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def subscribe(
        self,
        channels: str | Iterable[str],
        exchanges: Names = None,
        symbols: Names = None,
        *,
        depth: int | Literal["full"] | None = None,
        conflate_ms: int | None = None,
        format: Literal["binary", "json"] | None = None,  # noqa: A002
    ) -> list[Subscribed]:
        """Subscribe, until `unsubscribe`, on this connection and all later ones.

        Parameters
        ----------
        channels : ``trades``, ``orderbook``, ``state``, ``bbo``, ``arbitrage``: one or several
        exchanges, symbols : one or several; None for all, those included that appear later. The
            exchange ``all`` is the consolidated book
        depth : levels a side, or ``"full"``; None for the server's default
        conflate_ms : books at most so often
        format : another than the client's. What is served as JSON only is asked for as JSON

        Returns
        -------
        list of Subscribed
            the server's answers, more than one where a part is served in another format

        Raises
        ------
        RequestError
            the server refuses; its ``code`` says why
        AnswerTimeout
            it doesn't answer
        """
        requests = subscriptions(
            channels,
            exchanges,
            symbols,
            depth=depth,
            conflate_ms=conflate_ms,
            default_format=self.format,
            wanted_format=format,
        )
        self._check_opened()
        answers = []
        for request in requests:
            answer = await self._session.subscribe(request)
            assert isinstance(answer, Subscribed)
            answers.append(answer)
        return answers

    async def unsubscribe(
        self,
        channels: str | Iterable[str] | None = None,
        exchanges: Names = None,
        symbols: Names = None,
    ) -> None:
        """Take subscriptions back, or a part of them; None for all. Raises as `subscribe`."""
        self._check_opened()
        await self._session.subscribe(
            Unsubscribe(
                channels=None if channels is None else channel_names(channels),
                exchanges=symbol_names(exchanges),
                symbols=symbol_names(symbols),
            )
        )

    async def snapshot(self, exchanges: Names = None, symbols: Names = None) -> None:
        """Have subscribed books sent once more, with reason ``requested``."""
        self._check_opened()
        await self._session.send_again(
            SendSnapshot(exchanges=symbol_names(exchanges), symbols=symbol_names(symbols))
        )

    async def ping(self) -> float:
        """Seconds until the server has answered."""
        self._check_opened()
        begun = time.perf_counter()
        await self._session.ask(Ping())
        return time.perf_counter() - begun

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._events:
            # What follows needs no waiting, but the connection has to be read now and then.
            self._given += 1
            if self._given % EVENTS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            return self._events.popleft()
        return await self._next()

    async def _next(self) -> StreamEvent:
        self._check_opened()
        if self._taking:
            raise ClientError("the client is being iterated over already")
        self._taking = True
        try:
            while True:
                event = self._decode()
                if event is not None:
                    return event
                self._entries.extend(await self._inbox.take())
        finally:
            self._taking = False

    def _decode(self) -> StreamEvent | None:
        """The next event of what was taken; others of the same message follow."""
        while self._entries:
            events = self._feed.take(self._entries.popleft())
            if self._feed.wanted:
                self._session.want(self._feed.take_wanted())
            if events:
                self._events.extend(events[1:])
                return events[0]
        return None

    async def follow(self) -> None:
        """Take events and drop them, for the sake of the books, until cancelled or closed."""
        try:
            async for _ in self:
                pass
        except ClientClosed:
            return

    def _check_opened(self) -> None:
        if not self._opened:
            raise ClientClosed("the client isn't open; use `async with` or `await client.open()`")


RESET_SECONDS = 10.0
"""A connection that has brought data for so long makes the next pause the first one again."""

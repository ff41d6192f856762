"""`StreamClient`: a stream server's events and books, within asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from typing import Literal

from alphapulse.client.base import Client
from alphapulse.client.events import StreamEvent
from alphapulse.client.feed import Entry, Feed
from alphapulse.client.inbox import Inbox
from alphapulse.client.link import LinkOptions
from alphapulse.client.messages import Format, Ping, SendSnapshot, Subscribed, Unsubscribe
from alphapulse.client.session import Retry, Session
from alphapulse.client.subscribing import Names, channel_names, subscriptions, symbol_names

DEFAULT_URL = "ws://127.0.0.1:8765/ws"

RESET_SECONDS = 10.0
"""A connection that has brought data for so long makes the next pause the first one again."""


class StreamClient(Client[Entry]):
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
        format: Format = "binary",  # noqa: A002  the protocol's own word
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
        self.format: Format = format
        self._wait_for_server = wait_for_server
        self._feed = Feed()
        super().__init__(self._feed)
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
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection with all subscriptions, whatever was taken of it."""
        return self._session.connected

    @property
    def waiting_bytes(self) -> int:
        """How much has arrived and wasn't taken yet."""
        return self._inbox.waiting_bytes

    async def _open(self) -> None:
        """Connect.

        Raises
        ------
        HandshakeRefused
            the server refuses: a wrong token, too many clients, ...
        ConnectionFailed
            there is no such server
        """
        self._loop = asyncio.get_running_loop()
        await self._session.open(wait=self._wait_for_server)

    async def close(self) -> None:
        """Take leave of the server. May be called again."""
        await self._session.close()

    async def subscribe(
        self,
        channels: str | Iterable[str],
        exchanges: Names = None,
        symbols: Names = None,
        *,
        depth: int | Literal["full"] | None = None,
        conflate_ms: int | None = None,
        format: Format | None = None,  # noqa: A002
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

    async def take(self) -> list[Entry]:
        """What arrived next; waits for it.

        Raises
        ------
        ConnectionFailed, RequestError, ProtocolError
            the connection was lost for good, once all was taken that came before
        ClientClosed
            the client was closed
        """
        return await self._inbox.take()

    def decode(self, entry: Entry) -> list[StreamEvent]:
        """Events of what was taken; asks for the books that it shows to be wrong."""
        events = self._feed.take(entry)
        if self._feed.wanted:
            self._want(self._feed.take_wanted())
        return events

    def _want(self, books: list[tuple[str, str]]) -> None:
        # Whoever iterates may do so in another thread than the connection's.
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._session.want, books)

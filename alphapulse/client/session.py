"""Keeps a client connected and subscribed; what arrives goes to its inbox. No meaning of events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from alphapulse.backoff import Backoff
from alphapulse.client.events import OVERALL, Disconnected, Reconnected
from alphapulse.client.feed import Kind
from alphapulse.client.inbox import Inbox
from alphapulse.client.link import Link, LinkOptions, Loss
from alphapulse.client.messages import (
    ANSWERS,
    EVERYTHING,
    FULL,
    RECORDS,
    Answer,
    Ping,
    Request,
    SendSnapshot,
    Subscribe,
    Subscribed,
    Unsubscribe,
    decode_answer,
    decode_head,
    encode,
)
from alphapulse.client.positions import Positions
from alphapulse.client.requests import LinkLost, Requests
from alphapulse.client.wishes import Wishes
from alphapulse.clock import wall_ns
from alphapulse.errors import (
    AnswerTimeout,
    ClientClosed,
    ConnectionFailed,
    HandshakeRefused,
    ProtocolError,
    RequestError,
)
from alphapulse.log import get_logger
from alphapulse.model import Channel, Gap, Reason, RecordFlag

log = get_logger(__name__)

SETTLE_SECONDS = 10.0
"""A connection that ends sooner after subscribing, or that wasn't always read, may have been owed
snapshots by the server: its books are asked for again in any case."""

LOOK_SECONDS = 1.0
"""How often to look whether data flows."""

TOO_MANY_SECONDS = 1.0
"""The pause after the server has refused a request as one too many."""

_PERMANENT = frozenset({400, 401, 403, 404})
"""Answers to a handshake that another attempt won't change."""
_RESUMABLE = frozenset({"trades", "orderbook", "state"})
_TOO_MANY = "too_many_requests"
_BEHIND = 1008
"""The server's close code for a client that didn't keep up."""


class Retry(NamedTuple):
    """When to connect again; times in seconds, means of random pauses."""

    first_seconds: float
    max_seconds: float
    reset_seconds: float
    """How long data has to flow until the next pause is the first one again."""
    max_attempts: int | None
    """Attempts in a row before the client gives up; None for no limit."""


class Session:
    """A client's connections, one after the other.

    Parameters
    ----------
    link : how to connect
    retry : when to connect again
    inbox : gets all that arrives
    answer_seconds : how long to wait for an answer
    """

    def __init__(
        self, link: LinkOptions, retry: Retry, inbox: Inbox, answer_seconds: float
    ) -> None:
        self._options = link
        self._retry = retry
        self._inbox = inbox
        self._answer_seconds = answer_seconds
        self._backoff = Backoff(retry.first_seconds, retry.max_seconds, retry.reset_seconds)
        self._positions = Positions()
        self._wishes = Wishes()
        self._requests = Requests()
        self._link: Link | None = None
        self._online = asyncio.Event()
        self._asking = asyncio.Lock()
        self._settled_at = 0.0
        self._messages = 0
        self._wanted: dict[SendSnapshot, None] = {}
        self._wants = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._error: BaseException | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection with all subscriptions."""
        return self._online.is_set() and not self._closed and self._error is None

    async def open(self, *, wait: bool) -> None:
        """Connect.

        Parameters
        ----------
        wait : go on trying, as after a lost connection, where there is no server yet

        Raises
        ------
        ConnectionFailed
        """
        attempts = 0
        while self._link is None:
            try:
                await self._connect()
            except ConnectionFailed as error:
                attempts += 1
                if not wait:
                    raise
                await self._pause(error, attempts)
        self._online.set()
        self._tasks = [
            asyncio.create_task(self._keep(), name="stream connection"),
            asyncio.create_task(self._send_wanted(), name="stream snapshots"),
        ]

    async def subscribe(self, request: Subscribe | Unsubscribe) -> Answer:
        """Subscribe or unsubscribe, now and on every later connection.

        Raises
        ------
        RequestError, AnswerTimeout, ClientClosed
        """
        asked = request
        if isinstance(request, Subscribe) and not _RESUMABLE.isdisjoint(request.channels):
            # Begins now, and has new epochs told, without which nothing could be resumed.
            asked = msgspec.structs.replace(request, resume={})
        answer = await self.ask(asked)
        assert answer is not None
        self._wishes.add(request)
        self._unsettle()
        return answer

    async def ask(self, request: Request) -> Answer | None:
        """Send a request, and wait for its answer; on the next connection if this one is lost.

        Raises
        ------
        RequestError
            the server refuses
        AnswerTimeout
            nothing came
        ClientClosed
        """
        self._check_open()
        self._inbox.await_answer(1)
        try:
            async with asyncio.timeout(self._answer_seconds):
                while True:
                    await self._online.wait()
                    self._check_open()
                    try:
                        async with self._asking:
                            return await self._exchange(request)
                    except LinkLost:
                        if self._link is None or self._link.lost.done():
                            self._online.clear()
        except TimeoutError:
            kind = request.__struct_config__.tag
            raise AnswerTimeout(str(kind), self._answer_seconds) from None
        finally:
            self._inbox.await_answer(-1)

    async def send_again(self, request: SendSnapshot) -> None:
        """Have the server send books again.

        Raises
        ------
        RequestError, AnswerTimeout, ClientClosed
        """
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._online.wait()
                self._check_open()
                async with self._asking:
                    await self._granted(request)
        except LinkLost:
            return  # every book begins anew, or goes on, with the next connection
        except TimeoutError:
            raise AnswerTimeout("snapshot", self._answer_seconds) from None

    def want(self, books: Iterable[tuple[str, str]]) -> None:
        """Have the server send some books again, as soon as it lets us ask."""
        by_exchange: dict[str, list[str]] = {}
        for exchange, symbol in books:
            by_exchange.setdefault(exchange, []).append(symbol)
        for exchange, symbols in by_exchange.items():
            self._want(SendSnapshot(exchanges=(exchange,), symbols=tuple(symbols)))

    def _want(self, request: SendSnapshot) -> None:
        self._wanted[request] = None
        self._wants.set()

    async def close(self) -> None:
        """End the connection, and what looks after it."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._link is not None:
            await self._link.close()
        self._requests.fail()
        self._inbox.end(ClientClosed("the client is closed"))
        self._online.set()

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._error is not None:
            raise self._error

    # What arrives

    def _receive(self, kind: Kind, data: bytes) -> None:
        self._messages += 1
        if kind is Kind.RECORD:
            self._positions.record(data)
            self._inbox.put(kind, data)
            return
        try:
            head = decode_head(data)
            if head.type in ANSWERS:
                self._answered(decode_answer(data), data)
                return
        except msgspec.DecodeError as error:
            self._fail(ProtocolError(str(error), data))
            return
        self._positions.event(head)
        self._inbox.put(kind, data)

    def _answered(self, answer: Answer, data: bytes) -> None:
        if isinstance(answer, Subscribed):
            self._positions.subscribed(answer)
        self._inbox.put(Kind.TEXT, data)
        self._requests.answered(answer)

    def _fail(self, error: BaseException) -> None:
        """Nothing more can come of this client."""
        self._error = error
        self._inbox.end(error)
        if self._link is not None:
            self._link.abort("given up")
        self._online.set()  # whoever waits for a connection learns that there will be none

    # Requests

    async def _exchange(self, request: Request) -> Answer | None:
        """Send a request on the present connection; its answer. Raises `LinkLost`."""
        link = self._link
        if link is None or link.lost.done():
            raise LinkLost
        future = self._requests.expect(request)
        link.send(encode(request))
        return await future

    async def _patiently(self, request: Request) -> Answer | None:
        """The same, again and again where the server has had too many requests."""
        while True:
            try:
                return await self._exchange(request)
            except RequestError as error:
                if error.code != _TOO_MANY:
                    raise
            await asyncio.sleep(TOO_MANY_SECONDS)

    async def _send_wanted(self) -> None:
        """Ask for the books that the feed found wrong."""
        while True:
            await self._wants.wait()
            await self._online.wait()
            if not self._wanted:
                self._wants.clear()
                continue
            request = next(iter(self._wanted))
            del self._wanted[request]
            await self._ask_again(request)

    async def _ask_again(self, request: SendSnapshot) -> None:
        try:
            async with self._asking:
                await self._granted(request)
        except LinkLost:
            return
        except RequestError as error:
            if error.code == _TOO_MANY:
                await asyncio.sleep(TOO_MANY_SECONDS)
                self._want(request)
            else:
                # It was unsubscribed from, or is gone: nothing of it will be shown.
                log.debug("no snapshot", code=error.code, problem=error.message)

    async def _granted(self, request: SendSnapshot) -> None:
        """Ask for snapshots; a ping after it tells that they weren't refused."""
        link = self._link
        if link is None or link.lost.done():
            raise LinkLost
        granted = self._requests.expect(request)
        link.send(encode(request))
        await asyncio.gather(granted, self._exchange(Ping()))

    # Connections

    async def _connect(self) -> None:
        self._requests = Requests()
        self._link = None
        self._wanted.clear()
        self._link = await Link.connect(self._options, self._receive)
        self._inbox.attach(self._link)
        self._unsettle()

    def _unsettle(self) -> None:
        self._settled_at = asyncio.get_running_loop().time() + SETTLE_SECONDS

    @property
    def _settled(self) -> bool:
        """Whether all that the subscriptions began with has come, and the client kept up since."""
        return asyncio.get_running_loop().time() >= self._settled_at and not self._inbox.was_paused

    async def _keep(self) -> None:
        """Look after the connection until the client is closed or gives up."""
        try:
            while True:
                loss, settled = await self._until_lost()
                if self._error is not None:
                    return
                lost_ns = wall_ns()
                self._online.clear()
                self._requests.fail()
                log.info("stream lost", url=self._options.url, reason=loss.reason, code=loss.code)
                self._inbox.note(
                    Disconnected(reason=loss.reason, code=loss.code, received_ns=lost_ns)
                )
                await self._reconnect(lost_ns, loss.reason, settled)
                self._online.set()
        except (ConnectionFailed, RequestError) as error:
            self._fail(error)

    async def _until_lost(self) -> tuple[Loss, bool]:
        """Wait for the connection's end; whether what it brought was complete."""
        link = self._link
        assert link is not None
        seen = self._messages
        while True:
            done, _ = await asyncio.wait((link.lost,), timeout=LOOK_SECONDS)
            if self._messages != seen:
                seen = self._messages
                self._backoff.flowing()
            settled = self._settled
            if settled:
                self._positions.thaw()
            if done:
                loss = link.lost.result()
                return loss, settled and loss.code != _BEHIND

    async def _reconnect(self, lost_ns: int, reason: str, settled: bool) -> None:
        """Connect and subscribe again, however long it takes.

        Raises
        ------
        ConnectionFailed
            the server refuses for good, or there were too many attempts
        RequestError
            a subscription that was granted before is refused now
        """
        attempts = 0
        self._positions.freeze()
        error = ConnectionFailed(self._options.url, reason)
        while True:
            await self._pause(error, attempts)
            attempts += 1
            try:
                await self._connect()
                async with self._asking:
                    resumed = await self._renew(lost_ns, settled)
            except ConnectionFailed as problem:
                error = problem
            except LinkLost:
                assert self._link is not None
                error = ConnectionFailed(self._options.url, "it broke while subscribing")
                self._requests.fail()
                settled = False
            else:
                note = Reconnected(attempts=attempts, resumed=resumed, received_ns=wall_ns())
                self._inbox.note(note)
                return

    async def _pause(self, error: ConnectionFailed, attempts: int) -> None:
        """Wait before the next attempt; raises the error if there is to be none."""
        if isinstance(error, HandshakeRefused) and error.status in _PERMANENT:
            raise error
        most = self._retry.max_attempts
        if most is not None and attempts >= most:
            raise ConnectionFailed(self._options.url, error.problem, attempts) from error
        await asyncio.sleep(self._backoff.failed())

    async def _renew(self, lost_ns: int, settled: bool) -> dict[str, str]:
        """Subscribe again on a new connection; how each exchange goes on."""
        assert self._link is not None
        resumed: dict[str, str] = {}
        lost: set[str] = set()
        self._inbox.await_answer(1)
        try:
            async with asyncio.timeout(self._answer_seconds):
                for wish in list(self._wishes):
                    request = self._with_resume(wish)
                    answer = await self._patiently(request)
                    if isinstance(request, Subscribe) and isinstance(answer, Subscribed):
                        resumed |= {
                            exchange: how
                            for exchange, how in answer.resumed.items()
                            if resumed.get(exchange, RECORDS) == RECORDS
                        }
                        lost |= self._not_resumed(request, answer)
                        if not settled and request.depth == FULL:
                            self._want_resumed(answer)
        except TimeoutError:
            self._link.abort("no answer to a subscription")
            raise LinkLost from None
        finally:
            self._inbox.await_answer(-1)
        for exchange in sorted(lost):
            self._inbox.note(_gap(exchange, lost_ns))
        return resumed

    def _with_resume(self, wish: Subscribe | Unsubscribe) -> Subscribe | Unsubscribe:
        if not isinstance(wish, Subscribe) or _RESUMABLE.isdisjoint(wish.channels):
            return wish
        # Even without a position, so that epochs which begin later are told.
        return msgspec.structs.replace(wish, resume=self._positions.resume(wish.exchanges))

    def _not_resumed(self, request: Subscribe, answer: Subscribed) -> set[str]:
        """Exchanges whose trades may be missing without the server's knowing it."""
        if "trades" not in request.channels:
            return set()
        wanted = self._positions.known
        if request.exchanges is not None and OVERALL not in request.exchanges:
            wanted = wanted & set(request.exchanges)
        return wanted - answer.resumed.keys()

    def _want_resumed(self, answer: Subscribed) -> None:
        """Have whole books sent again that would go on from where they may not have been."""
        exchanges = sorted(name for name, how in answer.resumed.items() if how == RECORDS)
        if exchanges and "orderbook" in answer.channels:
            symbols = None if EVERYTHING in answer.symbols else answer.symbols
            self._want(SendSnapshot(exchanges=tuple(exchanges), symbols=symbols))


def _gap(exchange: str, lost_ns: int) -> Gap:
    return Gap(
        exchange=exchange,
        sequence=0,
        received_ns=wall_ns(),
        flags=RecordFlag.MADE,
        instrument=None,
        channel=Channel.RING,
        reason=Reason.DISCONNECTED,
        since_ns=lost_ns,
    )

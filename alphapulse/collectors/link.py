"""One WebSocket connection to a venue: frames to the feed, messages within the budget, life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    ws_connect,
)

from alphapulse.clock import wall_ns
from alphapulse.collectors.context import REPEAT_EVERY_FRAMES, Context
from alphapulse.collectors.events import Acknowledged, Instruments, VenueComplaint, VenueEvent
from alphapulse.collectors.latency import SAMPLE_MASK
from alphapulse.collectors.venue import Channel
from alphapulse.errors import RingError, VenueError
from alphapulse.log import get_logger
from alphapulse.model import BookState, Reason

log = get_logger(__name__)

MAX_HELD_BYTES = 32 << 20
"""What may wait while a connection takes over from another."""

MAX_ASK_DOUBLINGS = 6
"""A subscription that the venue doesn't answer is asked for again after twice the time each time,
until the pause is so many times doubled."""

_REPEAT_MASK = REPEAT_EVERY_FRAMES - 1
_TEXT = WSMsgType.TEXT


class Loss(NamedTuple):
    """Why a connection ended."""

    reason: Reason
    text: str


class Link(WSListener):
    """One connection.

    Parameters
    ----------
    context : what the venue's connections share
    channel : the connection's side of the protocol
    successor : whether it is opened beside another one: then its frames wait until `take_over`

    Attributes
    ----------
    frames : data frames received
    lost : done as soon as the connection is of no use any more
    subscribed_at : when all subscriptions were sent, on the context's clock; None before
    """

    def __init__(self, context: Context, channel: Channel, *, successor: bool = False) -> None:
        self.channel = channel
        self.frames = 0
        self.subscribed_at: float | None = None
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Loss] = self._loop.create_future()
        self._context = context
        self._feed = context.feed
        self._clock = context.clock
        self._sampler = context.sampler
        self._messages = context.messages()
        self._held: list[tuple[bytes, int]] | None = [] if successor else None
        self._held_bytes = 0
        self._parts = bytearray()
        self._transport: WSTransport | None = None
        self._close_text = "the connection broke"
        self._unanswered_ping: bytes | None = None
        self._frames_seen = 0
        self.alive_at = self._clock.now()
        self._pinged_at: float | None = None
        self._pong: asyncio.Future[None] | None = None
        self._asked_at: float | None = None
        self._ask_now = False
        self._times_asked = 0
        self._asking: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, context: Context, channel: Channel, *, successor: bool = False) -> Link:
        """Open a connection and send its subscriptions.

        Raises
        ------
        VenueError
            there is no connection, or it broke at once
        """
        settings = context.settings
        link = cls(context, channel, successor=successor)
        name = context.venue.name
        address = channel.url.partition("?")[0]
        if context.shares_messages:
            # Venues want a first message soon: don't connect before it may be sent.
            await link._messages.take()
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                await ws_connect(
                    lambda: link,
                    channel.url,
                    enable_auto_pong=False,
                    max_frame_size=settings.max_message_bytes,
                    websocket_handshake_timeout=settings.connect_timeout_seconds,
                    logger_name=name,
                )
        except TimeoutError as error:
            link.lose(Reason.DISCONNECTED, "it took too long to open")
            seconds = settings.connect_timeout_seconds
            raise VenueError(name, f"no connection to {address} within {seconds:g} s") from error
        except (OSError, WSError) as error:
            problem = f"no connection to {address}: {error or type(error).__name__}"
            raise VenueError(name, problem) from error
        except asyncio.CancelledError:
            link.lose(Reason.STOPPED, "connecting was interrupted")
            raise
        if link._transport is None:
            raise VenueError(name, f"no connection to {address}: closed during the handshake")
        try:
            await link._send(channel.open(wall_ns()), paid=int(context.shares_messages))
        except VenueError as lost:
            ours = await link.ended()
            if ours is None:
                raise
            raise VenueError(name, f"{lost.problem}: {ours}") from ours
        except BaseException:
            link.lose(Reason.STOPPED, "subscribing was interrupted")
            raise
        link.subscribed_at = context.clock.now()
        return link

    # What picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Implement `WSListener`."""
        self._transport = transport
        if self.lost.done():
            transport.disconnect(graceful=False)
        elif self._held is None:
            try:
                self._feed.opened(self.channel, wall_ns())
            except RingError as error:
                self._context.fail(error)
                raise

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Implement `WSListener`."""
        received_ns = time.time_ns()
        if self.lost.done():
            return
        kind = frame.msg_type
        if kind is _TEXT and frame.fin:
            self._receive(frame.get_payload_as_bytes(), received_ns)
        elif kind is WSMsgType.CLOSE:
            self._closed_by_venue(transport, frame)
        elif kind is WSMsgType.PING:
            self._unanswered_ping = frame.get_payload_as_bytes()
            self._answer_ping()
        elif kind is WSMsgType.PONG:
            self._pong_came()
        else:
            self._fragment(frame, received_ns)
        if frame.last_in_buffer and self._held is None:
            self._context.burst_ended(received_ns)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Implement `WSListener`."""
        self.lose(Reason.DISCONNECTED, self._close_text)

    def pause_writing(self) -> None:
        """Implement `WSListener`: the budget keeps what is written small."""

    def resume_writing(self) -> None:
        """Implement `WSListener`."""

    # Frames

    def _receive(self, data: bytes, received_ns: int) -> None:
        self.frames += 1
        if self._held is None:
            self._deliver(data, received_ns)
            return
        self._held.append((data, received_ns))
        self._held_bytes += len(data)
        if self._held_bytes > MAX_HELD_BYTES:
            self.lose(Reason.DISCONNECTED, "too much waited for the take-over")

    def _fragment(self, frame: WSFrame, received_ns: int) -> None:
        """Put a message together; the limit is the whole message's."""
        limit = self._context.settings.max_message_bytes
        if len(self._parts) + frame.payload_size > limit:
            raise WSProtocolError(
                WSCloseCode.MESSAGE_TOO_BIG, f"a message in fragments exceeds {limit} bytes"
            )
        self._parts += frame.get_payload_as_bytes()
        if frame.fin:
            data = bytes(self._parts)
            self._parts.clear()
            self._receive(data, received_ns)

    def _deliver(self, data: bytes, received_ns: int) -> None:
        feed, channel = self._feed, self.channel
        try:
            if self.frames & SAMPLE_MASK and not self._sampler.due:
                events = feed.receive(channel, data, received_ns)
            else:
                events = self._measured(data, received_ns)
        except RingError as error:
            # Without its ring a collector is of no use; everything else costs one connection.
            self._context.fail(error)
            raise
        if not self.frames & _REPEAT_MASK:
            feed.repeat_due(received_ns)
        for event in events:
            if isinstance(event, Acknowledged | VenueComplaint | Instruments):
                self._notice(event)

    def _measured(self, data: bytes, received_ns: int) -> Sequence[VenueEvent]:
        timed = self._feed.receive_timed(self.channel, data, received_ns)
        self._sampler.sample(timed.exchange_ns, received_ns, timed.decoded_ns, wall_ns())
        return timed.events

    def _notice(self, event: Acknowledged | VenueComplaint | Instruments) -> None:
        """Take what concerns the connection rather than the market."""
        if isinstance(event, Instruments):
            self._context.news.set()
        elif isinstance(event, VenueComplaint):
            self._context.complaints.add("the venue complains", text=event.text[:500])
        elif event.error is not None:
            self._context.refused(event)
            if self.channel.all_or_nothing:
                # What else the message asked for is refused as well: ask again without it.
                self._times_asked = 0
                self._ask_now = True

    # Life

    @property
    def is_open(self) -> bool:
        """Whether the connection is of use."""
        return self._transport is not None and not self.lost.done()

    def lose(self, reason: Reason, text: str) -> None:
        """Give the connection up; frames that still come are not looked at."""
        if not self.lost.done():
            self.lost.set_result(Loss(reason, text))
        if self._pong is not None and not self._pong.done():
            self._pong.cancel()
        if self._asking is not None:
            self._asking.cancel()
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.disconnect(graceful=False)

    async def close(self, reason: Reason, text: str) -> None:
        """Say goodbye, as far as the venue listens."""
        if self.is_open:
            assert self._transport is not None
            self._transport.send_close(WSCloseCode.OK)
        self.lose(reason, text)
        await self.ended()

    async def ended(self) -> Exception | None:
        """Wait until nothing is left of the connection; gives what went wrong on our side."""
        if self._transport is None:
            return None
        try:
            await self._transport.wait_disconnected()
        except Exception as error:
            # Whatever a frame has done to us is told by the caller.
            return error
        return None

    def tick(self, now: float) -> None:
        """Look after the connection's life; to be called several times a second.

        Parameters
        ----------
        now : on the context's clock, in seconds
        """
        if not self.is_open:
            return
        if self._unanswered_ping is not None:
            self._answer_ping()
        if self.subscribed_at is not None:
            self._check_answers(now)
        if self.frames != self._frames_seen:
            self._frames_seen = self.frames
            self.alive_at = now
            self._pinged_at = None
        silence = now - self.alive_at
        promised = self._context.venue.liveness.connection_seconds
        settings = self._context.settings
        if promised is not None and not self._context.in_maintenance:
            if silence > promised:
                self.lose(Reason.SILENT, f"nothing for {silence:.1f} s")
        elif self._pinged_at is not None:
            if now - self._pinged_at > settings.pong_timeout_seconds:
                self.lose(Reason.SILENT, f"nothing for {silence:.1f} s, nor an answer to a ping")
        elif silence > settings.silence_seconds:
            self._ping()

    def _check_answers(self, now: float) -> None:
        """Ask again, ever more seldom, for subscriptions that the venue doesn't answer.

        A live book is an answer too. Of trades nothing else would tell that they don't come.
        """
        awaited = self.channel.awaited
        if not awaited:
            self._times_asked = 0
            self._asked_at = None
            return
        if self._asked_at is None:
            self._asked_at = now
        timeout = self._context.settings.acknowledge_timeout_seconds
        pause = timeout * 2 ** min(self._times_asked, MAX_ASK_DOUBLINGS)
        overdue = now - self._asked_at > pause
        if self._asking is not None or not (overdue or self._ask_now):
            return
        self._ask_now = False
        awaited.difference_update([key for key in awaited if self._brings_a_book(*key)])
        if awaited:
            keys = sorted(awaited)
            if overdue:
                self._times_asked += 1
                self._context.complaints.add(
                    "subscriptions not answered",
                    count=len(keys),
                    first=keys[0],
                    asked=self._times_asked,
                )
            self._asking = asyncio.create_task(self._ask_again(keys))

    def _brings_a_book(self, channel: str, symbol: str) -> bool:
        """Whether a subscription is one of a live book."""
        book = self._feed.books.get(symbol)
        return (
            channel == self._context.venue.book_channel
            and book is not None
            and book.state is BookState.LIVE
        )

    async def _ask_again(self, keys: Sequence[tuple[str, str]]) -> None:
        try:
            await self.send(self.channel.subscribe(keys, wall_ns()))
            self._asked_at = self._clock.now()
        except VenueError as error:
            log.debug("asked in vain", exchange=self._context.venue.name, problem=error.problem)
        finally:
            self._asking = None

    async def round_trip(self) -> None:
        """Wait until the venue has answered a ping: all that it sent before has arrived.

        Raises
        ------
        TimeoutError
            it doesn't answer
        VenueError
            the connection ended
        """
        await self._messages.take()
        pong = self._pong = self._loop.create_future()
        transport = self._open_transport()
        transport.send_ping(b"")
        try:
            async with asyncio.timeout(self._context.settings.pong_timeout_seconds):
                await asyncio.wait({pong, self.lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pong = None
        self._open_transport()

    def _ping(self) -> None:
        if self._messages.try_take():
            self._pinged_at = self._clock.now()
            self._open_transport().send_ping(b"")

    def _pong_came(self) -> None:
        self.alive_at = self._clock.now()
        self._pinged_at = None
        if self._pong is not None and not self._pong.done():
            self._pong.set_result(None)

    def _answer_ping(self) -> None:
        """Answer the venue's latest ping, when the budget allows: one answer is enough for all."""
        if self._unanswered_ping is not None and self._messages.try_take():
            self._open_transport().send_pong(self._unanswered_ping)
            self._unanswered_ping = None

    def _closed_by_venue(self, transport: WSTransport, frame: WSFrame) -> None:
        code = frame.get_close_code()
        number = code if isinstance(code, int) else code.value
        text = (frame.get_close_message() or b"").decode("utf-8", "replace")
        self._close_text = f"the venue closed it with {number}{f': {text}' if text else ''}"
        transport.send_close(WSCloseCode.OK)
        self.lose(Reason.DISCONNECTED, self._close_text)

    # Messages and taking over

    async def send(self, messages: Sequence[bytes]) -> None:
        """Send messages within the venue's budget.

        Raises
        ------
        VenueError
            the connection ended
        """
        await self._send(messages, paid=0)

    async def _send(self, messages: Sequence[bytes], paid: int) -> None:
        """Send messages, some of which have been taken from the budget."""
        for number, message in enumerate(messages):
            if number >= paid:
                await self._messages.take()
            self._open_transport().send(WSMsgType.TEXT, message)

    def take_over(self) -> None:
        """Deliver the frames that waited, and from now on each as it comes."""
        held, self._held = self._held, None
        for data, received_ns in held or ():
            self._deliver(data, received_ns)
        self._context.touch()

    def _open_transport(self) -> WSTransport:
        if self.lost.done():
            raise VenueError(self._context.venue.name, self.lost.result().text)
        assert self._transport is not None
        return self._transport

"""Keeps a group of symbols connected: reconnects with growing pauses, replaces what grows old."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from picows import WSCloseCode, WSProtocolError

from alphapulse.clock import wall_ns
from alphapulse.collectors.context import Context
from alphapulse.collectors.link import Link, Loss
from alphapulse.errors import VenueError
from alphapulse.log import get_logger
from alphapulse.model import BookState, Instrument, Reason

log = get_logger(__name__)

ROTATE_SPREAD = 0.1
"""Part of a connection's time by which it may end sooner, so that not all end at once."""

QUIET_PROBES = 10
"""A connection that gave nothing but answers to pings for so many times the silence after which
it is probed is replaced by an overlapping one: nothing is lost if the symbols are only quiet."""


class Lane:
    """A group of symbols and the connection that carries it; none: the venue's instruments.

    Parameters
    ----------
    context : what the venue's connections share
    instruments : the group

    Attributes
    ----------
    link : the connection while there is one
    """

    def __init__(self, context: Context, instruments: Sequence[Instrument]) -> None:
        self.instruments = list(instruments)
        self.symbols = [instrument.venue_symbol for instrument in instruments]
        self.link: Link | None = None
        self._context = context
        self._backoff = context.backoff()
        self._rotate_at = 0.0
        self._replace_after = 0.0
        self._frames_at = 0.0
        self._frames = 0
        self._old = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the connection is open."""
        return self.link is not None and self.link.is_open

    async def run(self) -> None:
        """Keep connected until cancelled; the connection is closed then."""
        link: Link | None = None
        try:
            while True:
                if link is None:
                    link = await self._connect(successor=False)
                self._adopt(link)
                link = await self._follow(link)
        finally:
            if self.link is not None:
                await self.link.close(Reason.STOPPED, "the collector ends")

    def tick(self, now: float) -> None:
        """Look after the connection; to be called several times a second.

        Parameters
        ----------
        now : on the context's clock, in seconds
        """
        link = self.link
        if link is None:
            return
        link.tick(now)
        if link.frames != self._frames:
            self._frames, self._frames_at = link.frames, now
            self._backoff.flowing()
        quiet = now - self._frames_at > QUIET_PROBES * self._context.settings.silence_seconds
        old = now > self._rotate_at or (self._probed and quiet)
        if old and now > self._replace_after:
            self._old.set()

    @property
    def _probed(self) -> bool:
        """Whether silence is no fault here, so that a connection may be frozen and answer pings."""
        promised = self._context.venue.liveness.connection_seconds
        return promised is None and not self._context.in_maintenance

    def restart(self, text: str) -> None:
        """Replace the connection, at the cost of all its books."""
        if self.link is not None:
            self.link.lose(Reason.SILENT, text)

    def _adopt(self, link: Link) -> None:
        self.link = link
        now = self._context.clock.now()
        self._frames, self._frames_at = link.frames, now
        self._old.clear()
        seconds = self._context.venue.liveness.rotate_seconds
        early = random.uniform(0, ROTATE_SPREAD)
        self._rotate_at = float("inf") if seconds is None else now + seconds * (1 - early)

    async def _connect(self, *, successor: bool) -> Link:
        """Open a connection, however often it has to be tried."""
        context = self._context
        while True:
            await context.connects.take()
            try:
                link = await Link.connect(
                    context, context.venue.channel(self.instruments), successor=successor
                )
            except VenueError as error:
                pause = self._backoff.failed()
                context.complaints.add(
                    "connection failed", problem=error.problem, next_try_seconds=round(pause, 2)
                )
                await asyncio.sleep(pause)
            else:
                log.info("connected", exchange=context.venue.name, symbols=self._names())
                return link

    async def _follow(self, link: Link) -> Link | None:
        """Wait until the connection ends; gives its successor if it was replaced in time."""
        while not link.lost.done():
            old = asyncio.create_task(self._old.wait())
            try:
                await _first(link.lost, old)
            finally:
                old.cancel()
            successor = None if link.lost.done() else await self._replace(link)
            if successor is not None:
                return successor
            if not link.lost.done():
                self._replace_after = self._context.clock.now() + self._backoff.failed()
                self._old.clear()
        await self._lost(link, link.lost.result())
        return None

    async def _lost(self, link: Link, loss: Loss) -> None:
        """Tell of the loss, and wait before the next attempt."""
        self.link = None
        context = self._context
        if link.channel.symbols:
            context.feed.fail(link.channel.symbols, BookState.STALE, loss.reason, wall_ns())
            context.touch()
        error = await link.ended()
        pause = self._backoff.failed()
        if isinstance(error, WSProtocolError) and error.args[0] == WSCloseCode.MESSAGE_TOO_BIG:
            context.feed.publisher.malformed(None)
            name = context.venue.name
            context.complaints.add(
                "message too large",
                symbols=self._names(),
                problem=f"{error.args[1]}; venues.{name}.max_message_bytes is the limit",
            )
        elif error is not None and not isinstance(error, WSProtocolError):
            log.error("a frame made us fail", exchange=context.venue.name, exc_info=error)
        context.complaints.add(
            "disconnected",
            reason=loss.reason.text,
            problem=loss.text if error is None else f"{loss.text}: {error}",
            symbols=self._names(),
            next_try_seconds=round(pause, 2),
        )
        await asyncio.sleep(pause)

    async def _replace(self, link: Link) -> Link | None:
        """Open another connection beside this one, and let it take over; None if one is lost.

        The new one is asked for a sign of life, then the old one: whatever the venue had sent on
        the old one before the new one was at work has arrived then. What came twice is recognised
        by the books and trades, which is why the new one's frames wait until the old one's end.
        """
        connecting = asyncio.create_task(self._connect(successor=True))
        try:
            await _first(link.lost, connecting)
        except asyncio.CancelledError:
            await _discard(connecting)
            raise
        if not connecting.done():
            await _discard(connecting)
            return None
        successor = connecting.result()
        try:
            await successor.round_trip()
            await link.round_trip()
        except (VenueError, TimeoutError) as error:
            # One that doesn't answer pings may still deliver; one that is lost may not.
            log.info("no sign of life", exchange=self._context.venue.name, problem=str(error))
        except asyncio.CancelledError:
            await successor.close(Reason.STOPPED, "the collector ends")
            raise
        if not successor.is_open or link.lost.done():
            await successor.close(Reason.STOPPED, "there is nothing to take over")
            return None
        return await self._hand_over(link, successor)

    async def _hand_over(self, link: Link, successor: Link) -> Link:
        self.link = successor
        await link.close(Reason.STOPPED, "another connection has taken over")
        try:
            successor.take_over()
        except Exception as error:
            successor.lose(Reason.DISCONNECTED, f"a frame made us fail: {error}")
            log.exception("a frame made us fail", exchange=self._context.venue.name)
        log.info("connection replaced", exchange=self._context.venue.name, symbols=self._names())
        return successor

    def _names(self) -> list[str]:
        return [instrument.symbol for instrument in self.instruments]


async def _first(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _discard(connecting: asyncio.Task[Link]) -> None:
    """Give up connecting; a connection that was made nevertheless is closed."""
    connecting.cancel()
    await asyncio.wait({connecting})
    if not connecting.cancelled() and connecting.exception() is None:
        await connecting.result().close(Reason.STOPPED, "there is nothing to take over")

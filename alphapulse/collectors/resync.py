"""Mends books one symbol at a time: resubscriptions, REST snapshots, each with its own pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from alphapulse.backoff import Backoff
from alphapulse.clock import wall_ns
from alphapulse.collectors.context import Context
from alphapulse.collectors.events import Acknowledged
from alphapulse.collectors.lane import Lane
from alphapulse.collectors.link import Link
from alphapulse.collectors.sync import SyncedBook
from alphapulse.collectors.venue import Channel
from alphapulse.errors import RingError, VenueError
from alphapulse.log import get_logger
from alphapulse.model import BookState, Reason

log = get_logger(__name__)

TRIES_BEFORE_RECONNECT = 2
"""Resubscriptions of a symbol that bring no snapshot, until its connection is suspected."""

RECONNECT_PAUSE = 6
"""A lane isn't reconnected for the sake of one symbol more often than once in so many times the
time in which a subscription is to be answered, then in twice that: the others suffer."""

REFUSED_PAUSE = 10
"""How many times the longest pause a refused subscription may wait for the next try."""


class _Repair:
    """What is being done about one symbol's book."""

    def __init__(self, backoff: Backoff, slow: Backoff) -> None:
        self.backoff = backoff
        self.slow = slow
        self.not_before = 0.0
        self.deadline: float | None = None
        """When the snapshot that was asked for counts as not coming."""
        self.task: asyncio.Task[None] | None = None
        self.unanswered = 0
        """Resubscriptions in a row that brought no snapshot."""
        self.reconnected = False
        """Whether its connection was replaced in vain since it last lived."""
        self.refused: set[str] = set()
        """Channels whose subscription was refused, on that connection."""
        self.refused_by: Channel | None = None
        self.retry_at = 0.0


class ReconnectPace:
    """When a lane may be reconnected for the sake of one symbol: the pauses double.

    Parameters
    ----------
    first_seconds : the first pause; also the one after a time of twice the last in which none was
        needed
    """

    def __init__(self, first_seconds: float) -> None:
        self._first = first_seconds
        self._pause = 0.0
        self._not_before = 0.0

    def take(self, now: float) -> bool:
        """Whether it may be now; if so, the next pause begins."""
        if now < self._not_before:
            return False
        recent = now <= self._not_before + self._pause
        self._pause = 2 * self._pause if recent and self._pause else self._first
        self._not_before = now + self._pause
        return True


class Resynchroniser:
    """Gives books that want one a new snapshot.

    Parameters
    ----------
    context : what the venue's connections share
    lane_of : the lane that carries a venue symbol, None where there is none
    """

    def __init__(self, context: Context, lane_of: Callable[[str], Lane | None]) -> None:
        self._context = context
        self._feed = context.feed
        self._lane_of = lane_of
        self._repairs: dict[str, _Repair] = {}
        self._clock = context.clock
        self._timeout = context.settings.acknowledge_timeout_seconds
        self._paces: dict[Lane, ReconnectPace] = {}
        context.refused = self.refused

    def tick(self, now: float) -> None:
        """Look after all books; to be called several times a second.

        Parameters
        ----------
        now : on the context's clock, in seconds
        """
        feed = self._feed
        for symbol in feed.silent_symbols(now):
            feed.fail([symbol], BookState.STALE, Reason.SILENT, wall_ns())
        for symbol, book in feed.books.items():
            if book.state is BookState.LIVE:
                self._lives(symbol)
            else:
                self._overdue(symbol, book, now)
        for symbol, repair in self._repairs.items():
            if repair.refused:
                self._try_refused(symbol, repair, now)
        self.serve(now)

    def serve(self, now: float) -> None:
        """Begin with the books that want a snapshot, as far as their pauses are over."""
        feed = self._feed
        for symbol in tuple(feed.wanted):
            book = feed.books[symbol]
            if book.state is BookState.LIVE:
                # It was wanted while another one was on its way.
                del feed.wanted[symbol]
                continue
            lane = self._lane_of(symbol)
            if lane is None or lane.link is None or not lane.link.is_open:
                continue
            repair = self._repair(symbol)
            if repair.task is None and now >= repair.not_before:
                self._begin(symbol, book, repair, lane.link, now)

    async def close(self) -> None:
        """Stop whatever is under way."""
        tasks = [repair.task for repair in self._repairs.values() if repair.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def refused(self, event: Acknowledged) -> None:
        """Take the venue's refusal of one symbol's subscription."""
        symbol, context = event.venue_symbol, self._context
        context.complaints.add(
            "subscription refused", symbol, channel=event.channel, words=(event.error or "")[:500]
        )
        lane = self._lane_of(symbol)
        if lane is None or lane.link is None:
            return
        repair = self._repair(symbol)
        if not repair.refused:
            repair.retry_at = self._clock.now() + repair.slow.failed()
        repair.refused.add(event.channel)
        repair.refused_by = lane.link.channel
        if event.channel == context.venue.book_channel:
            self._feed.refuse(symbol, wall_ns())
            self._feed.wanted.pop(symbol, None)

    def _try_refused(self, symbol: str, repair: _Repair, now: float) -> None:
        """Ask again, seldom, for what was refused; a new connection has asked by itself."""
        lane = self._lane_of(symbol)
        link = lane.link if lane is not None else None
        if link is None or link.channel is not repair.refused_by:
            repair.refused.clear()
        elif now >= repair.retry_at and repair.task is None and link.is_open:
            keys = [(channel, symbol) for channel in repair.refused]
            if self._context.venue.book_channel in repair.refused:
                self._feed.wanted.setdefault(symbol, Reason.REFUSED)
                self._feed.resyncing(symbol, wall_ns())
            repair.refused.clear()
            repair.task = asyncio.create_task(
                self._guarded(partial(self._subscribe, keys), symbol, repair, link)
            )

    def _repair(self, symbol: str) -> _Repair:
        repair = self._repairs.get(symbol)
        if repair is None:
            settings = self._context.settings
            longest = settings.backoff_max_seconds
            slow = Backoff(longest, REFUSED_PAUSE * longest, settings.backoff_reset_seconds)
            repair = self._repairs[symbol] = _Repair(self._context.backoff(), slow)
        return repair

    def _lives(self, symbol: str) -> None:
        repair = self._repairs.get(symbol)
        if repair is not None:
            repair.backoff.flowing()
            repair.slow.flowing()
            repair.deadline = None
            repair.unanswered = 0
            repair.reconnected = False

    def _overdue(self, symbol: str, book: SyncedBook, now: float) -> None:
        """Ask again for a snapshot that doesn't come."""
        repair = self._repair(symbol)
        refused = self._context.venue.book_channel in repair.refused
        if repair.task is not None or symbol in self._feed.wanted or refused:
            return
        lane = self._lane_of(symbol)
        if lane is None or lane.link is None or not lane.link.is_open:
            repair.deadline = None
            return
        subscribed_at = lane.link.subscribed_at
        if subscribed_at is None:
            return
        deadline = max(repair.deadline or 0.0, subscribed_at + self._timeout)
        if now < deadline:
            return
        repair.unanswered += 1
        self._context.complaints.add(
            "no snapshot came", symbol, seconds=self._timeout, tries=repair.unanswered
        )
        self._feed.wanted[symbol] = book.reason
        if (
            repair.unanswered > TRIES_BEFORE_RECONNECT
            and not repair.reconnected
            and not self._context.venue.sequenced
        ):
            self._suspect(symbol, lane, now)

    def _suspect(self, symbol: str, lane: Lane, now: float) -> None:
        """Reconnect a lane because of a symbol that nothing else helps, but not often.

        It is tried once for each symbol: a connection that didn't help isn't the fault.
        """
        pace = self._paces.setdefault(lane, ReconnectPace(RECONNECT_PAUSE * self._timeout))
        if not pace.take(now):
            return
        for other in lane.symbols:
            repair = self._repairs.get(other)
            if repair is not None and repair.unanswered:
                repair.reconnected = True
        lane.restart(f"{symbol} gets no snapshot")

    def _begin(
        self, symbol: str, book: SyncedBook, repair: _Repair, link: Link, now: float
    ) -> None:
        repair.not_before = now + repair.backoff.failed()
        log.info(
            "asking for a snapshot",
            exchange=self._context.venue.name,
            symbol=book.instrument.symbol,
            reason=self._feed.wanted[symbol].text,
        )
        self._feed.resyncing(symbol, wall_ns())
        ask = self._fetch if self._context.venue.sequenced else self._resubscribe
        repair.task = asyncio.create_task(self._guarded(ask, symbol, repair, link))

    async def _guarded(
        self,
        ask: Callable[[str, _Repair, Link], Awaitable[None]],
        symbol: str,
        repair: _Repair,
        link: Link,
    ) -> None:
        try:
            await ask(symbol, repair, link)
        except VenueError as error:
            self._context.complaints.add("no snapshot", symbol, problem=error.problem)
            self._feed.wanted.setdefault(symbol, self._feed.books[symbol].reason)
        except RingError as error:
            self._context.fail(error)
        except Exception:
            # A fault of ours with one symbol costs that symbol's try, not the others' books.
            log.exception("asking for a snapshot failed", exchange=self._context.venue.name)
        finally:
            repair.task = None
            self._context.touch()

    async def _subscribe(
        self, keys: list[tuple[str, str]], symbol: str, repair: _Repair, link: Link
    ) -> None:
        await link.send(link.channel.subscribe(keys, wall_ns()))
        repair.deadline = self._clock.now() + self._timeout

    async def _resubscribe(self, symbol: str, repair: _Repair, link: Link) -> None:
        await link.send(link.channel.resubscribe(symbol, wall_ns()))
        repair.deadline = self._clock.now() + self._timeout

    async def _fetch(self, symbol: str, repair: _Repair, link: Link) -> None:
        """Get a REST snapshot; the updates that came meanwhile are kept by the book."""
        instrument = self._feed.books[symbol].instrument
        request = self._context.venue.snapshot_request(instrument)
        assert request is not None, "a sequenced venue has REST snapshots"
        answer = await self._context.rest.get(request)
        lane = self._lane_of(symbol)
        if lane is None or not lane.is_open:
            # Nothing follows the snapshot: the next connection asks again. If it is there already,
            # the updates' numbers tell whether they continue the snapshot.
            return
        if not self._feed.rest_snapshot(instrument, answer.body, wall_ns()):
            self._feed.wanted.setdefault(symbol, self._feed.books[symbol].reason)
        repair.deadline = self._clock.now() + self._timeout

"""Drives a venue over real connections: metadata, lanes, resynchronisation, heartbeats.

The venue knows the protocol, the feed what its events mean; here is all that takes time or can
fail on the way: connecting, subscribing, waiting, asking again.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Coroutine
from typing import Any

from alphapulse.clock import wall_ns
from alphapulse.collectors.audit import Auditor
from alphapulse.collectors.context import Context
from alphapulse.collectors.lane import Lane
from alphapulse.collectors.resync import Resynchroniser
from alphapulse.collectors.venue import RestRequest
from alphapulse.errors import VenueError
from alphapulse.log import get_logger

log = get_logger(__name__)

METADATA_SECONDS = 3600.0
"""How often a venue's REST metadata are read again."""

HEARTBEAT_SECONDS = 1.0
LONGEST_TICK_SECONDS = 0.25
TICKS_PER_TIMEOUT = 8
"""A timeout is noticed late by at most this part of it."""


class Session:
    """One venue's connections and what is done about them.

    Parameters
    ----------
    context : protocol, feed, budgets
    symbols : unified symbols to follow
    """

    def __init__(self, context: Context, symbols: tuple[str, ...]) -> None:
        self.lanes: list[Lane] = []
        """One per connection; for Kraken the first is that of the instruments."""
        self._context = context
        self._feed = context.feed
        self._symbols = symbols
        self._lane_of: dict[str, Lane] = {}
        self._missing: set[str] = set()
        self._listed = 0
        self._resyncs = Resynchroniser(context, self._lane_of.get)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether all connections are open, and there is at least one with symbols."""
        return bool(self._lane_of) and all(lane.is_open for lane in self.lanes)

    async def run(self) -> None:
        """Collect until cancelled.

        Raises
        ------
        RingError
            the ring can't be written any more
        Exception
            something here is broken
        """
        context = self._context
        now_ns = wall_ns()
        self._feed.started(now_ns)
        context.touch()
        request = context.venue.metadata_request()
        self._spawn(self._tick())
        self._spawn(self._beat())
        self._spawn(self._serve_news())
        if request is None:
            self._open_lane(Lane(context, ()))
        else:
            self._spawn(self._read_metadata(request))
        auditor = Auditor.of(context)
        if auditor is not None:
            self._spawn(auditor.run())
        try:
            await context.failure
        finally:
            await self._stop()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            self._context.fail(error or RuntimeError(f"{task.get_coro()!r} has ended"))

    async def _stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._resyncs.close()

    # Symbols

    async def _read_metadata(self, request: RestRequest) -> None:
        """Read the instruments, and again every hour: symbols come, scales change."""
        context = self._context
        backoff = context.backoff()
        while True:
            try:
                answer = await context.rest.get(request)
            except VenueError as error:
                pause = backoff.failed()
                context.complaints.add(
                    "no metadata", problem=error.problem, next_try_seconds=round(pause, 2)
                )
                await asyncio.sleep(pause)
                continue
            if not self._feed.rest_metadata(answer.body, wall_ns()):
                await asyncio.sleep(backoff.failed())
                continue
            self._adopt_budget(answer.body)
            context.news.set()
            backoff = context.backoff()
            await asyncio.sleep(METADATA_SECONDS)

    def _adopt_budget(self, body: bytes) -> None:
        """Go by the budget that the venue itself states."""
        budget = self._context.venue.parse_budget(body)
        if budget is not None:
            self._context.rest.allowance.change(budget)

    async def _serve_news(self) -> None:
        """Begin at once with books that want a snapshot, and with instruments that have come."""
        news = self._context.news
        while True:
            await news.wait()
            news.clear()
            self._open_lanes()
            self._resyncs.serve(self._context.clock.now())

    def _open_lanes(self) -> None:
        """Connect the symbols to follow that the venue lists and that no connection carries."""
        feed = self._feed
        if len(feed.instruments) == self._listed:
            return
        self._listed = len(feed.instruments)
        listed = [
            book.instrument for symbol, book in feed.books.items() if symbol not in self._lane_of
        ]
        for group in self._context.venue.plan(listed):
            lane = Lane(self._context, group)
            self._lane_of.update(dict.fromkeys(lane.symbols, lane))
            self._open_lane(lane)
        self._report_missing()

    def _open_lane(self, lane: Lane) -> None:
        self.lanes.append(lane)
        self._spawn(lane.run())

    def _report_missing(self) -> None:
        """Name the symbols that the venue doesn't list, once, with what may have been meant."""
        listed = {instrument.symbol for instrument in self._feed.instruments}
        missing = {symbol for symbol in self._symbols if symbol not in listed}
        for symbol in sorted(missing - self._missing):
            log.error(
                "symbol not listed by the venue, left out",
                exchange=self._context.venue.name,
                symbol=symbol,
                closest=difflib.get_close_matches(symbol, listed, n=3, cutoff=0.5),
            )
        self._missing = missing

    # Time

    async def _tick(self) -> None:
        settings = self._context.settings
        shortest = min(
            settings.silence_seconds,
            settings.pong_timeout_seconds,
            settings.acknowledge_timeout_seconds,
            4 * settings.backoff_first_seconds,
        )
        pause = min(LONGEST_TICK_SECONDS, shortest / TICKS_PER_TIMEOUT)
        clock = self._context.clock
        while True:
            clock.tick(2 * pause)
            await asyncio.sleep(pause)
            now = clock.now()
            for lane in self.lanes:
                lane.tick(now)
            self._await_instruments(now)
            self._resyncs.tick(now)
            self._context.touch()

    def _await_instruments(self, now: float) -> None:
        """Replace a connection that was asked for the instruments and doesn't give them."""
        if self._listed or not self.lanes:
            return
        lane = self.lanes[0]
        asked_at = lane.link.subscribed_at if lane.link is not None else None
        timeout = self._context.settings.acknowledge_timeout_seconds
        if asked_at is not None and now - asked_at > timeout:
            lane.restart("the venue lists no instruments")

    async def _beat(self) -> None:
        """Say once a second that the collector lives, whatever the venue does."""
        due = self._loop.time()
        while True:
            self._feed.publisher.heartbeat(wall_ns())
            self._context.touch()
            self._context.complaints.flush()
            due += HEARTBEAT_SECONDS
            now = self._loop.time()
            if due < now:
                due = now
            await asyncio.sleep(due - now)

"""What moves a simulator on: a generated market, or a capture."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from alphapulse.capture.player import play_capture
from alphapulse.capture.reader import read_capture
from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.simulators.market import VenueMarket
from alphapulse.simulators.source import EVERYONE, CaptureSource, RestBodies, Topic, rest_key
from alphapulse.symbols import normalize_symbol

if TYPE_CHECKING:
    from alphapulse.simulators.base import VenueSimulator
    from alphapulse.simulators.connection import Connection

CATCH_UP_NS = 5 * NS_PER_SECOND
"""A market that fell further behind (a machine asleep) leaves out the time that it missed."""

EVENTS_AT_ONCE = 512


class MarketDriver:
    """Makes a market's events when they are due, or as fast as the clients take them."""

    def __init__(self, simulator: VenueSimulator, market: VenueMarket) -> None:
        self.market = market
        self._simulator = simulator
        self._running = asyncio.Event()
        self._running.set()
        self._behind_ns = 0
        self._paused_ns = 0

    def now_ns(self) -> int:
        """The market's time: the wall clock's, or in a fast one that of the next event."""
        return wall_ns() - self._behind_ns if self.market.paced else self.market.next_ns

    def pause(self) -> None:
        """Make no more events; what was made is sent."""
        if self._running.is_set():
            self._running.clear()
            self._paused_ns = wall_ns()
            self._simulator.flush_batches()
            self._simulator.flush()

    def resume(self) -> None:
        """Go on; the time in between is left out."""
        if not self._running.is_set():
            self._behind_ns += wall_ns() - self._paused_ns
            self._running.set()

    async def run(self) -> None:
        """Drive until the market ends."""
        market, simulator = self.market, self._simulator
        simulator.holding = simulator.prepared
        while market.left is None or market.left > 0:
            await self._running.wait()
            pause_seconds = self._make_due_events()
            simulator.flush()
            if market.paced:
                await asyncio.sleep(pause_seconds)
            else:
                await simulator.writable()
        simulator.flush_batches()
        if simulator.holding:
            simulator.holding = False
            await asyncio.gather(*(c.release() for c in simulator.connections))
        simulator.flush()
        await simulator.writable()

    def _make_due_events(self) -> float:
        """Make the events that are due; gives the seconds until the next one is."""
        market, simulator = self.market, self._simulator
        now = self.now_ns()
        if now - market.next_ns > CATCH_UP_NS:
            self._behind_ns += now - market.next_ns
            now = market.next_ns
        limit = EVENTS_AT_ONCE if market.left is None else min(EVENTS_AT_ONCE, market.left)
        for _ in range(limit):
            if market.next_ns > now and market.paced:
                break
            due = simulator.batch_due_ns()
            if due is not None and due <= market.next_ns:
                simulator.flush_batches(market.next_ns)
            simulator.event(market.step())
        due = simulator.batch_due_ns()
        if due is not None and due <= now:
            simulator.flush_batches(now)
            due = simulator.batch_due_ns()
        soonest = market.next_ns if due is None else min(market.next_ns, due)
        return max(soonest - self.now_ns(), 0) / NS_PER_SECOND


class CaptureDriver:
    """Plays a capture to the subscribers."""

    def __init__(self, simulator: VenueSimulator, source: CaptureSource) -> None:
        self.bodies = RestBodies()
        self.metadata: bytes | None = None
        """Body of the venue's metadata request."""
        self.awaited: list[tuple[Topic, ...]] = []
        """What must have a subscriber before the play, each with its alternatives."""
        self._simulator = simulator
        self._source = source

    def scan(self) -> None:
        """Read the capture once: metadata, and what must be subscribed to. `CaptureError`."""
        simulator, source = self._simulator, self._source
        wanted = source.symbols
        groups: set[tuple[Topic, ...]] = set()
        keys = set()
        seen: set[str] = set()
        for frame in read_capture(source.path):
            if frame.url is not None:
                key = rest_key(frame.url)
                keys.add(key)
                if key[0] == simulator.metadata_path and self.metadata is None:
                    self.metadata = frame.raw
                    simulator.list_recorded(frame.raw)
                continue
            simulator.scanned(frame.raw)
            for channel, symbol in simulator.route(frame.raw) or EVERYONE:
                if channel in simulator.awaited:
                    seen.add(symbol)
                    alternatives = simulator.awaited[channel]
                    groups.add(tuple((other, symbol) for other in alternatives))
        for symbol in sorted(seen.difference(simulator.symbols.values())):
            simulator.symbols[_unified(symbol)] = symbol
        self.bodies.expect(keys)
        self.awaited = sorted(group for group in groups if wanted is None or group[0][1] in wanted)

    async def run(self) -> None:
        """Play to the end."""
        source = self._source
        async for group in play_capture(read_capture(source.path), source.speed):
            for frame in group:
                if frame.url is None:
                    self._play(frame.raw)
                else:
                    self.bodies.add(rest_key(frame.url), frame.raw)
            self._simulator.flush()
            await self._simulator.writable()
        self.bodies.end()

    def _play(self, raw: bytes) -> None:
        """Send a recorded frame to whom it concerns, once to each."""
        simulator = self._simulator
        if raw in simulator.given:
            simulator.given.remove(raw)
            return
        topics = simulator.route(raw)
        if topics is None:
            return
        if topics == EVERYONE:
            for connection in simulator.connections:
                connection.send(raw)
            return
        simulator.played(raw)
        faults = simulator.faults
        told: set[Connection] = set()
        for topic in topics:
            channel, symbol = topic
            if symbol in faults.silent_symbols:
                continue
            if faults.armed and channel in simulator.awaited:
                fault = "skip_trade" if channel in simulator.trade_channels else "drop_update"
                if faults.take(fault, symbol):
                    return
            for connection in simulator.topics.get(topic, ()):
                if connection not in told:
                    told.add(connection)
                    simulator.send_recorded(connection, raw)


def _unified(symbol: str) -> str:
    """Unified symbol of a pair that a capture has no metadata of; as it is without separator."""
    try:
        return normalize_symbol(symbol)
    except ValueError:
        return symbol

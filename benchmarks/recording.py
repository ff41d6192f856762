"""Frames of a generated market, recorded off a simulated venue by a client of its protocol."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import msgspec
import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from alphapulse.capture import Frame
from alphapulse.collectors.events import BookSnapshotEvent, Instruments, VenueEvent
from alphapulse.collectors.venue import RestRequest, Venue
from alphapulse.model import Instrument
from alphapulse.simulators import SIMULATORS, Market, VenueSimulator
from alphapulse.simulators.binance_us import BinanceUsSimulator

SEED = 1
TRADES_PER_100_000 = 2000.0


def record(venue: Venue, *, events: int, symbols: int = 3, levels: int = 200) -> list[Frame]:
    """Record a generated market from metadata and snapshots to its end.

    Parameters
    ----------
    venue : the protocol
    events : changes and trades
    symbols : how many
    levels : a side of each book, about
    """
    market = Market(
        symbols,
        seed=SEED,
        book_rate=None,
        trade_rate=TRADES_PER_100_000,
        levels=levels,
        events=events,
    )
    return uvloop.run(_record(venue, market))


async def _record(venue: Venue, market: Market) -> list[Frame]:
    async with SIMULATORS[venue.name](market, start="manual") as simulator:
        if isinstance(simulator, BinanceUsSimulator):
            simulator.weight.limit = 100 * len(market.specs)  # all the snapshots at once
        settings = msgspec.structs.replace(
            venue.settings, ws_url=simulator.ws_url, rest_url=simulator.rest_url
        )
        recorder = _Recorder(type(venue)(settings))
        await recorder.subscribe()
        simulator.play()
        await simulator.finished.wait()
        _raise_failure(simulator)
    # The simulator's goodbye came after its last frame.
    await recorder.ended.wait()
    return recorder.frames


def _raise_failure(simulator: VenueSimulator) -> None:
    if simulator.failure is not None:
        raise simulator.failure


class _Recorder(WSListener):
    def __init__(self, venue: Venue) -> None:
        self.frames: list[Frame] = []
        self.ended = asyncio.Event()
        self._venue = venue
        self._instruments: list[Instrument] = []
        self._listed = asyncio.Event()
        self._books = 0
        self._complete = asyncio.Event()
        self._channel = venue.channel([])

    async def subscribe(self) -> None:
        """Connect and subscribe; returns when all the books are there."""
        venue = self._venue
        metadata = venue.metadata_request()
        if metadata is not None:
            self._take(venue.parse_metadata(await self._get(metadata)))
            self._channel = venue.channel(self._instruments)
            transport = await self._connect()
        else:
            transport = await self._connect()
            _send(transport, self._channel.open(time.time_ns()))
            await self._listed.wait()
            self._channel = venue.channel(self._instruments)
        _send(transport, self._channel.open(time.time_ns()))
        if venue.sequenced:
            for instrument in self._instruments:
                request = venue.snapshot_request(instrument)
                assert request is not None, "a sequenced venue has REST snapshots"
                await self._get(request)
        else:
            await self._complete.wait()

    async def _connect(self) -> WSTransport:
        transport, _ = await ws_connect(lambda: self, self._channel.url)
        return transport

    async def _get(self, request: RestRequest) -> bytes:
        url = self._venue.settings.rest_url + request.path
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            answer.raise_for_status()
            body = await answer.read()
        self.frames.append(Frame(time.time_ns(), "rest", request.path, body))
        return body

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Implement `WSListener`."""
        if frame.msg_type is WSMsgType.TEXT:
            raw = frame.get_payload_as_bytes()
            self.frames.append(Frame(time.time_ns(), "ws", None, raw))
            if not self._complete.is_set():
                self._take(self._channel.receive(raw))
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Implement `WSListener`."""
        self.ended.set()

    def _take(self, found: list[VenueEvent]) -> None:
        for event in found:
            if isinstance(event, Instruments):
                self._instruments += event.instruments
                self._listed.set()
            elif isinstance(event, BookSnapshotEvent):
                self._books += 1
                if self._books == len(self._instruments):
                    self._complete.set()


def _send(transport: WSTransport, messages: list[bytes]) -> None:
    for message in messages:
        transport.send(WSMsgType.TEXT, message)

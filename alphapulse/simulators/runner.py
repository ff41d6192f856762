"""Several simulated venues at once, for demos, the command line and tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import msgspec

from alphapulse.errors import ConfigError
from alphapulse.simulators.base import Source, Start, VenueSimulator
from alphapulse.simulators.binance_us import BinanceUsSimulator
from alphapulse.simulators.coinbase import CoinbaseSimulator
from alphapulse.simulators.coinbase_advanced import CoinbaseAdvancedSimulator
from alphapulse.simulators.kraken import KrakenSimulator
from alphapulse.simulators.market import Market
from alphapulse.simulators.source import CaptureSource

SIMULATORS: dict[str, type[VenueSimulator]] = {
    "coinbase": CoinbaseSimulator,
    "coinbase_advanced": CoinbaseAdvancedSimulator,
    "kraken": KrakenSimulator,
    "binance_us": BinanceUsSimulator,
}
"""Every simulated protocol by name; ``coinbase_advanced`` is the other dialect of Coinbase."""


class Endpoints(NamedTuple):
    """Where a simulated venue listens; what a collector's settings of the same names take."""

    ws_url: str
    rest_url: str


class SimulationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate.

    Attributes
    ----------
    venues : names in `SIMULATORS`
    symbols : unified symbols of the generated market, or how many
    seed, book_rate, trade_rate, levels, offset_bps, events : see `Market`; the rates are of each
        venue, ``book_rate`` 0 or None means as fast as the machine goes
    capture : play this recording instead, which needs exactly one venue
    speed : of the recording; 1 for its own pace, None for as fast as it is read
    start : see `VenueSimulator`
    host : address to listen at
    ports : WebSocket and REST port by venue; 0, the default, takes any free one
    options : further settings of a venue's class, by venue
    """

    venues: tuple[str, ...] = ("coinbase", "kraken", "binance_us")
    symbols: int | tuple[str, ...] = 3
    seed: int = 1
    book_rate: float | None = 50.0
    trade_rate: float = 2.0
    levels: int = 200
    offset_bps: float = 8.0
    events: int | None = None
    capture: str | None = None
    speed: float | None = 1.0
    start: Start | None = None
    host: str = "127.0.0.1"
    ports: Mapping[str, tuple[int, int]] = {}
    options: Mapping[str, Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        for venue in (*self.venues, *self.ports, *self.options):
            if venue not in SIMULATORS:
                raise ConfigError("venues", f"no {venue!r}; there are {', '.join(SIMULATORS)}")
        if not self.venues or len(set(self.venues)) != len(self.venues):
            raise ConfigError("venues", "name at least one, each once")
        if self.capture is not None and len(self.venues) != 1:
            raise ConfigError("capture", "is of one venue; name exactly one")

    def source(self) -> Source:
        """The source that all the venues share."""
        if self.capture is not None:
            return CaptureSource(path=self.capture, speed=self.speed)
        try:
            return Market(
                self.symbols,
                seed=self.seed,
                book_rate=self.book_rate,
                trade_rate=self.trade_rate,
                levels=self.levels,
                offset_bps=self.offset_bps,
                events=self.events,
            )
        except ValueError as error:
            raise ConfigError("simulation", str(error)) from error


@asynccontextmanager
async def start_simulators(
    settings: SimulationSettings,
) -> AsyncIterator[dict[str, VenueSimulator]]:
    """Run the simulators within the event loop; gives them by venue.

    Raises
    ------
    ConfigError
        the settings make no market
    CaptureError
        the recording can't be read
    OSError
        a port is taken
    """
    source = settings.source()
    async with AsyncExitStack() as stack:
        simulators = {}
        for venue in settings.venues:
            ws_port, rest_port = settings.ports.get(venue, (0, 0))
            simulator = SIMULATORS[venue](
                source,
                host=settings.host,
                ws_port=ws_port,
                rest_port=rest_port,
                start=settings.start,
                **settings.options.get(venue, {}),
            )
            simulators[venue] = await stack.enter_async_context(simulator)
        yield simulators


async def run(
    settings: SimulationSettings,
    announce: Callable[[dict[str, Endpoints]], None],
    stop: asyncio.Event,
) -> None:
    """Run the simulators until `stop` is set.

    A source that comes to its end leaves the venues up, as quiet ones.

    Parameters
    ----------
    settings : what to simulate
    announce : called once with the addresses, when all of them listen
    stop : set it to end

    Raises
    ------
    ConfigError, CaptureError, OSError
        as `start_simulators`; a recording that proves damaged half-way too
    """
    async with start_simulators(settings) as simulators:
        announce({v: Endpoints(s.ws_url, s.rest_url) for v, s in simulators.items()})
        stopped = asyncio.create_task(stop.wait())
        failed = asyncio.create_task(_failure(list(simulators.values())))
        try:
            await asyncio.wait((stopped, failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            failed.cancel()
            await asyncio.gather(stopped, failed, return_exceptions=True)


async def _failure(simulators: list[VenueSimulator]) -> None:
    """Return once a source has failed."""
    for simulator in simulators:
        await simulator.finished.wait()
        if simulator.failure is not None:
            return
    await asyncio.Event().wait()

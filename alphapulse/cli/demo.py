"""``alphapulse demo``: everything, on simulated venues, without a network."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from alphapulse import log as logging_setup
from alphapulse.cli.common import load_settings, stop_on_sigterm
from alphapulse.cli.stack import Stack, StackError, port_is_free, run_stack
from alphapulse.cli.up import ApiPort, LogLevel, StreamPort, say
from alphapulse.config import Settings
from alphapulse.process import stop_event
from alphapulse.shm import remove_dead_under
from alphapulse.simulators import SimulationSettings, VenueSimulator, start_simulators

VENUES = ("coinbase", "kraken", "binance_us")
SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")
PREFIX = "alphapulse-demo"
"""Each demo has rings of its own under this beginning, so that several don't meet."""

RING_BYTES = 8 << 20
"""Hours of the demo's few messages, in an eighth of the memory that real venues are given."""

FEE_BPS = 1
"""What the simulated venues charge: their prices differ by some basis points at most, so that with
real venues' fees for small accounts nothing would ever be worth trading between them."""


def command(
    api_port: ApiPort = None,
    stream_port: StreamPort = None,
    rate: Annotated[
        float, typer.Option(min=0, help="Book updates a second and venue; 0: as fast as it goes.")
    ] = 50.0,
    trades: Annotated[float, typer.Option(min=0, help="Trades a second and venue.")] = 2.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 1,
    log_level: LogLevel = "warning",
) -> None:
    """Run the whole pipeline on simulated venues; needs no network and touches nothing else.

    Three venues with three symbols each send some 50 book updates and 2 trades a second. Without
    --api-port and --stream-port the usual ports are taken where they are free. Ctrl-C ends it.
    """
    stop_on_sigterm()
    remove_dead_under(PREFIX)
    _remove_left_folders()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}-{os.getpid()}-") as folder:
        simulation = SimulationSettings(
            venues=VENUES, symbols=SYMBOLS, seed=seed, book_rate=rate, trade_rate=trades
        )
        overrides = {"api.port": api_port, "stream.port": stream_port, "log.level": log_level}
        logging_setup.setup(load_settings(Path(os.devnull), overrides).log, "demo")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(_run(simulation, overrides, Path(folder)))
    raise typer.Exit(status)


async def _run(simulation: SimulationSettings, overrides: dict[str, Any], folder: Path) -> int:
    stop = stop_event()
    say("starting three simulated venues, their collectors, the stream and the API ...")
    try:
        async with start_simulators(simulation) as simulators:
            settings = _settings(simulators, overrides, folder)
            async with run_stack(settings) as stack:
                if await stack.healthy(stop, say):
                    _announce(stack)
                await stop.wait()
    except StackError as error:
        print(f"alphapulse demo: {error}; --log-level info says more", file=sys.stderr)
        return 1
    say("stopped")
    return 0


def _settings(
    simulators: dict[str, VenueSimulator], given: dict[str, Any], folder: Path
) -> Settings:
    """Settings of the demo's own: neither a file nor the user's Redis nor his rings are used."""
    overrides: dict[str, Any] = {
        "ring.prefix": f"{PREFIX}-{os.getpid()}",
        "ring.size_bytes": RING_BYTES,
        "store.redis_url": "",
        "store.path": str(folder / "demo.duckdb"),
    }
    for venue, simulator in simulators.items():
        overrides[f"venues.{venue}.enabled"] = True
        overrides[f"venues.{venue}.symbols"] = list(SYMBOLS)
        overrides[f"venues.{venue}.ws_url"] = simulator.ws_url
        overrides[f"venues.{venue}.rest_url"] = simulator.rest_url
        overrides[f"arbitrage.fees_bps.{venue}"] = FEE_BPS
    settings = load_settings(Path(os.devnull), {**given, **overrides})
    for section in ("api", "stream"):
        server = getattr(settings, section)
        if given[f"{section}.port"] is None and not port_is_free(server.host, server.port):
            overrides[f"{section}.port"] = 0
    return load_settings(Path(os.devnull), {**given, **overrides})


def _remove_left_folders() -> None:
    """Remove what demos that were killed left among the temporary files."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*-*"):
        owner = folder.name.split("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _announce(stack: Stack) -> None:
    prefix = stack.settings.ring.prefix
    fees = "".join(f" --fee {venue}={FEE_BPS}" for venue in VENUES)
    program = sys.argv[0] if Path(sys.argv[0]).name == "alphapulse" else "alphapulse"
    say(
        f"""
AlphaPulse is running on simulated venues: {", ".join(VENUES)}; {", ".join(SYMBOLS)}.

  REST     {stack.api_url}/health
  stream   {stack.stream_url}
  metrics  {stack.api_url}/metrics
  rings    {prefix}.<venue>

Worth trying in another terminal:

  {program} book kraken BTC-USD --prefix {prefix}
  {program} arbitrage --prefix {prefix}{fees}
  curl '{stack.api_url}/orderbook/BTC-USD?exchange=coinbase&depth=5'
  curl '{stack.api_url}/trades/BTC-USD/recent?exchange=binance_us&limit=5'

Ctrl-C ends it."""
    )

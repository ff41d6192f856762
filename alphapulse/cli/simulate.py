"""``alphapulse simulate``: the venues' side of the protocols, to try things without a network."""

from __future__ import annotations

import asyncio
import errno
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from alphapulse.cli.common import fail
from alphapulse.errors import CaptureError, ConfigError
from alphapulse.simulators import SIMULATORS, Endpoints, SimulationSettings, run

MAX_SYMBOLS = 10_000
"""Most pairs of a generated market; each takes some hundred kilobytes a venue."""


def command(
    venues: Annotated[
        list[str] | None,
        typer.Argument(metavar="VENUE", help=f"Any of {', '.join(SIMULATORS)}; default: three."),
    ] = None,
    symbols: Annotated[
        str, typer.Option(help="Unified symbols, comma-separated, or how many.")
    ] = "3",
    rate: Annotated[
        float, typer.Option(min=0, help="Book updates a second and venue; 0: as fast as it goes.")
    ] = 50.0,
    trades: Annotated[float, typer.Option(min=0, help="Trades a second and venue.")] = 2.0,
    levels: Annotated[int, typer.Option(min=1, help="Levels a side of each book.")] = 200,
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 1,
    capture: Annotated[
        Path | None, typer.Option(help="Play this recording instead; name its venue.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0, help="Of the recording: times its own pace; 0: as read.")
    ] = 1.0,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65000, help="First of the ports, two a venue; 0: any free ones."),
    ] = 0,
) -> None:
    """Run simulated venues: real WebSocket and REST servers that speak the venues' protocols.

    Prints the settings that point a collector at them. Ctrl-C ends it.

    For example:

      alphapulse simulate kraken --symbols BTC-USD,ETH-USD --rate 1000

      alphapulse simulate coinbase --capture coinbase.jsonl --speed 10
    """
    names = tuple(venues or ("coinbase", "kraken", "binance_us"))
    ports = {
        name: (port + 2 * place, port + 2 * place + 1) if port else (0, 0)
        for place, name in enumerate(names)
    }
    try:
        settings = SimulationSettings(
            venues=names,
            symbols=_symbols(symbols),
            seed=seed,
            book_rate=rate,
            trade_rate=trades,
            levels=levels,
            capture=str(capture) if capture else None,
            speed=speed or None,
            host=host,
            ports=ports if set(names) <= set(SIMULATORS) else {},
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings))
    except (ConfigError, CaptureError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.strerror}; {_remedy(error.errno)}")


def _remedy(number: int | None) -> str:
    """What helps who can't listen where he wants to."""
    if number == errno.EADDRINUSE:
        return "choose another --port (0: any free ones), or stop what listens there"
    if number == errno.EACCES:
        return "choose a --port from 1024 on (0: any free ones)"
    return "choose as --host an address of this machine"


def _symbols(text: str) -> int | tuple[str, ...]:
    if not text.isdecimal():
        return tuple(part.strip() for part in text.split(","))
    count = int(text) if len(text) < 10 else MAX_SYMBOLS + 1
    if not 1 <= count <= MAX_SYMBOLS:
        fail(f"--symbols {text}: write how many, 1 to {MAX_SYMBOLS}, or names like BTC-USD,ETH-USD")
    return count


async def _run(settings: SimulationSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(settings, _announce, stop)


def _announce(endpoints: dict[str, Endpoints]) -> None:
    print("simulating; point a collector here with these variables:", flush=True)
    for venue, (ws_url, rest_url) in endpoints.items():
        section = venue.removesuffix("_advanced").upper()
        print(f"  export ALPHAPULSE__VENUES__{section}__WS_URL={ws_url}", flush=True)
        print(f"  export ALPHAPULSE__VENUES__{section}__REST_URL={rest_url}", flush=True)
        if venue.endswith("_advanced"):
            print(f"  export ALPHAPULSE__VENUES__{section}__FEED=advanced", flush=True)

"""``alphapulse normalize``: exact JSON events, or measurements, from a recording."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from alphapulse.capture import Frame, read_capture
from alphapulse.cli.common import stop_on_sigterm
from alphapulse.cli.replay import PREFIX, Totals, normalize
from alphapulse.collectors.registry import VENUES, make_venue
from alphapulse.config import VenuesSettings, load
from alphapulse.errors import CaptureError, ConfigError
from alphapulse.shm import remove_dead_under


def command(
    capture: Annotated[
        Path,
        typer.Argument(
            metavar="CAPTURE",
            help="A recording: one JSON object {t, src, raw} a line, plain or zstd.",
        ),
    ],
    venue: Annotated[str, typer.Option(help=f"Who sent it: {', '.join(VENUES)}.")],
    depth: Annotated[
        int | None, typer.Option(help="Depth that was subscribed to (Kraken; default 1000).")
    ] = None,
    feed: Annotated[
        str | None, typer.Option(help="Coinbase's dialect: exchange (default) or advanced.")
    ] = None,
    output: Annotated[str, typer.Option(help="What to print: json (events) or none.")] = "json",
    repeat: Annotated[int, typer.Option(min=1, help="Passes, each from nothing.")] = 1,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print one JSON object of totals at the end.")
    ] = False,
) -> None:
    """Print a recording as exact JSON events, one a line.

    The recording goes through the daemon's own path: decoded, synchronised, checked, written to a
    ring of its own and read back. Frames that can't be used are counted and named on stderr.

    For example:

      alphapulse normalize kraken.jsonl --venue kraken --depth 10

      alphapulse normalize coinbase.jsonl --venue coinbase --output none --repeat 20 --stats
    """
    if output not in ("json", "none"):
        raise typer.BadParameter(f"{output!r} is neither json nor none", param_hint="--output")
    stop_on_sigterm()
    overrides = {"venues.kraken.depth": depth, "venues.coinbase.feed": feed}
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        # Neither a settings file nor the environment: a recording means the same everywhere.
        settings = load(os.devnull, {}, given)
        totals = run(capture, venue, settings.venues, output, repeat, settings.ring.size_bytes)
    except (CaptureError, ConfigError) as error:
        sys.stdout.flush()
        print(f"alphapulse normalize: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    if stats:
        print(msgspec.json.encode(totals).decode())


def run(
    capture: Path,
    venue: str,
    settings: VenuesSettings,
    output: str,
    repeat: int,
    ring_bytes: int,
) -> Totals:
    """Normalise a recording ``repeat`` times; events go to stdout unless ``output`` is none.

    Raises
    ------
    CaptureError
        the file can't be read or is no capture
    ConfigError
        there is no such venue
    """
    make_venue(venue, settings)
    remove_dead_under(PREFIX)
    frames: Iterable[Frame] = read_capture(capture)
    if repeat > 1:
        frames = list(frames)
    totals = Totals()
    for _ in range(repeat):
        normalize(
            frames,
            make_venue(venue, settings),
            ring_bytes=ring_bytes,
            totals=totals,
            emit=print if output == "json" else None,
            complain=lambda text: print(text, file=sys.stderr),
        )
    return totals

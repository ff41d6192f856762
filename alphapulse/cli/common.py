"""What the commands share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from alphapulse.config import Settings, load
from alphapulse.errors import ConfigError
from alphapulse.shm import list_prefixes

MOST_PREFIXES = 5
"""As many of other installations are named."""

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Settings file; default: $ALPHAPULSE_CONFIG, else ./alphapulse.toml if it exists.",
    ),
]
Prefix = Annotated[
    str | None, typer.Option("--prefix", help="First part of the rings' names (ring.prefix).")
]


def stop_on_sigterm() -> None:
    """Let SIGTERM end the program as Ctrl-C does, so that what it holds is given back."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)


def load_settings(path: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """Settings for a command; what is wrong with them ends the program with status 2."""
    try:
        return load(
            path, None, {key: value for key, value in overrides.items() if value is not None}
        )
    except ConfigError as error:
        fail(str(error))


def where_rings_are(prefix: str) -> str:
    """What helps whoever looked for rings under a prefix that has none."""
    others = [each for each in list_prefixes() if each != prefix][:MOST_PREFIXES]
    if others:
        return f"there are some with {' or '.join(f'--prefix {each}' for each in others)}"
    return "start some with `alphapulse up` or `alphapulse demo`"


def print_table(table: Table) -> None:
    """Print a table, wider than the terminal if need be: cut into pieces, no name can be copied."""
    console = Console()
    unbounded = console.options.update(max_width=10_000)
    needed = Measurement.get(console, unbounded, table).maximum
    Console(width=max(console.width, needed)).print(table)


def fail(message: str, status: int = 2) -> NoReturn:
    """End the program with a message on stderr."""
    print(f"alphapulse: {message}", file=sys.stderr)
    raise typer.Exit(status)

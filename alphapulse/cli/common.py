"""What the commands share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from alphapulse.config import Settings, load
from alphapulse.errors import ConfigError

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


def fail(message: str, status: int = 2) -> NoReturn:
    """End the program with a message on stderr."""
    print(f"alphapulse: {message}", file=sys.stderr)
    raise typer.Exit(status)

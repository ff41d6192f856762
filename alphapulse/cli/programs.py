"""The command lines of the servers."""

from __future__ import annotations

from typing import Annotated

import typer

from alphapulse.cli.common import ConfigFile, Prefix
from alphapulse.cli.serve import serve
from alphapulse.cli.up import LogLevel

Host = Annotated[str | None, typer.Option("--host", help="Address to listen at; 127.0.0.1.")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen at; 0: any free one.")]

Workers = Annotated[int | None, typer.Option("--workers", help="Processes that share the port; 1.")]


def collectors(
    config: ConfigFile = None, prefix: Prefix = None, log_level: LogLevel = None
) -> None:
    """Collect from the venues of the settings into shared-memory rings, a process per venue.

    A venue's process that crashes is started again; Ctrl-C or SIGTERM ends them all and removes
    the rings. Needs nothing else to run; stream, API and programs of yours read the rings.
    """
    overrides = {"ring.prefix": prefix, "log.level": log_level}
    raise typer.Exit(serve("collectors", overrides, config))


def stream(
    config: ConfigFile = None,
    prefix: Prefix = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    log_level: LogLevel = None,
) -> None:
    """Serve the rings to WebSocket clients at /ws (default port 8765).

    Venues may start and end meanwhile. docs/stream.md tells what a client sends and gets.
    """
    overrides = {
        "ring.prefix": prefix,
        "stream.host": host,
        "stream.port": port,
        "stream.workers": workers,
        "log.level": log_level,
    }
    raise typer.Exit(serve("stream", overrides, config))


def store(config: ConfigFile = None, prefix: Prefix = None, log_level: LogLevel = None) -> None:
    """Write trades, gaps, books and bars from the rings to Redis (REDIS_URL), and fill the gaps.

    `alphapulse-api-server` does this by itself; with store.writer = "apart" it is left to this
    program. Where one is at work already, a second one stands by.
    """
    overrides = {"ring.prefix": prefix, "log.level": log_level}
    raise typer.Exit(serve("store", overrides, config))


def api(
    config: ConfigFile = None,
    prefix: Prefix = None,
    host: Host = None,
    port: Port = None,
    log_level: LogLevel = None,
) -> None:
    """Serve history, live books and metrics over REST (default port 3001).

    Trades are written to the embedded database, or by a process of its own to Redis where REDIS_URL
    is set.
    """
    overrides = {
        "ring.prefix": prefix,
        "api.host": host,
        "api.port": port,
        "log.level": log_level,
    }
    raise typer.Exit(serve("api", overrides, config))

"""``alphapulse up``: everything in one command."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
import uvloop

from alphapulse import log as logging_setup
from alphapulse.cli.common import ConfigFile, Prefix, fail, load_settings, stop_on_sigterm
from alphapulse.cli.stack import Stack, StackError, run_stack
from alphapulse.config import Settings, refuse_exposure
from alphapulse.config.values import RedisUrl, masked
from alphapulse.errors import ConfigError
from alphapulse.process import stop_event

ApiPort = Annotated[
    int | None, typer.Option("--api-port", help="Port of the REST API (api.port); 0: any free one.")
]
StreamPort = Annotated[
    int | None,
    typer.Option("--stream-port", help="Port of the stream (stream.port); 0: any free one."),
]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", help="debug, info, warning or error (log.level).")
]


def command(
    config: ConfigFile = None,
    prefix: Prefix = None,
    api_port: ApiPort = None,
    stream_port: StreamPort = None,
    log_level: LogLevel = None,
) -> None:
    """Collect from the venues of the settings, and serve stream, REST and metrics.

    One process per venue, one for the stream, one for the API with its store. A process that
    crashes is started again; Ctrl-C or SIGTERM ends them all.

    For example:

      alphapulse up

      alphapulse up --config desk.toml --api-port 0 --stream-port 0
    """
    stop_on_sigterm()
    overrides = {
        "ring.prefix": prefix,
        "api.port": api_port,
        "stream.port": stream_port,
        "log.level": log_level,
    }
    settings = load_settings(config, overrides)
    try:
        refuse_exposure("stream", settings.stream)
        refuse_exposure("api", settings.api)
    except ConfigError as error:
        fail(str(error))
    if not settings.venues.enabled():
        fail("no venue is enabled; see venues.<name>.enabled in docs/configuration.md")
    logging_setup.setup(settings.log, "up")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_run(settings))
    raise typer.Exit(status)


async def _run(settings: Settings) -> int:
    stop = stop_event()
    try:
        async with run_stack(settings) as stack:
            _announce(stack)
            if await stack.healthy(stop, say):
                say("all books are live")
            await stop.wait()
    except StackError as error:
        print(f"alphapulse up: {error}; its log says why", file=sys.stderr)
        return 1
    return 0


def _announce(stack: Stack) -> None:
    settings = stack.settings
    store = settings.store.path
    if settings.store.redis_url:
        store = f"Redis at {masked(settings.store.redis_url, RedisUrl)}"
    say(f"collecting  {', '.join(settings.venues.enabled())}")
    say(f"REST        {stack.api_url}/health  (metrics at /metrics)")
    say(f"stream      {stack.stream_url}")
    prefix = settings.ring.prefix
    say(f"rings       {prefix}.<venue>; `alphapulse rings --prefix {prefix}` lists them")
    say(f"history     {store}")


def say(text: str) -> None:
    """Tell the user at once, even where stdout is a file."""
    print(text, flush=True)

"""Several processes that serve one port, supervised: ``python -m alphapulse.stream.workers``.

The kernel deals new connections out to them. Each reads all rings by itself; what one encodes isn't
shared with the others, so that more of them pay off where sending is what takes the time.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from inspect import isawaitable

import msgspec

from alphapulse.config import Settings, refuse_exposure
from alphapulse.errors import ConfigError
from alphapulse.log import get_logger
from alphapulse.process import Child, Ready, Supervised, run_service, stop_event, supervise
from alphapulse.stream.door import listen
from alphapulse.stream.server import run_stream
from alphapulse.stream.tls import server_context

log = get_logger(__name__)


async def run_workers(
    settings: Settings,
    *,
    ready: Callable[[int], Awaitable[None] | None] | None = None,
    stop: asyncio.Event | None = None,
) -> int:
    """Run as many servers as ``stream.workers`` says until told to stop; returns the exit status.

    Call it from the program's main thread: the processes end with the thread that started them.

    Parameters
    ----------
    settings : all of them
    ready : called with the port once all of them accept connections
    stop : set it to end; without it the process's signals do

    Raises
    ------
    ConfigError
        they can't listen as the settings say
    """
    stream = settings.stream
    refuse_exposure("stream", stream)
    server_context(stream)
    stop = stop_event() if stop is None else stop
    reserved = _reserve(stream.host, stream.port)
    try:
        port: int = reserved[0].getsockname()[1]
        shared = msgspec.structs.replace(
            settings, stream=msgspec.structs.replace(stream, port=port)
        )
        workers = [
            Supervised(Child(f"stream-{number}", "alphapulse.stream.workers"), shared, stop)
            for number in range(1, stream.workers + 1)
        ]
        telling = asyncio.create_task(_tell(workers, port, ready))
        try:
            return await supervise(workers, stop)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
    finally:
        for one in reserved:
            one.close()


def _reserve(host: str, port: int) -> list[socket.socket]:
    """Sockets that keep the port while no worker listens on it; they don't listen themselves."""
    try:
        if port:
            # Sockets that are shared would share with another program's as well.
            for one in listen(host, port, shared=False):
                one.close()
        return listen(host, port, shared=True)
    except OSError as error:
        raise ConfigError(
            "stream.port", f"can't listen on {host}:{port}: {error.strerror}"
        ) from None


async def _tell(
    workers: list[Supervised], port: int, ready: Callable[[int], Awaitable[None] | None] | None
) -> None:
    await asyncio.gather(*(worker.ready for worker in workers))
    log.info("stream's workers listen", port=port, workers=len(workers))
    if ready is not None:
        called = ready(port)
        if isawaitable(called):
            await called


async def _serve(settings: Settings, ready: Ready) -> int:
    return await run_stream(settings, ready=lambda port: ready(port=port), shared=True)


if __name__ == "__main__":
    sys.exit(run_service("stream", _serve, sys.argv[1:]))

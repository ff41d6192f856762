"""The REST server: uvicorn around the application, and the rings beside it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn

from alphapulse import metrics
from alphapulse.api.app import create_app
from alphapulse.api.connections import Connection
from alphapulse.api.context import Backend, Context
from alphapulse.api.market import LiveMarkets
from alphapulse.config import ApiSettings, Settings, refuse_exposure
from alphapulse.errors import ConfigError
from alphapulse.log import get_logger

SERVICE = "api"
BACKLOG = 1024
CLOSE_SECONDS = 5
"""How long requests under way may take when the server ends."""

Ready = Callable[[int], Awaitable[None] | None]

log = get_logger(__name__)


async def run_api(
    settings: Settings,
    repository: Backend,
    *,
    ready: Ready | None = None,
    stop: asyncio.Event | None = None,
    written: Callable[[], bool] | None = None,
) -> int:
    """Run the REST server until SIGTERM, SIGINT or `stop`; returns the exit status.

    Parameters
    ----------
    settings : all of them
    repository : the store; the caller closes it
    ready : called with the port once connections are accepted
    stop : set it to end; without it the process's signals are handled here
    written : tells whether the history is being written; without it, it isn't missed

    Raises
    ------
    ConfigError
        it can't listen as the settings say
    """
    refuse_exposure("api", settings.api)
    listener = _listen(settings.api)
    loop = asyncio.get_running_loop()
    ending = asyncio.Event() if stop is None else stop
    signals = (signal.SIGTERM, signal.SIGINT) if stop is None else ()
    for number in signals:
        loop.add_signal_handler(number, ending.set)
    sampler = asyncio.create_task(
        metrics.ProcessSampler(SERVICE).run(settings.metrics.sample_seconds), name="sampler"
    )
    try:
        async with LiveMarkets(settings.ring.prefix) as markets:
            context = Context(settings, repository, markets, written)
            server = _Server(_config(create_app(context)))
            async with context.crossings as crossings:
                failures = {markets.failed, crossings.failed}
                await _serve(server, listener, failures, ending, ready)
    finally:
        listener.close()
        sampler.cancel()
        await asyncio.gather(sampler, return_exceptions=True)
        for number in signals:
            loop.remove_signal_handler(number)
    return 0


class _Server(uvicorn.Server):
    """Leaves the process's signals to whoever runs it, and tells when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        await super().startup(sockets=sockets)
        self.accepting.set()


def _config(app: Callable[..., object]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        http=Connection,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )


async def _serve(
    server: _Server,
    listener: socket.socket,
    failures: set[asyncio.Task[None]],
    ending: asyncio.Event,
    ready: Ready | None,
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    accepting = asyncio.create_task(server.accepting.wait(), name="accepting")
    stopped = asyncio.create_task(ending.wait(), name="stop")
    try:
        await asyncio.wait({serving, accepting}, return_when=asyncio.FIRST_COMPLETED)
        if accepting.done():
            host, port = listener.getsockname()[:2]
            log.info("REST listens", host=host, port=port)
            if ready is not None:
                called = ready(port)
                if inspect.isawaitable(called):
                    await called
        await asyncio.wait({serving, stopped, *failures}, return_when=asyncio.FIRST_COMPLETED)
        for failed in failures:
            if failed.done():
                failed.result()  # raises what has ended it
    finally:
        server.should_exit = True
        for task in (accepting, stopped):
            task.cancel()
        await asyncio.gather(serving, accepting, stopped, return_exceptions=True)


def _listen(settings: ApiSettings) -> socket.socket:
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.host.strip("[]"),
            settings.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError("api.host", f"can't listen on {where}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError("api.port", f"can't listen on {where}: {error.strerror}") from None
    return listener

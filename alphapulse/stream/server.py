"""The WebSocket server: listens, accepts, and takes everything down in order."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import resource
import signal
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
import picows

from alphapulse import metrics
from alphapulse.arbitrage import Terms
from alphapulse.config import Settings, refuse_exposure
from alphapulse.errors import ConfigError
from alphapulse.log import get_logger
from alphapulse.shm import RingReader
from alphapulse.stream.access import Access, Refused, offered_extensions
from alphapulse.stream.client import Limits
from alphapulse.stream.connection import CLOSE_REASONS, Connection
from alphapulse.stream.deflate import AGREED, accepts
from alphapulse.stream.door import BACKLOG, Door, listen
from alphapulse.stream.hub import Hub
from alphapulse.stream.inbound import FRAME_ROOM
from alphapulse.stream.pump import SERVICE, Pump
from alphapulse.stream.tls import server_context

log = get_logger(__name__)

PATH = "/ws"
HEALTH_PATH = "/health"

IDLE_SECONDS = 30.0
"""A client that is silent for this long is probed by a ping, and has `REPLY_SECONDS` to answer."""
REPLY_SECONDS = 20.0

CLOSE_SECONDS = 2.0
"""How long clients have to take their leave when the server ends."""

OTHER_FILES = 256
"""Files that a process needs besides its clients' sockets."""

_JSON = {"Content-Type": "application/json"}

_TOO_MANY, _UNFINISHED = "too_many_handshakes", "unfinished"
REFUSALS = (
    *("forbidden", "unauthorized", "not_found", "service_unavailable"),
    *(_TOO_MANY, _UNFINISHED),
)
"""What the metric calls the ways in which a connection doesn't become a WebSocket."""


class StreamServer:
    """Serves the rings of a prefix to WebSocket clients.

    Parameters
    ----------
    settings : sections ``stream``, ``ring`` and ``venues``
    shared : whether other processes listen on the same port

    Raises
    ------
    ConfigError
        it would listen beyond this machine without a token, or the certificate can't be used
    """

    def __init__(self, settings: Settings, *, shared: bool = False) -> None:
        stream = settings.stream
        refuse_exposure("stream", stream)
        limits = Limits(
            queue_bytes=stream.max_queue_bytes,
            behind_ns=int(stream.behind_seconds * 1e9),
            subscriptions=stream.max_subscriptions,
        )
        loop = asyncio.get_running_loop()
        prefix = settings.ring.prefix
        self.hub = Hub(
            settings.venues.enabled(),
            limits,
            later=loop.call_soon,
            wake=loop.call_later,
            open_ring=lambda exchange, start: RingReader(exchange, prefix=prefix, start=start),
            terms=Terms.from_settings(settings.arbitrage),
        )
        self._settings = stream
        self._shared = shared
        self._tls = server_context(stream)
        self._doors: list[Door] = []
        self._answered = 0
        """Handshakes that ended with an answer, and whose sockets haven't been closed yet."""
        self._access = Access(stream)
        self._pump = Pump(self.hub, prefix)
        self._connections: set[Connection] = set()
        self._clients = metrics.STREAM_CLIENTS.bind()
        # These count from 0, so that the first of each is seen.
        metrics.STREAM_RATE_LIMITED.bind()
        for reason in CLOSE_REASONS:
            metrics.STREAM_CLOSES.bind(reason=reason)
        for reason in REFUSALS:
            metrics.STREAM_REFUSED.bind(reason=reason)
        self._empty = asyncio.Event()
        self._empty.set()

    async def run(
        self,
        stop: asyncio.Event,
        ready: Callable[[int], Awaitable[None] | None] | None = None,
    ) -> None:
        """Serve until told to stop.

        Parameters
        ----------
        stop : set it to end
        ready : called with the port once connections are accepted

        Raises
        ------
        ConfigError
            the address can't be listened on
        """
        tasks = [
            asyncio.create_task(self._pump.run(), name="rings"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        try:
            # The rings that are there are known before the first client asks for one.
            await self._pump.looked.wait()
            servers = await self._listen()
            try:
                await self._announce(ready)
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()  # raises what has ended the reading of rings
            finally:
                for server in servers:
                    server.close()
                await self._dismiss()
                await asyncio.gather(*(server.wait_closed() for server in servers))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _announce(self, ready: Callable[[int], Awaitable[None] | None] | None) -> None:
        port: int = self._doors[0].getsockname()[1]
        log.info("stream listens", host=self._settings.host, port=port, path=PATH)
        if ready is not None:
            called = ready(port)
            if inspect.isawaitable(called):
                await called

    async def _listen(self) -> list[asyncio.Server]:
        settings = self._settings
        allow_files(settings.max_clients + settings.max_handshakes)
        try:
            bound = listen(settings.host, settings.port, shared=self._shared)
        except OSError as error:
            key = f"{settings.host}:{settings.port}"
            raise ConfigError("stream.port", f"can't listen on {key}: {error.strerror}") from None
        self._doors = [
            Door(one, settings.max_handshakes, self._evicted, self._left) for one in bound
        ]
        return [await self._open(door) for door in self._doors]

    async def _open(self, door: Door) -> asyncio.Server:
        settings = self._settings
        encrypted: dict[str, Any] = {}
        if self._tls is not None:
            encrypted = {"ssl": self._tls, "ssl_handshake_timeout": settings.handshake_seconds}
        return await picows.ws_create_server(
            self._accept,
            sock=door,
            websocket_handshake_timeout=settings.handshake_seconds,
            max_frame_size=settings.max_request_bytes * FRAME_ROOM,
            read_buffer_init_size=2048,
            enable_auto_pong=False,
            enable_auto_ping=True,
            auto_ping_idle_timeout=IDLE_SECONDS,
            auto_ping_reply_timeout=REPLY_SECONDS,
            disconnect_on_exception=True,
            logger_name=_FaultsOnly(logging.getLogger(__name__), {}),
            backlog=BACKLOG,
            **encrypted,
        )

    def _accept(
        self, request: picows.WSUpgradeRequest
    ) -> picows.WSListener | picows.WSUpgradeResponseWithListener:
        try:
            return self._answer(request)
        except Refused as error:
            log.info("handshake refused", status=error.status.value, problem=error.problem)
            metrics.STREAM_REFUSED.bind(reason=error.status.name.lower()).inc()
            self._answered += 1
            extra = {}
            if error.status is HTTPStatus.UNAUTHORIZED:
                extra["WWW-Authenticate"] = "Bearer"
            return _respond(
                picows.WSUpgradeResponse.create_error_response(
                    error.status, error.problem.encode(), extra
                )
            )

    def _answer(self, request: picows.WSUpgradeRequest) -> picows.WSUpgradeResponseWithListener:
        headers = request.headers
        path, _, query = request.path.decode("latin-1").partition("?")
        self._access.check_host(headers)
        self._access.check_origin(headers)
        if path == HEALTH_PATH:
            return self._health(whole=self._access.has_token(headers))
        if path != PATH:
            raise Refused(HTTPStatus.NOT_FOUND, f"there are {PATH} and {HEALTH_PATH}")
        self._access.check_token(headers)
        if len(self._connections) >= self._settings.max_clients:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many clients")
        # Some browsers send "keep-alive, Upgrade", which is right and not understood below.
        tokens = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
        if "upgrade" in tokens:
            headers["Connection"] = "Upgrade"
        answer = dict(self._access.selected(headers))
        compressed = self._settings.compression and accepts(offered_extensions(headers))
        if compressed:
            answer["Sec-WebSocket-Extensions"] = AGREED
        connection = Connection(
            self.hub,
            self._settings,
            query,
            compressed=compressed,
            opened=self._opened,
            ended=self._ended,
        )
        response = picows.WSUpgradeResponse.create_101_response(answer)
        return picows.WSUpgradeResponseWithListener(response, connection)

    def _health(self, *, whole: bool) -> picows.WSUpgradeResponseWithListener:
        body: dict[str, object] = {"status": "ok", "service": SERVICE}
        if whole:
            body.update(self.hub.describe())
        self._answered += 1
        return _respond(
            picows.WSUpgradeResponse.create_ok_response(msgspec.json.encode(body), _JSON)
        )

    def _opened(self, connection: Connection) -> None:
        for door in self._doors:
            door.admit(connection.fd)
        self._connections.add(connection)
        self._empty.clear()
        self._clients.inc()

    def _ended(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._clients.dec()
        if not self._connections:
            self._empty.set()

    def _evicted(self) -> None:
        metrics.STREAM_REFUSED.bind(reason=_TOO_MANY).inc()

    def _left(self) -> None:
        """A connection was closed that isn't a client's."""
        if self._answered:
            self._answered -= 1
        else:
            metrics.STREAM_REFUSED.bind(reason=_UNFINISHED).inc()

    async def _dismiss(self) -> None:
        """Close all clients, and wait for them a little."""
        for connection in list(self._connections):
            connection.end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), CLOSE_SECONDS)
        for connection in list(self._connections):
            connection.abort()


async def run_stream(
    settings: Settings,
    *,
    ready: Callable[[int], Awaitable[None] | None] | None = None,
    stop: asyncio.Event | None = None,
    shared: bool = False,
) -> int:
    """Run the stream server until SIGTERM, SIGINT or `stop`; returns the exit status.

    Parameters
    ----------
    settings : all of them
    ready : called with the port once connections are accepted
    stop : set it to end; without it the process's signals are handled here
    shared : whether other processes listen on the same port

    Raises
    ------
    ConfigError
        it can't listen as the settings say
    """
    server = StreamServer(settings, shared=shared)
    loop = asyncio.get_running_loop()
    ending = asyncio.Event() if stop is None else stop
    signals = (signal.SIGTERM, signal.SIGINT) if stop is None else ()
    for number in signals:
        loop.add_signal_handler(number, ending.set)
    sampler = asyncio.create_task(
        metrics.ProcessSampler(SERVICE).run(settings.metrics.sample_seconds), name="sampler"
    )
    try:
        await server.run(ending, ready)
    finally:
        sampler.cancel()
        await asyncio.gather(sampler, return_exceptions=True)
        for number in signals:
            loop.remove_signal_handler(number)
    return 0


def allow_files(wanted: int) -> None:
    """Let this process have so many connections, as far as its hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning("fewer clients can connect than are allowed", files=hard, needed=needed)
        needed = hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class _FaultsOnly(logging.LoggerAdapter[logging.Logger]):
    """For the WebSocket library, which tells of every connection and of every client's fault."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Pass on what comes with an exception: a fault of this program."""
        if kwargs.get("exc_info"):
            super().log(level, msg, *args, **kwargs)


def _respond(response: picows.WSUpgradeResponse) -> picows.WSUpgradeResponseWithListener:
    return picows.WSUpgradeResponseWithListener(response, None)

"""The REST side of a simulator: the venue's routes, and ``/control`` for tests and demos.

``GET /control`` tells connections, subscriptions and counts; ``GET /control/book/{symbol}`` the
venue's book; ``POST /control/{fault}`` calls a method of `Faults` with a JSON object of arguments.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alphapulse.errors import SymbolError
from alphapulse.simulators.faults import FAULTS

if TYPE_CHECKING:
    from alphapulse.simulators.base import VenueSimulator

Handler = Callable[[Request], Awaitable[Response]]

BACKLOG = 2048
"""Connections that may wait to be accepted."""


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; bytes are taken as JSON already."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(content, status, headers, "application/json")


def control_routes(simulator: VenueSimulator) -> list[Route]:
    """Routes below ``/control``."""

    async def state(_: Request) -> Response:
        return json_response(simulator.describe())

    async def book(request: Request) -> Response:
        try:
            found = simulator.book(request.path_params["symbol"])
        except LookupError as error:
            return json_response({"error": str(error)}, 404)
        return json_response(found._asdict())

    async def fault(request: Request) -> Response:
        name = request.path_params["fault"]
        if name not in FAULTS:
            return json_response(
                {"error": f"no fault {name!r}; there are {', '.join(sorted(FAULTS))}"}, 404
            )
        method = getattr(simulator.faults, name)
        try:
            arguments = msgspec.json.decode(await request.body() or b"{}", type=dict[str, Any])
            inspect.signature(method).bind(**arguments)
            method(**arguments)
        except (msgspec.MsgspecError, TypeError, ValueError, SymbolError) as error:
            return json_response({"error": str(error)}, 422)
        simulator.flush()
        return json_response({"done": name})

    return [
        Route("/control", state),
        Route("/control/book/{symbol:path}", book),
        Route("/control/{fault}", fault, methods=["POST"]),
    ]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `OSError`, naming the address, where there can be none."""
    try:
        listener = socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        # Python's own text repeats the address.
        reason, _, _ = (error.strerror or str(error)).partition(" (while attempting")
        raise OSError(error.errno, f"can't listen on {host}:{port}: {reason}") from error
    listener.setblocking(False)
    return listener


class WebServer:
    """Starlette on uvicorn within the running event loop, without a task of its own.

    Parameters
    ----------
    routes : what it serves
    """

    def __init__(self, routes: list[Route]) -> None:
        config = uvicorn.Config(
            Starlette(routes=routes),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._sockets: list[socket.socket] = []
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises `OSError` as `listen` does."""
        listener = listen(host, port)
        self._sockets = [listener]
        self.port = listener.getsockname()[1]
        # startup and shutdown rather than serve: no signal handlers, no timer ten times a second.
        await self._server.startup(self._sockets)

    async def stop(self) -> None:
        """Answer what was asked, then close."""
        if self._sockets:
            await self._server.shutdown(self._sockets)
            self._sockets = []

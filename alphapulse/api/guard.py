"""What every request passes: Host, token, errors as problems, and the metrics."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alphapulse import metrics
from alphapulse.api.context import STARTED
from alphapulse.api.problems import Problem
from alphapulse.config import ApiSettings, is_loopback
from alphapulse.errors import RequestError, StoreError
from alphapulse.log import get_logger

PATH = "alphapulse.path"
"""Key of the scope under which the path's pattern is, once it was found."""

OPEN_PATHS = frozenset({"/docs", "/health/live", "/health/ready"})
"""These say nothing but whether all is well, or nothing of this installation; no token needed."""

MAX_BODY_BYTES = 65536
"""No path takes a body; a request with a larger one isn't read to its end."""
MAX_QUERY_BYTES = 8192

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = get_logger(__name__)


class Guard:
    """ASGI middleware.

    Parameters
    ----------
    app : what is guarded
    settings : section ``api``
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._hosts = {name.lower() for name in (settings.host, *settings.allowed_hosts)}
        self._token = settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[STARTED] = time.perf_counter()
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value
        begun = False

        async def watched(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, watched)
        except Exception as error:
            if begun:
                raise
            await problem_of(error).response()(scope, receive, watched)
        finally:
            _count(scope, status)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        names = headers.getlist("host")
        name = _hostname(names[0]) if len(names) == 1 else None
        if name is None or not (is_loopback(name) or name in self._hosts):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "Host: this name isn't served; names besides localhost go into api.allowed_hosts",
                "Host",
            )
        _check_size(scope, headers)
        if self._token and scope["path"] not in OPEN_PATHS:
            self._check_token(headers.getlist("authorization"))

    def _check_token(self, values: Iterable[str]) -> None:
        for value in values:
            scheme, _, token = value.partition(" ")
            given = token.strip().encode("latin-1")
            if scheme.lower() == "bearer" and hmac.compare_digest(given, self._token):
                return
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "Authorization: a token is needed; send Authorization: Bearer TOKEN",
            "Authorization",
            {"WWW-Authenticate": "Bearer"},
        )


def _check_size(scope: Scope, headers: Headers) -> None:
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"Content-Length: no path takes a body, let alone one of over {MAX_BODY_BYTES} B",
            "Content-Length",
            {"Connection": "close"},
        )
    if len(scope["query_string"]) > MAX_QUERY_BYTES:
        raise Problem(
            HTTPStatus.REQUEST_URI_TOO_LONG, f"the query is longer than {MAX_QUERY_BYTES} bytes"
        )


def problem_of(error: Exception) -> Problem:
    """The answer to a request that ended with an exception."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        return Problem(status, status.description or status.phrase, None, error.headers)
    if isinstance(error, RequestError):
        return Problem(HTTPStatus.BAD_REQUEST, error.message)
    if isinstance(error, StoreError):
        log.warning("the store failed", problem=str(error))
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), None, {"Retry-After": "1"})
    log.error("a request failed", exc_info=error)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says how.")


def _count(scope: Scope, status: int) -> None:
    method = scope["method"] if scope["method"] in METHODS else "other"
    path = scope.get(PATH, "other")
    metrics.HTTP_REQUESTS.bind(method=method, path=path, status=str(status)).inc()
    duration = (time.perf_counter() - scope[STARTED]) * 1000
    metrics.HTTP_REQUEST_DURATION.bind(method=method, path=path).observe(duration)


def _hostname(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        # Reading the port checks it.
        return parts.hostname if parts.port is None or parts.port else None
    except ValueError:
        return None

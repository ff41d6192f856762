"""What every request passes: Host, token, what it may bring, and errors as problems."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.types import Scope

from alphapulse.api.headers import header_values
from alphapulse.api.problems import Problem
from alphapulse.config import ApiSettings, is_loopback
from alphapulse.errors import RequestError, StoreError
from alphapulse.log import get_logger

OPEN_PATHS = frozenset({"/docs", "/health/live", "/health/ready"})
"""These say nothing but whether all is well, or nothing of this installation; no token needed."""

MAX_QUERY_BYTES = 8192

log = get_logger(__name__)


class Guard:
    """Refuses requests that aren't for this server, or not from whom it serves.

    Parameters
    ----------
    settings : section ``api``
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._hosts = {name.lower() for name in (settings.host, *settings.allowed_hosts)}
        self._token = settings.token.encode()
        self._writable = settings.writable

    def check(self, scope: Scope) -> None:
        """Look at Host, query and token. Raises `Problem`."""
        hosts = header_values(scope, b"host")
        name = _hostname(hosts[0]) if len(hosts) == 1 else None
        if name is None or not (_is_loopback(name) or name in self._hosts):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "Host: this name isn't served; names besides localhost go into api.allowed_hosts",
                "Host",
            )
        if len(scope["query_string"]) > MAX_QUERY_BYTES:
            raise Problem(
                HTTPStatus.REQUEST_URI_TOO_LONG, f"the query is longer than {MAX_QUERY_BYTES} bytes"
            )
        if self._token and scope["path"] not in OPEN_PATHS:
            self._check_token(header_values(scope, b"authorization"))

    def check_body(self, scope: Scope, most: int) -> None:
        """Look at how much the request brings. Raises `Problem`.

        Parameters
        ----------
        scope : the request's
        most : bytes that the path takes
        """
        for length in header_values(scope, b"content-length"):
            if not length.isdecimal() or int(length) > most:
                raise Problem(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"Content-Length: this path takes no body of over {most} B",
                    "Content-Length",
                )

    def check_writing(self, scope: Scope) -> None:
        """Look whether the request may change what is stored. Raises `Problem`."""
        if not self._writable:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "nothing can be stored through this server: api.writable isn't set",
            )
        # Any page that a browser shows could send it here, if this server has no token.
        if header_values(scope, b"origin"):
            raise Problem(HTTPStatus.FORBIDDEN, "Origin: web pages can't store anything", "Origin")

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


def problem_of(error: Exception) -> Problem:
    """The answer to a request that ended with an exception."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestError):
        return Problem(HTTPStatus.BAD_REQUEST, error.message)
    if isinstance(error, StoreError):
        log.warning("the store failed", problem=str(error))
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), None, {"Retry-After": "1"})
    log.error("a request failed", exc_info=error)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says how.")


_is_loopback = lru_cache(maxsize=64)(is_loopback)


@lru_cache(maxsize=64)
def _hostname(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        # Reading the port checks it.
        return parts.hostname if parts.port is None or parts.port else None
    except ValueError:
        return None

"""Who may connect: the checks of the handshake's Host, Origin and token.

A browser sends what any page tells it to, to any server that its user can reach: Origin says which
page it was, Host by which name it found us. Programs on this machine send no Origin.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

from alphapulse.config import StreamSettings, is_loopback
from alphapulse.errors import AlphaPulseError

PROTOCOL = "alphapulse"
"""The subprotocol's name."""

BEARER = "bearer."
"""May begin a subprotocol that is a token: a browser has no other place for it."""


class Headers(Protocol):
    """An HTTP request's headers, by name in any case."""

    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]:
        """All values of a header."""


class Refused(AlphaPulseError):
    """A handshake that isn't accepted.

    Parameters
    ----------
    status : HTTP status of the answer
    problem : the answer's text
    """

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem


class Access:
    """The rules of one server.

    Parameters
    ----------
    settings : section ``stream``
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._hosts = {name.lower() for name in (settings.host, *settings.allowed_hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in settings.origins}
        self._token = settings.token.encode()

    def check_host(self, headers: Headers) -> None:
        """Accept only names that are meant to lead here.

        Raises
        ------
        Refused
            403: a page of a foreign name that was made to resolve to this address
        """
        hosts = headers.getall("Host", ())
        name = _hostname(f"//{hosts[0]}") if len(hosts) == 1 else None
        if name is None or not (is_loopback(name) or name in self._hosts):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "this Host isn't served; names besides localhost go into stream.allowed_hosts",
            )

    def check_origin(self, headers: Headers) -> None:
        """Accept programs, pages from this machine and those in the settings.

        Raises
        ------
        Refused
            403: another page
        """
        for origin in headers.getall("Origin", ()):
            name = _hostname(origin)
            local = name is not None and is_loopback(name)
            if not local and origin.lower() not in self._origins:
                raise Refused(
                    HTTPStatus.FORBIDDEN,
                    "this Origin may not connect; origins of pages go into stream.origins",
                )

    def check_token(self, headers: Headers) -> None:
        """Demand the settings' token, if they have one.

        Raises
        ------
        Refused
            401: there is none, or a wrong one
        """
        if self._token and not self.has_token(headers):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "a token is needed: Authorization: Bearer TOKEN, or the subprotocol bearer.TOKEN",
            )

    def has_token(self, headers: Headers) -> bool:
        """Whether the token was presented, if there is one; takes as long for any wrong one."""
        given = [protocol.removeprefix(BEARER) for protocol in offered(headers)]
        for value in headers.getall("Authorization", ()):
            scheme, _, credentials = value.partition(" ")
            if scheme.lower() == "bearer":
                given.append(credentials.strip())
        right = [self._is_token(token) for token in given]
        return not self._token or any(right)

    def selected(self, headers: Headers) -> Mapping[str, str]:
        """The answer's headers: browsers give up where none of their subprotocols is chosen."""
        names = offered(headers)
        chosen = [PROTOCOL] if PROTOCOL in names else [n for n in names if self._carries_token(n)]
        return {"Sec-WebSocket-Protocol": chosen[0]} if chosen else {}

    def _carries_token(self, protocol: str) -> bool:
        return protocol.startswith(BEARER) or (bool(self._token) and self._is_token(protocol))

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="surrogateescape"), self._token)


def offered(headers: Headers) -> list[str]:
    """The subprotocols that a client offers."""
    values = ",".join(headers.getall("Sec-WebSocket-Protocol", ()))
    return [name for name in (value.strip() for value in values.split(",")) if name]


def offered_extensions(headers: Headers) -> Sequence[str]:
    """The WebSocket extensions that a client offers, as its headers have them."""
    return headers.getall("Sec-WebSocket-Extensions", ())


def _hostname(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        return parts.hostname if parts.port is None or parts.port else None
    except ValueError:
        return None

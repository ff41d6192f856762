"""Requests to the REST API: what is tried again, how long, and what errors become."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from alphapulse.backoff import Backoff
from alphapulse.errors import RequestError, StoreError

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Longer answers are given up: no page is as long."""
CHUNK_BYTES = 65536

AGAIN = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Statuses after which the same request may succeed."""

UNKNOWN = frozenset(
    {
        (HTTPStatus.BAD_REQUEST, "exchange"),
        (HTTPStatus.NOT_FOUND, "symbol"),
        (HTTPStatus.NOT_FOUND, "timestamp"),
    }
)
"""Status and parameter of answers that say that there is nothing of what was asked for."""


class _Problem(msgspec.Struct):
    """An error's body."""

    detail: str
    parameter: str | None = None


class _Unavailable(Exception):
    """An attempt that failed, though another one may not.

    Parameters
    ----------
    problem : what is wrong
    pause_seconds : what the server asks for, 0 if nothing
    """

    def __init__(self, problem: str, pause_seconds: float = 0.0) -> None:
        super().__init__(problem)
        self.pause_seconds = pause_seconds


class Rest:
    """A REST server.

    Parameters
    ----------
    url : its address: scheme, host, port, and a path if it is behind a proxy
    token : sent with each request, if not empty
    timeout_seconds : longest wait for an answer
    retry_seconds : how long a failed GET is tried again

    Raises
    ------
    RequestError
        the URL is none of a REST server
    """

    def __init__(self, url: str, token: str, timeout_seconds: float, retry_seconds: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise RequestError("bad_url", f"url: {url!r} is none like http://127.0.0.1:3001")
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._retry_seconds = retry_seconds
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def get(self, address: str, kind: type[T], query: Mapping[str, str] = {}) -> T | None:
        """The answer to a GET, tried again where that may help; None if there is nothing.

        Parameters
        ----------
        address : path and perhaps a query, from the server's root
        kind : of the body
        query : to be appended

        Raises
        ------
        RequestError
            the server refuses the request; the message names the parameter
        StoreError
            there is no answer, or none that can be read
        """
        target = f"{address}?{urlencode(query)}" if query else address
        pauses = Backoff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        until = time.monotonic() + self._retry_seconds
        while True:
            try:
                return await self._attempt("GET", target, kind)
            except _Unavailable as failure:
                pause = max(pauses.failed(), failure.pause_seconds)
                if time.monotonic() + pause > until:
                    raise StoreError(f"{self.url} failed: {failure}") from failure
                await asyncio.sleep(pause)

    async def post(self, path: str, kind: type[T], query: Mapping[str, str], body: bytes) -> T:
        """The answer to a POST of JSON, which is sent once. Raises as `get` does."""
        try:
            answer = await self._attempt("POST", f"{path}?{urlencode(query)}", kind, body)
        except _Unavailable as failure:
            raise StoreError(
                f"{self.url} failed: {failure}; what was sent may be stored or not, and may be "
                "sent again"
            ) from failure
        if answer is None:
            raise RequestError("not_found", f"{self.url}{path} isn't known")
        return answer

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _attempt(
        self, method: str, target: str, kind: type[T], body: bytes | None = None
    ) -> T | None:
        if self._closed:
            raise StoreError("the repository is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        url = URL(self.url + target, encoded=True)
        try:
            # A token goes to this server alone.
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                content = await _read(response)
                status = HTTPStatus(response.status)
                pause = response.headers.get("Retry-After", "")
        except TimeoutError:
            raise _Unavailable(f"no answer in {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Unavailable(str(error) or type(error).__name__) from error
        except ValueError as error:
            raise StoreError(f"{self.url} doesn't answer as a REST server does: {error}") from None
        if status < HTTPStatus.MULTIPLE_CHOICES:
            return self._decode(content, kind)
        problem = _problem(content, status)
        if status in AGAIN:
            raise _Unavailable(problem.detail, float(pause) if pause.isdecimal() else 0.0)
        if (status, problem.parameter) in UNKNOWN:
            return None
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise StoreError(f"{self.url} failed: {problem.detail}")
        raise RequestError(status.name.lower(), problem.detail)

    def _decode(self, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise StoreError(
                f"{self.url} doesn't answer as a REST server does: {error}: {content[:80]!r}"
            ) from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


def _problem(content: bytes, status: HTTPStatus) -> _Problem:
    try:
        return msgspec.json.decode(content, type=_Problem)
    except msgspec.DecodeError:
        return _Problem(f"status {status.value} {status.phrase}")

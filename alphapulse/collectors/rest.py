"""The REST side of a venue: one HTTP session, one weight budget, bounded in time and size."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import aiohttp

from alphapulse.collectors.allowance import Allowance
from alphapulse.collectors.venue import RestAnswer, RestRequest
from alphapulse.errors import RateLimited, VenueError
from alphapulse.log import get_logger

log = get_logger(__name__)

MAX_CONNECTIONS = 4
"""Requests under way at once; the budget is what limits them."""

DEFAULT_RETRY_SECONDS = 60.0
"""Where a venue asks to be left alone without saying for how long."""

MAX_RETRY_SECONDS = 4 * 24 * 3600.0
"""The longest bans known last three days; a longer one is taken for an error of the venue."""

_BANNED = 418
"""The address is banned; 429 only says that it asks too much."""
_RATE_LIMITED = frozenset({_BANNED, 429})
_CHUNK_BYTES = 256 * 1024
_QUOTED_BYTES = 200
"""How much of an error's body is passed on as the venue's words."""


class RestClient:
    """GET requests to one venue.

    Whoever asks waits for the venue's weight budget; where the venue asks to be left alone,
    everybody waits.

    Parameters
    ----------
    venue : name of the venue, for errors
    base_url : where the venue's REST service is
    allowance : the weight budget
    timeout_seconds : for a whole answer, waiting for the budget not counted
    max_body_bytes : a larger body is refused
    """

    def __init__(
        self,
        venue: str,
        base_url: str,
        allowance: Allowance,
        *,
        timeout_seconds: float,
        max_body_bytes: int,
    ) -> None:
        self.allowance = allowance
        self.banned: Callable[[float], None] = lambda seconds: None
        """Told for how many seconds the venue has banned this address."""
        self._venue = venue
        self._base = base_url.rstrip("/")
        self._timeout = timeout_seconds
        self._max_body = max_body_bytes
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> RestClient:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            headers={"User-Agent": "alphapulse", "Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, request: RestRequest) -> RestAnswer:
        """Answer of the venue, as soon as the budget allows to ask.

        Raises
        ------
        RateLimited
            the venue asked to be left alone; until then every request waits
        VenueError
            no answer in time, an error status, or a body that is too large
        """
        await self.wait_turn(request)
        return await self.ask(request)

    async def wait_turn(self, request: RestRequest) -> None:
        """Wait until the budget allows the request, and pay for it."""
        await self.allowance.take(request.weight)

    async def ask(self, request: RestRequest) -> RestAnswer:
        """Answer to a request that has been paid for; errors as `get`."""
        assert self._session is not None, "the client is used as a context manager"
        url = self._base + request.path
        try:
            async with self._session.get(url, headers=request.headers) as response:
                body = await self._read(response)
                if response.status in _RATE_LIMITED:
                    raise self._left_alone(response.status, response.headers)
                if response.status != 200:
                    words = body[:_QUOTED_BYTES].decode("utf-8", "replace")
                    raise VenueError(
                        self._venue, f"HTTP {response.status} for {request.path}: {words}"
                    )
                return RestAnswer(body, response.headers)
        except TimeoutError as error:
            raise VenueError(
                self._venue, f"no answer to {request.path} within {self._timeout:g} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise VenueError(
                self._venue, f"{request.path} failed: {error or type(error).__name__}"
            ) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_chunked(_CHUNK_BYTES):
            size += len(part)
            if size > self._max_body:
                response.close()
                raise VenueError(
                    self._venue,
                    f"the answer to {response.url.path} exceeds {self._max_body} bytes",
                )
            parts.append(part)
            # A body that is there already is read without ever waiting: let frames come between.
            await asyncio.sleep(0)
        return b"".join(parts)

    def _left_alone(self, status: int, headers: Mapping[str, str]) -> RateLimited:
        seconds = retry_after_seconds(headers.get("Retry-After"), time.time())
        self.allowance.hold(seconds)
        if status == _BANNED:
            self.banned(seconds)
        log.warning(
            "venue asks to be left alone",
            exchange=self._venue,
            status=status,
            retry_after_seconds=round(seconds, 1),
        )
        return RateLimited(self._venue, status, seconds)


def retry_after_seconds(value: str | None, now: float) -> float:
    """Seconds of a Retry-After header, which tells a number of seconds or an HTTP date.

    Parameters
    ----------
    value : the header's text, None if there was none
    now : Unix time in seconds
    """
    if value is None:
        return DEFAULT_RETRY_SECONDS
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
        except (ValueError, OverflowError):
            return DEFAULT_RETRY_SECONDS
    if not 0 <= seconds <= MAX_RETRY_SECONDS:
        return DEFAULT_RETRY_SECONDS
    return seconds

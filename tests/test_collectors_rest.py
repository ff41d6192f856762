"""REST requests keep to the venue's budget, its wishes, and our limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from alphapulse.collectors.allowance import Allowance
from alphapulse.collectors.rest import (
    DEFAULT_RETRY_SECONDS,
    MAX_RETRY_SECONDS,
    RestClient,
    retry_after_seconds,
)
from alphapulse.collectors.venue import Budget, RestRequest
from alphapulse.errors import RateLimited, VenueError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PLENTY = Budget(10_000, 1, 10_000)


@asynccontextmanager
async def client_of(
    handler: Handler,
    budget: Budget = PLENTY,
    timeout_seconds: float = 10.0,
    max_body_bytes: int = 1 << 20,
) -> AsyncIterator[RestClient]:
    """A client of a server that answers everything with the handler."""
    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        async with RestClient(
            "venue",
            url,
            Allowance(budget),
            timeout_seconds=timeout_seconds,
            max_body_bytes=max_body_bytes,
        ) as client:
            yield client
    finally:
        await runner.cleanup()


async def test_an_answer_comes_with_its_headers() -> None:
    async def answer(request: web.Request) -> web.Response:
        text = f"{request.path_qs} {request.headers['X-KEY']}"
        return web.Response(text=text, headers={"CB-AFTER": "17"})

    async with client_of(answer) as client:
        found = await client.get(RestRequest("/a?b=1", headers={"X-KEY": "k"}))
    assert found.body == b"/a?b=1 k"
    assert found.headers["cb-after"] == "17"


@pytest.mark.parametrize("status", [429, 418])
async def test_a_venue_that_wants_to_be_left_alone_is_by_everybody(status: int) -> None:
    asked: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(time.monotonic())
        if len(asked) == 1:
            return web.Response(status=status, headers={"Retry-After": "0.3"})
        return web.Response(text="fine")

    async with client_of(answer) as client:
        with pytest.raises(RateLimited) as caught:
            await client.get(RestRequest("/one"))
        assert (caught.value.status, caught.value.retry_after_seconds) == (status, 0.3)
        await asyncio.gather(*(client.get(RestRequest(f"/{number}")) for number in range(3)))
    assert asked[1] - asked[0] > 0.25


async def test_weights_are_paid() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="fine")

    async with client_of(answer, Budget(100, 1, 50)) as client:
        started = time.monotonic()
        await client.get(RestRequest("/a", weight=50))
        await client.get(RestRequest("/b", weight=50))
        assert time.monotonic() - started > 0.4


async def test_errors_tell_the_venues_words() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=400, text="no such symbol" + "!" * 10_000)

    async with client_of(answer) as client:
        with pytest.raises(VenueError, match="HTTP 400 for /x: no such symbol!") as caught:
            await client.get(RestRequest("/x"))
    assert len(str(caught.value)) < 400


async def test_a_body_too_large_is_not_read_to_its_end() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except (ConnectionError, asyncio.CancelledError):
            return response

    async with client_of(answer, max_body_bytes=200_000) as client:
        with pytest.raises(VenueError, match="exceeds 200000 bytes"):
            await client.get(RestRequest("/x"))


async def test_no_answer_in_time() -> None:
    waiting = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await waiting.wait()
        return web.Response()

    async with client_of(answer, timeout_seconds=0.2) as client:
        with pytest.raises(VenueError, match=r"no answer to /x within 0\.2 s"):
            await client.get(RestRequest("/x"))
        waiting.set()


async def test_nobody_listens() -> None:
    async with RestClient(
        "venue",
        "http://127.0.0.1:1",
        Allowance(PLENTY),
        timeout_seconds=1.0,
        max_body_bytes=1000,
    ) as client:
        with pytest.raises(VenueError, match="/x failed"):
            await client.get(RestRequest("/x"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200.0),
        (None, DEFAULT_RETRY_SECONDS),
        ("soon", DEFAULT_RETRY_SECONDS),
        ("-5", DEFAULT_RETRY_SECONDS),
        ("nan", DEFAULT_RETRY_SECONDS),
        ("1e300", DEFAULT_RETRY_SECONDS),
        ("Thu, 01 Jan 1970 00:00:00 GMT", DEFAULT_RETRY_SECONDS),
        ("Thu, 01 Jan 99999999999 00:00:00 GMT", DEFAULT_RETRY_SECONDS),
        (str(3 * 24 * 3600), 3 * 24 * 3600.0),
    ],
)
def test_retry_after(value: str | None, seconds: float) -> None:
    assert retry_after_seconds(value, 1000.0) == seconds
    assert seconds <= MAX_RETRY_SECONDS

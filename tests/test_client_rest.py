"""Requests over REST: what is tried again, what errors become, and what isn't trusted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from alphapulse.client import rest
from alphapulse.client.repository import HttpRepository
from alphapulse.client.rest import Rest
from alphapulse.errors import RequestError, StoreError

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

DETAIL = "limit: '0' is no whole number from 1 to 10000"


class Body(msgspec.Struct):
    """What the tests' server answers."""

    value: int


@asynccontextmanager
async def answering(*answers: Handler) -> AsyncIterator[tuple[str, list[web.BaseRequest]]]:
    """A server that answers requests in turn, the last way again and again."""
    requests: list[web.BaseRequest] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        requests.append(request)
        return await answers[min(len(requests), len(answers)) - 1](request)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}", requests
    finally:
        await runner.cleanup()


@asynccontextmanager
async def linked(url: str, **options: float) -> AsyncIterator[Rest]:
    given = {"timeout_seconds": 30.0, "retry_seconds": 30.0, **options}
    link = Rest(url, "right", **given)
    try:
        yield link
    finally:
        await link.close()


async def good(request: web.BaseRequest) -> web.Response:
    return web.json_response({"value": 7})


async def cut(request: web.BaseRequest) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def away(request: web.BaseRequest) -> web.Response:
    return web.json_response({"detail": "the disk is away"}, status=503)


async def refusing(request: web.BaseRequest) -> web.Response:
    return web.json_response({"detail": DETAIL, "parameter": "limit"}, status=400)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "FIRST_PAUSE_SECONDS", 0.001)


async def test_a_get_is_tried_again() -> None:
    async with answering(cut, away, good) as (url, requests), linked(url) as link:
        found = await link.get("/x", Body, {"a": "1 2"})
        assert found == Body(7)
        assert [request.path_qs for request in requests] == ["/x?a=1+2"] * 3
        assert {request.headers["Authorization"] for request in requests} == {"Bearer right"}


async def test_until_the_budget_is_spent() -> None:
    async with answering(away) as (url, requests), linked(url, retry_seconds=0.0) as link:
        with pytest.raises(StoreError, match="the disk is away"):
            await link.get("/x", Body)
        assert len(requests) == 1

    # What the server asks to wait for counts.
    async def patient(request: web.BaseRequest) -> web.Response:
        return web.json_response({"detail": "soon"}, status=503, headers={"Retry-After": "60"})

    async with answering(patient) as (url, requests), linked(url) as link:
        with pytest.raises(StoreError, match="soon"):
            await link.get("/x", Body)
        assert len(requests) == 1


async def test_what_is_sent_is_sent_once() -> None:
    for failure in (cut, away):
        async with answering(failure, good) as (url, requests), linked(url) as link:
            with pytest.raises(StoreError, match="may be sent again"):
                await link.post("/x", Body, {}, b"{}")
            assert len(requests) == 1


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    ended = asyncio.Event()

    async def silent(request: web.BaseRequest) -> web.Response:
        await ended.wait()
        return web.Response()

    async with answering(silent) as (url, _):
        async with linked(url, timeout_seconds=0.05, retry_seconds=0.0) as link:
            with pytest.raises(StoreError, match=r"no answer in 0\.05 s"):
                await link.get("/x", Body)
        ended.set()


async def test_refusals_name_the_parameter() -> None:
    async with answering(refusing) as (url, requests), linked(url) as link:
        with pytest.raises(RequestError) as caught:
            await link.get("/x", Body)
        assert (caught.value.code, caught.value.message) == ("bad_request", DETAIL)
        assert len(requests) == 1


@pytest.mark.parametrize(
    ("status", "parameter"), [(400, "exchange"), (404, "symbol"), (404, "timestamp")]
)
async def test_nothing_known_is_no_error(status: int, parameter: str) -> None:
    async def unknown(request: web.BaseRequest) -> web.Response:
        return web.json_response({"detail": "unknown", "parameter": parameter}, status=status)

    async with answering(unknown) as (url, _), linked(url) as link:
        assert await link.get("/x", Body) is None


@pytest.mark.parametrize(
    ("content", "status", "problem"),
    [
        (b'{"value": "7"}', 200, "doesn't answer as a REST server"),
        (b"<html>", 200, "doesn't answer as a REST server"),
        (b"<html>", 500, "status 500"),
        (b"{}", 500, "status 500"),
    ],
)
async def test_other_servers_are_told_apart(content: bytes, status: int, problem: str) -> None:
    async def other(request: web.BaseRequest) -> web.Response:
        return web.Response(body=content, status=status)

    async with answering(other) as (url, _), linked(url) as link:
        with pytest.raises(StoreError, match=problem):
            await link.get("/x", Body)


async def test_a_token_is_not_taken_elsewhere() -> None:
    async with answering(good) as (elsewhere, requests):

        async def moved(request: web.BaseRequest) -> web.Response:
            return web.Response(status=302, headers={"Location": f"{elsewhere}/y"})

        async with answering(moved) as (url, _), linked(url) as link:
            with pytest.raises(RequestError, match="302"):
                await link.get("/x", Body)
        assert requests == []


async def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MAX_ANSWER_BYTES", 1000)

    async def endless(request: web.BaseRequest) -> web.Response:
        return web.Response(body=b" " * 2000)

    async with answering(endless) as (url, _), linked(url) as link:
        with pytest.raises(StoreError, match="more than 1000 bytes"):
            await link.get("/x", Body)


async def test_a_server_that_fails_is_told_by_the_health_check() -> None:
    async with answering(away) as (url, _):
        repository = HttpRepository(url, retry_seconds=0.0)
        health = await repository.health_check()
        await repository.close()
        assert health == {"status": "failed", "problem": f"{url} failed: the disk is away"}


async def test_a_path_before_the_api_s_is_kept() -> None:
    page = {"data": [], "next": "/trades/BTC-USD?cursor=lM7%2F"}
    last: dict[str, list[object]] = {"data": []}

    async def first(request: web.BaseRequest) -> web.Response:
        return web.json_response(page)

    async def second(request: web.BaseRequest) -> web.Response:
        return web.json_response(last)

    async with answering(first, second) as (url, requests):
        repository = HttpRepository(f"{url}/history/")
        found = await repository.get_trades("BTC-USD", "kraken")
        await repository.close()
        assert found == []
        assert [request.raw_path for request in requests] == [
            "/history/trades/BTC-USD?exchange=kraken&limit=5000",
            "/history/trades/BTC-USD?cursor=lM7%2F",
        ]


@pytest.mark.parametrize("url", ["", "127.0.0.1:3001", "ws://x", "http://", "http://x/?a=1"])
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="url: "):
        HttpRepository(url)

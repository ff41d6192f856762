from __future__ import annotations

from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
import websockets
from multidict import CIMultiDict
from websockets.asyncio.client import connect

from alphapulse.config import StreamSettings
from alphapulse.stream.access import Access, Refused, offered
from tests.stream_server import (
    Served,
    on_uvloop,
    serving,
)

Pairs = list[tuple[str, str]]


def headers(*pairs: tuple[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(pairs)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8765", "LOCALHOST", "127.0.0.1:8765", "127.8.8.8", "[::1]:8765"),
        *("stream.internal", "Stream.Internal:80", "data.example"),
    ],
)
def test_hosts_that_lead_here(host: str) -> None:
    access = Access(StreamSettings(host="data.example", allowed_hosts=("stream.internal",)))
    access.check_host(headers(("host", host)))


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Host", "")],
        [("Host", "example.org")],
        [("Host", "localhost.example.org")],
        [("Host", "127.0.0.1.example.org")],
        [("Host", "user@example.org")],
        [("Host", "localhost:99999")],
        [("Host", "[::1")],
        [("Host", "10.0.0.1")],
        [("Host", "localhost"), ("Host", "example.org")],
    ],
)
def test_hosts_that_do_not(pairs: Pairs) -> None:
    with pytest.raises(Refused) as error:
        Access(StreamSettings()).check_host(headers(*pairs))
    assert error.value.status is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Origin", "http://localhost")],
        [("Origin", "https://localhost:3000")],
        [("Origin", "http://127.0.0.1:8080")],
        [("Origin", "http://[::1]:8080")],
        [("Origin", "https://charts.example.org")],
    ],
)
def test_origins_that_may_connect(pairs: Pairs) -> None:
    access = Access(StreamSettings(origins=("https://charts.example.org",)))
    access.check_origin(headers(*pairs))


@pytest.mark.parametrize(
    "pairs",
    [
        [("Origin", "null")],
        [("Origin", "")],
        [("Origin", "https://example.org")],
        [("Origin", "http://charts.example.org")],
        [("Origin", "https://charts.example.org:444")],
        [("Origin", "https://localhost.example.org")],
        [("Origin", "http://localhost:port")],
        [("Origin", "http://localhost"), ("Origin", "https://example.org")],
    ],
)
def test_origins_that_may_not(pairs: Pairs) -> None:
    access = Access(StreamSettings(origins=("https://charts.example.org",)))
    with pytest.raises(Refused) as error:
        access.check_origin(headers(*pairs))
    assert error.value.status is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "pairs",
    [
        [("Authorization", "Bearer s3cret")],
        [("authorization", "bearer  s3cret")],
        [("Sec-WebSocket-Protocol", "bearer.s3cret")],
        [("Sec-WebSocket-Protocol", "s3cret")],
        [("Sec-WebSocket-Protocol", "bearer, s3cret")],
        [("Sec-WebSocket-Protocol", "alphapulse, bearer.s3cret")],
        [("Sec-WebSocket-Protocol", "alphapulse"), ("Sec-WebSocket-Protocol", "bearer.s3cret")],
    ],
)
def test_tokens_that_are_right(pairs: Pairs) -> None:
    Access(StreamSettings(token="s3cret")).check_token(headers(*pairs))


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer s3cre")],
        [("Authorization", "Basic s3cret")],
        [("Authorization", "Bearer \udcff")],
        [("Sec-WebSocket-Protocol", "alphapulse")],
        [("Sec-WebSocket-Protocol", "bearer, S3CRET")],
        [("Sec-WebSocket-Protocol", "bearer.S3CRET")],
        [("Sec-WebSocket-Protocol", "bearer.")],
    ],
)
def test_tokens_that_are_wrong(pairs: Pairs) -> None:
    with pytest.raises(Refused) as error:
        Access(StreamSettings(token="s3cret")).check_token(headers(*pairs))
    assert error.value.status is HTTPStatus.UNAUTHORIZED
    Access(StreamSettings()).check_token(headers(*pairs))


def test_one_of_the_offered_subprotocols_is_chosen() -> None:
    name = "Sec-WebSocket-Protocol"
    for access in (Access(StreamSettings()), Access(StreamSettings(token="s3cret"))):
        assert access.selected(headers()) == {}
        assert access.selected(headers((name, "mqtt"))) == {}
        assert access.selected(headers((name, "bearer.x"))) == {name: "bearer.x"}
        assert access.selected(headers((name, "bearer.x, alphapulse"))) == {name: "alphapulse"}
    assert access.selected(headers((name, "bearer, s3cret"))) == {name: "s3cret"}
    assert offered(headers((name, " a ,, b"))) == ["a", "b"]


async def refused(served: Served, url: str = "", **options: Any) -> int:
    with pytest.raises(websockets.InvalidStatus) as error:
        async with connect(url or served.url, **options):
            pass
    return int(error.value.response.status_code)


@on_uvloop
async def test_who_may_not_connect(ring_prefix: str) -> None:
    async with serving(
        ring_prefix, token="s3cret", origins=["https://charts.example.org"], max_clients=2
    ) as served:
        bearer = websockets.Subprotocol("bearer.s3cret")
        charts = websockets.Origin("https://charts.example.org")
        right: dict[str, Any] = {"subprotocols": [bearer]}
        assert await refused(served) == 401
        assert await refused(served, additional_headers={"Authorization": "Bearer no"}) == 401
        assert await refused(served, f"{served.url}?token=s3cret") == 401
        assert await refused(served, origin="https://example.org", **right) == 403
        assert await refused(served, f"ws://127.0.0.1:{served.port}/other", **right) == 404
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"http://127.0.0.1:{served.port}/health", headers={"Host": "example.org"}
            ) as response,
        ):
            assert response.status == 403
        assert await served.health() == {"status": "ok", "service": "stream"}
        header = {"Authorization": "Bearer s3cret"}
        assert (await served.health(headers=header))["clients"] == 0
        async with (
            connect(served.url, origin=charts, **right) as one,
            connect(served.url, additional_headers=header) as two,
        ):
            assert one.subprotocol == bearer
            assert two.subprotocol is None
            assert await refused(served, **right) == 503
            assert (await served.health(headers=header))["clients"] == 2

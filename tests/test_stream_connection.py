"""What the server does to connections: encrypts, compresses, bounds and counts them."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from alphapulse import metrics
from alphapulse.config import StreamSettings
from alphapulse.errors import ConfigError
from alphapulse.model import BookSide
from alphapulse.stream import connection, server
from alphapulse.stream.tls import server_context
from tests.certificates import write_certificates
from tests.stream_server import (
    Listener,
    closing,
    holds,
    listening,
    on_uvloop,
    raw,
    serving,
)
from tests.streaming import Consumer, Exchange


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificates(tmp_path_factory.mktemp("tls"))


@contextmanager
def counted(name: str, **labels: str) -> Iterator[list[float]]:
    """How much a counter has grown, at the end."""
    before = metrics.sample(name, **labels) or 0.0
    grown: list[float] = []
    yield grown
    grown.append((metrics.sample(name, **labels) or 0.0) - before)


@on_uvloop
async def test_encrypted_connections_get_everything(ring_prefix: str, tls: Path) -> None:
    certificate, key = str(tls / "certificate.pem"), str(tls / "key.pem")
    trusting = ssl.create_default_context(cafile=tls / "authority.pem")
    with Exchange(ring_prefix, size_bytes=1 << 24) as exchange:
        exchange.reset("BTC-USD", {10**9 + price: 10**9 for price in range(20_000)}, {})
        async with serving(ring_prefix, tls_certificate=certificate, tls_key=key) as served:
            url = f"wss://localhost:{served.port}/ws?channels=orderbook&depth=full"
            async with connect(url, ssl=trusting, max_size=None) as socket:
                consumer = Consumer([exchange])
                listener = Listener(socket, consumer)
                await listener.until(lambda: ("kraken", "BTC-USD") in consumer.books)
                for price in range(1, 4):
                    exchange.change("BTC-USD", (BookSide.BID, 10**9 + price, price))
                version = exchange.versions["BTC-USD"]
                await listener.until(lambda: consumer.current("kraken", "BTC-USD", version))
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"https://localhost:{served.port}/health", ssl=trusting) as answer,
            ):
                assert answer.status == 200
            with pytest.raises(websockets.InvalidMessage):
                async with connect(f"ws://localhost:{served.port}/ws"):
                    pass


@pytest.mark.parametrize(
    ("certificate", "key", "setting", "problem"),
    [
        ("absent.pem", "key.pem", "stream.tls_certificate", "can't be read: No such file"),
        ("certificate.pem", "absent.pem", "stream.tls_key", "can't be read: No such file"),
        ("", "key.pem", "stream.tls_key", "no stream.tls_certificate"),
        ("key.pem", "key.pem", "stream.tls_certificate", "can't be used"),
        ("certificate.pem", "other_key.pem", "stream.tls_certificate", "another certificate's"),
        ("certificate.pem", "encrypted_key.pem", "stream.tls_certificate", "encrypted"),
        ("certificate.pem", "", "stream.tls_certificate", "can't be used"),
    ],
)
def test_certificates_that_are_of_no_use(
    tls: Path, certificate: str, key: str, setting: str, problem: str
) -> None:
    settings = StreamSettings(
        tls_certificate=str(tls / certificate) if certificate else "",
        tls_key=str(tls / key) if key else "",
    )
    with pytest.raises(ConfigError, match=problem) as error:
        server_context(settings)
    assert error.value.key == setting


@on_uvloop
async def test_messages_are_compressed_for_those_who_offer_it(ring_prefix: str) -> None:
    with Exchange(ring_prefix) as exchange:
        exchange.reset("BTC-USD", {10**9 + price: 10**9 for price in range(2_000)}, {})
        async with serving(ring_prefix, compression=True) as served:
            for offers in ([ClientPerMessageDeflateFactory()], None):
                async with listening(
                    served, exchange, compression=None, extensions=offers
                ) as listener:
                    agreed = listener.socket.protocol.extensions
                    assert [one.name for one in agreed] == ["permessage-deflate"] * bool(offers)
                    await listener.ask(type="subscribe", channels=["orderbook"], depth="full")
                    await listener.until(lambda: bool(listener.consumer.books))
                    exchange.change("BTC-USD", (BookSide.BID, 10**9, exchange.versions["BTC-USD"]))
                    version = exchange.versions["BTC-USD"]
                    while not listener.consumer.current("kraken", "BTC-USD", version):
                        await listener.take()
        async with serving(ring_prefix) as served, listening(served) as listener:
            assert not listener.socket.protocol.extensions


OFFER = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)


@on_uvloop
async def test_a_zip_bomb_ends_the_connection(ring_prefix: str) -> None:
    stream = zlib.compressobj(wbits=-15)
    bomb = (stream.compress(bytes(1 << 24)) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
    async with (
        serving(ring_prefix, compression=True) as served,
        raw(served, OFFER) as (reader, writer),
    ):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b"server_no_context_takeover; client_no_context_takeover" in answer
        with counted("stream_closes_total", reason="too_large") as grown:
            writer.write(b"\xc1\xfe" + len(bomb).to_bytes(2) + bytes(4) + bomb)
            head = await reader.readexactly(4)
            assert (head[0], int.from_bytes(head[2:4])) == (0x88, 1009)
            await reader.read()
            await holds(lambda: not served.server.hub.clients)
        assert grown == [1]


@on_uvloop
async def test_requests_beyond_the_rate_are_refused_and_their_flood_ended(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.2)
    async with (
        serving(ring_prefix, max_requests_per_second=5) as served,
        listening(served) as listener,
    ):
        with (
            counted("stream_rate_limited_total") as limited,
            counted("stream_closes_total", reason="too_many_requests") as closed,
        ):
            for _ in range(7):
                await listener.socket.send('{"type":"ping"}')
            kinds = await listener.kinds(7)
            assert kinds[:5] == ["pong"] * 5
            assert "error" in kinds
            assert listener.consumer.of("error")[0]["code"] == "too_many_requests"
            with suppress(websockets.ConnectionClosed):
                while served.server.hub.clients:
                    await listener.socket.send('{"type":"ping"}')
            assert await closing(listener.socket) == 1008
            await holds(lambda: not served.server._connections)
        assert limited[0] >= 5
        assert closed == [1]


@on_uvloop
async def test_who_floods_is_told_the_end_without_being_heard(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 3600.0)
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.1)
    async with (
        serving(ring_prefix, max_requests_per_second=5) as served,
        listening(served) as listener,
    ):
        for _ in range(20):
            await listener.socket.send('{"type":"ping"}')
        assert await closing(listener.socket) == 1008


@on_uvloop
async def test_handshakes_are_bounded_in_time_and_number(ring_prefix: str) -> None:
    async with serving(ring_prefix, max_handshakes=4, handshake_seconds=0.5) as served:
        with (
            counted("stream_refused_total", reason="too_many_handshakes") as evicted,
            counted("stream_refused_total", reason="unfinished") as unfinished,
        ):
            async with AsyncExitStack() as stack:
                silent = [await stack.enter_async_context(raw(served, b"GET")) for _ in range(10)]
                async with listening(served) as listener:
                    await listener.ask(type="ping")
                    assert await listener.kinds(1) == ["pong"]
                for reader, _ in silent:
                    assert await reader.read() == b""
            await holds(lambda: not any(door.waiting for door in served.server._doors))
        assert evicted[0] >= 6
        assert evicted[0] + unfinished[0] == 10


@on_uvloop
async def test_ends_of_connections_are_counted_by_reason(ring_prefix: str) -> None:
    async with serving(ring_prefix) as served:
        for reason in ("left", "lost", "protocol"):
            with counted("stream_closes_total", reason=reason) as grown:
                async with listening(served) as listener:
                    await listener.ask(type="ping")
                    await listener.take()
                    if reason == "lost":
                        listener.socket.transport.abort()
                    elif reason == "protocol":
                        listener.socket.transport.write(b"\x80\x80\0\0\0\0")
                        assert await closing(listener.socket) == 1002
                await holds(lambda: not served.server._connections)
            assert grown == [1], reason
        with counted("stream_refused_total", reason="not_found") as refused:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{served.port}/nothing") as answer,
            ):
                assert answer.status == 404
        assert refused == [1]


@on_uvloop
async def test_messages_are_counted(ring_prefix: str) -> None:
    with counted("stream_messages_total") as grown:
        async with serving(ring_prefix) as served:
            async with listening(served) as listener:
                for _ in range(20):
                    await listener.ask(type="ping")
                await listener.take(20)
            served.server.hub.check()
    assert grown == [20]


@on_uvloop
async def test_a_wrong_query_is_told_and_the_connection_stays(ring_prefix: str) -> None:
    async with (
        serving(ring_prefix) as served,
        listening(served, query="?channels=bars") as listener,
    ):
        (error,) = await listener.take()
        assert (error["type"], error["code"]) == ("error", "bad_request")
        await listener.ask(type="ping")
        assert await listener.kinds(1) == ["pong"]


@on_uvloop
async def test_requests_that_are_none(ring_prefix: str) -> None:
    async with (
        serving(ring_prefix, max_request_bytes=1000) as served,
        listening(served) as listener,
    ):
        socket = listener.socket
        padding = " " * 900

        async def answer() -> str:
            (event,) = await listener.take()
            assert event["type"] in ("error", "pong")
            return str(event.get("code", "served"))

        await socket.send("{")
        assert await answer() == "malformed"
        await socket.send(b"\xff\xfe", text=True)
        assert await answer() == "malformed"
        await socket.send(b'{"type":"ping"}')
        assert await answer() == "malformed"
        await socket.send('{"type":"ping"}' + padding)
        assert await answer() == "served"
        await socket.send('{"type":"ping"}' + padding * 2)
        assert await answer() == "too_large"
        await socket.send(['{"type"', ":", '"ping"}', padding])
        assert await answer() == "served"
        await socket.send(['{"type"', ":", '"ping"}', *([padding] * 3)])
        assert await answer() == "too_large"
        await listener.ask(type="subscribe", channels=["trades"], exchanges=["x" * 900])
        assert await answer() == "unknown_exchange"
        await listener.ask(type="subscribe", channels=["trades"], format="xml")
        assert await answer() == "bad_request"
        await socket.send("x" * 5000)
        assert await closing(socket) == 1009


@on_uvloop
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02{}", 1002),  # not masked
        (b"\xc1\x82\0\0\0\0{}", 1002),  # compressed
        (b"\x80\x82\0\0\0\0{}", 1002),  # continues nothing
        (b"\x01\x81\0\0\0\0{\x81\x81\0\0\0\0}", 1002),  # a message within another
        (b"\x8f\x80\0\0\0\0", 1002),  # a kind of frame that there isn't
    ],
)
async def test_frames_that_break_the_protocol(ring_prefix: str, frame: bytes, code: int) -> None:
    async with serving(ring_prefix) as served, raw(served) as (reader, writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(frame)
        head = await reader.readexactly(4)
        assert (head[0], int.from_bytes(head[2:4])) == (0x88, code)
        await reader.read()
        await holds(lambda: not served.server.hub.clients)


@on_uvloop
@pytest.mark.parametrize(
    ("payload", "code"), [(b"", 1000), (b"\x03\xe9", 1001), (b"\x0f\xa0", 4000)]
)
async def test_a_close_frame_is_answered(ring_prefix: str, payload: bytes, code: int) -> None:
    async with serving(ring_prefix) as served, raw(served) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(bytes((0x88, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
        assert await reader.read() == b"\x88\x02" + code.to_bytes(2)


@on_uvloop
@pytest.mark.parametrize("request_", [b"\x16\x03\x01garbage\r\n\r\n", b"POST /ws HTTP/1.1\r\n\r\n"])
async def test_what_is_no_handshake(ring_prefix: str, request_: bytes) -> None:
    async with serving(ring_prefix) as served, raw(served, request_) as (reader, _):
        assert b" 400 " in await reader.readline()
        await reader.read()
        assert (await served.health())["clients"] == 0

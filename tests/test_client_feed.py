"""The stream client before a server that is wrong, mute or refuses."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from alphapulse.client import (
    Disconnected,
    Reconnected,
    StreamClient,
    session,
)
from alphapulse.errors import (
    AnswerTimeout,
    ProtocolError,
    RequestError,
)
from alphapulse.model import (
    BookDelta,
    BookSnapshot,
    BookState,
    Channel,
    Gap,
    Reason,
    StateChange,
    Trade,
)
from tests.false_server import SNAPSHOT, book_event, delta, false_server
from tests.stream_client import QUICK


@pytest.mark.parametrize("wrong", [delta(9, 8), delta(8, 7, volume=1)])
async def test_a_wrong_book_is_hidden_and_asked_for(wrong: str) -> None:
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        await client.subscribe("orderbook", depth="full")
        socket = await false.sockets.get()
        await socket.send(SNAPSHOT)
        assert isinstance(await anext(client), BookSnapshot)
        book = client.books["kraken", "BTC-USD"]
        assert client.books.live == [book]
        await socket.send(wrong)
        state = await anext(client)
        assert isinstance(state, StateChange)
        assert (state.state, state.reason) == (BookState.INVALID, Reason.GAP)
        assert client.books.live == []
        asked = await false.asked("snapshot")
        assert (asked["exchanges"], asked["symbols"]) == (["kraken"], ["BTC-USD"])
        await socket.send(delta(10, 9))
        await socket.send(SNAPSHOT)
        assert isinstance(await anext(client), BookSnapshot), "deltas of a wrong book are dropped"
        assert book.live
        await socket.send(delta(8, 7))
        assert isinstance(await anext(client), BookDelta)
        assert book.best_bid == (Decimal("100.5"), Decimal(2))


async def test_what_is_repeated_after_a_loss_is_dropped() -> None:
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        await client.subscribe(["trades", "orderbook"], depth="full")
        socket = await false.sockets.get()
        trade = {"price": 1, "volume": 1, "side": "buy", "trade_id": "1"}
        await socket.send(SNAPSHOT)
        await socket.send(book_event("trade", **{**trade, "sequence": 5}))
        await socket.send(delta(8, 7))
        for kind in (BookSnapshot, Trade, BookDelta):
            assert isinstance(await anext(client), kind)
        await socket.close(1001)
        assert isinstance(await anext(client), Disconnected)
        socket = await false.sockets.get()
        await false.asked("subscribe")
        assert (await false.asked("subscribe"))["resume"]
        await socket.send(delta(8, 7))
        await socket.send(book_event("trade", **{**trade, "sequence": 5}))
        await socket.send(book_event("trade", **{**trade, "sequence": 6}))
        await socket.send(delta(9, 8, volume=3))
        kinds = [type(await anext(client)) for _ in range(3)]
        assert sorted(kind.__name__ for kind in kinds) == ["BookDelta", "Reconnected", "Trade"]
        assert client.books["kraken", "BTC-USD"].version == 9


async def test_a_book_that_lost_changes_is_asked_for_after_resuming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "SETTLE_SECONDS", 0.0)
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        await client.subscribe("orderbook", depth="full")
        socket = await false.sockets.get()
        await socket.send(SNAPSHOT)
        await socket.send(book_event("state", state="stale", reason="lapped", sequence=0))
        await socket.close(1001)
        kinds = [type(await anext(client)) for _ in range(4)]
        assert kinds == [BookSnapshot, StateChange, Disconnected, Reconnected]
        book = client.books["kraken", "BTC-USD"]
        assert not book.live
        socket = await false.sockets.get()
        asked = await false.asked("snapshot")
        assert (asked["exchanges"], asked["symbols"]) == (["kraken"], ["BTC-USD"])
        await socket.send(delta(9, 8))
        await socket.send(SNAPSHOT)
        assert isinstance(await anext(client), BookSnapshot)
        assert book.live


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("no JSON", "malformed"),
        ('{"data":{}}', "type"),
        (book_event("trade", price=1, volume=1, side="up", trade_id="1"), "side"),
        (book_event("trade", price="x", volume=1, side="buy", trade_id="1"), "decimal number"),
        (book_event("state", state="rotten", reason="gap"), "ROTTEN"),
        (b"\x00" * 40, "record"),
        (b"", "record"),
    ],
)
async def test_what_is_no_message_ends_it(message: str | bytes, problem: str) -> None:
    async with false_server() as false, StreamClient(false.url, **QUICK) as client:
        await client.subscribe("trades", format="json")
        socket = await false.sockets.get()
        await socket.send(book_event("weather", sun=True))
        await socket.send(book_event("trade", price=1.5, volume=1, side="buy", trade_id="1"))
        assert isinstance(await anext(client), Trade), "what isn't known yet is passed over"
        await socket.send(message)
        with pytest.raises(ProtocolError, match=problem):
            await anext(client)


async def test_a_server_that_is_mute_is_given_up() -> None:
    silence = asyncio.Event()

    async def nothing(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await silence.wait()

    async with serve(nothing, "127.0.0.1", 0, ping_interval=None, close_timeout=0.1) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}/"
        async with StreamClient(url, ping_seconds=0.05, pong_seconds=0.05, **QUICK) as client:
            event = await anext(client)
            assert isinstance(event, Disconnected)
            assert "nor an answer to a ping" in event.reason
            silence.set()


async def test_an_answer_that_does_not_come_is_an_error() -> None:
    async with false_server() as false:
        false.mute.add("subscribe")
        async with StreamClient(false.url, answer_seconds=0.05) as client:
            with pytest.raises(AnswerTimeout, match="no answer to 'subscribe' within"):
                await client.subscribe("trades")


async def test_a_granted_subscription_that_is_refused_later_is_raised() -> None:
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        await client.subscribe("trades")
        socket = await false.sockets.get()

        async def refuse(socket: ServerConnection, request: dict[str, Any]) -> None:
            await socket.send('{"type":"error","code":"unknown_symbol","message":"gone"}')

        false.answer = refuse  # type: ignore[method-assign]
        await socket.close(1001)
        assert isinstance(await anext(client), Disconnected)
        with pytest.raises(RequestError, match="gone"):
            await anext(client)
        with pytest.raises(RequestError, match="gone"):
            await client.subscribe("trades")


async def test_where_nothing_can_be_resumed_the_client_tells_a_gap() -> None:
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        false.sequence = None
        await client.subscribe("trades")
        await (await false.sockets.get()).close(1001)
        assert isinstance(await anext(client), Disconnected)
        gap = await anext(client)
        assert isinstance(gap, Gap)
        assert (gap.exchange, gap.symbol, gap.count) == ("kraken", None, None)
        assert (gap.channel, gap.reason) == (Channel.RING, Reason.DISCONNECTED)
        assert isinstance(await anext(client), Reconnected)


async def test_requests_too_many_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "TOO_MANY_SECONDS", 0.01)
    async with false_server() as false, StreamClient(false.url, format="json", **QUICK) as client:
        await client.subscribe("trades")
        socket = await false.sockets.get()
        answer, refused = false.answer, asyncio.Event()

        async def refuse_once(socket: ServerConnection, request: dict[str, Any]) -> None:
            if refused.is_set():
                await answer(socket, request)
                return
            refused.set()
            await socket.send('{"type":"error","code":"too_many_requests","message":"slowly"}')

        false.answer = refuse_once  # type: ignore[method-assign]
        await socket.close(1001)
        assert isinstance(await anext(client), Disconnected)
        assert isinstance(await anext(client), Reconnected)
        assert refused.is_set()

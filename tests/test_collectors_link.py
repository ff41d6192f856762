"""Connections: lost, silent, frozen, flooded, replaced."""

from __future__ import annotations

import asyncio
import inspect
import json
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from picows import WSMsgType
from structlog.testing import capture_logs

from alphapulse import metrics
from alphapulse.collectors.binance_us import BinanceUs
from alphapulse.collectors.daemon import run_venue
from alphapulse.collectors.feed import Feed
from alphapulse.collectors.lane import Lane
from alphapulse.collectors.link import Link
from alphapulse.collectors.venue import Budget
from alphapulse.errors import RingError
from alphapulse.model import BookState, Reason
from alphapulse.simulators import (
    BinanceUsSimulator,
    CoinbaseAdvancedSimulator,
    CoinbaseSimulator,
    FinalBook,
    KrakenSimulator,
    Market,
    VenueSimulator,
)
from alphapulse.simulators.connection import Connection
from tests.collecting import TIMEOUT_SECONDS, Follower, collecting, settings_at

pytestmark = pytest.mark.usefixtures("quick_pulse")

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")
DIALECTS: list[tuple[type[VenueSimulator], dict[str, Any]]] = [
    (KrakenSimulator, {"depth": 25}),
    (CoinbaseSimulator, {}),
    (CoinbaseAdvancedSimulator, {"feed": "advanced"}),
    (BinanceUsSimulator, {}),
]

UNBOUNDED = BinanceUs.limits._replace(connects=Budget(1000, 1, 1000))
"""Limits of a venue that bears any number of connections."""


def market(rate: float = 200.0) -> Market:
    return Market(SYMBOLS, seed=13, book_rate=rate, trade_rate=20.0, levels=40)


@pytest.mark.parametrize(("kind", "settings"), DIALECTS)
@pytest.mark.parametrize("fault", ["abort", "close"])
async def test_a_lost_connection_is_told_and_mended(
    kind: type[VenueSimulator], settings: dict[str, Any], fault: str, ring_prefix: str
) -> None:
    simulator = kind(market())
    async with collecting(simulator, ring_prefix, **settings) as collector:
        await collector.until_live(*SYMBOLS)
        getattr(simulator.faults, fault)()
        lost = (BookState.STALE, Reason.DISCONNECTED)
        history = collector.follower.history
        await collector.until(lambda: all(lost in history(symbol) for symbol in SYMBOLS))
        await collector.until_equal(*SYMBOLS, depth=settings.get("depth"))
        for symbol in SYMBOLS:
            assert (BookState.SYNCING, Reason.RECONNECTED) in history(symbol)
            ids = [int(trade.trade_id) for trade in collector.follower.trades.get(symbol, ())]
            assert ids == sorted(set(ids))


@pytest.mark.parametrize(("kind", "settings"), DIALECTS[:3])
async def test_a_connection_that_goes_silent_is_replaced(
    kind: type[VenueSimulator], settings: dict[str, Any], ring_prefix: str
) -> None:
    simulator = kind(market())
    async with collecting(simulator, ring_prefix, silence_seconds=0.6, **settings) as collector:
        await collector.until_live(*SYMBOLS)
        simulator.faults.silence()
        silent = (BookState.STALE, Reason.SILENT)
        history = collector.follower.history
        await collector.until(lambda: all(silent in history(symbol) for symbol in SYMBOLS))
        await collector.until_equal(*SYMBOLS, depth=settings.get("depth"))


async def test_a_quiet_market_is_left_alone(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    async with collecting(simulator, ring_prefix, silence_seconds=0.8) as collector:
        await collector.until_live(*SYMBOLS)
        simulator.pause()
        await collector.until_heartbeats(7)
        # Heartbeats show life: no book is touched and nothing is connected anew.
        for symbol in SYMBOLS:
            assert collector.follower.history(symbol)[-1][0] is BookState.LIVE
        assert simulator.counts["connections"] == 2


async def test_silence_in_maintenance_is_no_stall(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    async with collecting(simulator, ring_prefix, silence_seconds=0.8) as collector:
        await collector.until_live(*SYMBOLS)
        simulator.faults.maintenance()
        simulator.faults.lose_heartbeats()
        await collector.until_heartbeats(7)
        assert simulator.counts["connections"] == 2
        simulator.faults.maintenance("online")
        await collector.until_equal(*SYMBOLS, depth=1000)
        assert (BookState.STALE, Reason.SILENT) not in collector.follower.history("BTC-USD")


async def test_a_venue_without_heartbeats_is_probed(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())
    async with collecting(
        simulator, ring_prefix, silence_seconds=0.3, pong_timeout_seconds=0.4
    ) as collector:
        await collector.until_live(*SYMBOLS)
        simulator.pause()
        await collector.until_heartbeats(5)
        assert simulator.counts["connections"] == 1
        # The process at the other end hangs: not even pings are answered.
        monkey = pytest.MonkeyPatch()
        try:
            for connection in simulator.connections:
                connection.silent = True
                monkey.setattr(type(connection), "on_ws_frame", lambda self, transport, frame: None)
            silent = (BookState.STALE, Reason.SILENT)
            history = collector.follower.history
            await collector.until(lambda: all(silent in history(symbol) for symbol in SYMBOLS))
        finally:
            monkey.undo()
        simulator.resume()
        await collector.until_equal(*SYMBOLS)


async def test_a_frozen_connection_that_answers_pings_is_replaced(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())
    async with collecting(simulator, ring_prefix, silence_seconds=0.1) as collector:
        await collector.until_live(*SYMBOLS)
        simulator.faults.silence()
        await collector.venue_until(lambda: simulator.counts["connections"] >= 2)
        # The first update of the new connection shows what the frozen one kept back.
        missed = (BookState.INVALID, Reason.GAP)
        history = collector.follower.history
        await collector.until(lambda: all(missed in history(symbol) for symbol in SYMBOLS))
        await collector.until_equal(*SYMBOLS)


async def test_the_venues_pings_are_answered(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())
    simulator.ping_seconds = 0.0
    simulator.pong_seconds = 0.8
    async with collecting(simulator, ring_prefix) as collector:
        await collector.until_live(*SYMBOLS)
        await collector.until_heartbeats(6)
        assert simulator.counts["connections"] == 1


async def test_a_rotated_connection_leaves_no_trace(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BinanceUs, "limits", UNBOUNDED)
    simulator = BinanceUsSimulator(market())
    async with collecting(simulator, ring_prefix, rotate_seconds=0.2) as collector:
        await collector.until_live(*SYMBOLS)
        await collector.venue_until(lambda: simulator.counts["connections"] >= 5)
        await collector.until_equal(*SYMBOLS)
        for symbol in SYMBOLS:
            states = [state for state, _ in collector.follower.history(symbol)]
            assert set(states[:-1]) <= {BookState.SYNCING}
            assert states[-1] is BookState.LIVE
            assert not collector.follower.gaps(symbol)
            ids = [int(trade.trade_id) for trade in collector.follower.trades.get(symbol, ())]
            assert ids == list(range(ids[0], ids[-1] + 1)) if ids else True


async def test_rotations_that_fail_are_tried_again_and_leave_nothing_behind(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = BinanceUsSimulator(market())
    followed: list[int] = []
    replace = Lane._replace

    async def watched(lane: Lane, link: Link) -> Link | None:
        followed.append(len(inspect.stack(0)))
        return await replace(lane, link)

    async def die(link: Link) -> None:
        if link._held is not None:
            link.lose(Reason.DISCONNECTED, "at the wrong moment")

    monkeypatch.setattr(BinanceUs, "limits", UNBOUNDED)
    async with collecting(
        simulator, ring_prefix, rotate_seconds=0.05, backoff_first_seconds=0.001
    ) as collector:
        await collector.until_live(*SYMBOLS)
        monkeypatch.setattr(Lane, "_replace", watched)
        with monkeypatch.context() as dying:
            dying.setattr(Link, "round_trip", die)
            first = len(followed)
            await collector.venue_until(lambda: len(followed) >= first + 5)
            assert len(set(followed[first:])) == 1
        await collector.until_equal(*SYMBOLS)
        undisturbed = {BookState.SYNCING, BookState.LIVE}
        assert {state for state, _ in collector.follower.history("BTC-USD")} <= undisturbed


async def test_a_message_too_large_is_refused_and_named(ring_prefix: str) -> None:
    labels = {"exchange": "kraken", "symbol": ""}
    before = metrics.sample("malformed_frames_total", **labels) or 0.0
    simulator = KrakenSimulator(market())
    with capture_logs() as logs:
        async with collecting(
            simulator, ring_prefix, depth=10, max_message_bytes=1 << 20
        ) as collector:
            await collector.until_live(*SYMBOLS)
            simulator.faults.send_huge(50_000_000)
            lost = (BookState.STALE, Reason.DISCONNECTED)
            await collector.until(lambda: lost in collector.follower.history("BTC-USD"))
            await collector.until_equal(*SYMBOLS, depth=10)
    told = [line for line in logs if line["event"] == "message too large"]
    assert {tuple(line["symbols"]) for line in told} == {(), SYMBOLS}
    assert all("venues.kraken.max_message_bytes" in line["problem"] for line in told)
    assert metrics.sample("malformed_frames_total", **labels) == before + len(told)


async def test_a_ring_that_fails_as_a_connection_opens_ends_the_collector(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RingError("no shared memory is left")

    async with KrakenSimulator(market()) as simulator:
        monkeypatch.setattr(Feed, "opened", fail)
        settings = settings_at("kraken", simulator.ws_url, simulator.rest_url, ring_prefix)
        with pytest.raises(RingError, match="no shared memory"):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await run_venue("kraken", settings, stop=asyncio.Event())


async def test_a_fault_of_ours_while_subscriptions_wait_for_the_budget_is_told(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, faults = Feed.opened, iter([RuntimeError("a fault of ours")])

    def fail_once(*arguments: Any) -> None:
        for error in faults:
            raise error
        opened(*arguments)

    monkeypatch.setattr(Feed, "opened", fail_once)
    simulator = CoinbaseAdvancedSimulator(market())
    with capture_logs() as logs:
        async with collecting(simulator, ring_prefix, feed="advanced", rate_share=0.2) as collector:
            await collector.until_live(*SYMBOLS)
    (told,) = [line for line in logs if line["event"] == "connection failed"]
    assert "a fault of ours" in told["problem"]


async def test_a_connection_that_fails_is_told_with_its_address(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    stop = asyncio.Event()
    with capture_logs() as logs:
        async with simulator:
            wrong = f"{simulator.ws_url}-not"
            settings = settings_at("kraken", f"{wrong}?key=s3cret", simulator.rest_url, ring_prefix)
            collector = asyncio.create_task(run_venue("kraken", settings, stop=stop))
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not (told := [x for x in logs if x["event"] == "connection failed"]):
                    assert not collector.done()
                    await asyncio.sleep(0.02)
            stop.set()
            await collector
    assert told[0]["problem"].startswith(f"no connection to {wrong}: ")
    assert "404" in told[0]["problem"]
    assert "s3cret" not in told[0]["problem"]


async def test_a_long_refusal_is_cut_short_in_the_log(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    refusal = {"method": "subscribe", "success": False, "symbol": "BTC/USD", "error": "no" * 10_000}
    with capture_logs() as logs:
        async with collecting(simulator, ring_prefix, depth=10) as collector:
            await collector.until_live(*SYMBOLS)
            simulator.faults.send_text(json.dumps({**refusal, "result": {"channel": "book"}}))
            refused = (BookState.STALE, Reason.REFUSED)
            await collector.until(lambda: refused in collector.follower.history("BTC-USD"))
    words = [line["words"] for line in logs if line["event"] == "subscription refused"]
    assert words
    assert all(len(each) <= 500 for each in words)


async def test_a_message_in_fragments_is_put_together_up_to_the_limit(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    text = b'{"channel":"heartbeat"}'
    with capture_logs() as logs:
        async with collecting(
            simulator, ring_prefix, depth=10, max_message_bytes=1 << 20
        ) as collector:
            await collector.until_live(*SYMBOLS)
            for connection in list(simulator.connections):
                connection.flush()
                transport = connection._transport
                assert transport is not None
                transport.send(WSMsgType.TEXT, text[:5], fin=False)
                transport.send_ping(b"in between")
                transport.send(WSMsgType.CONTINUATION, text[5:], fin=True)
            await collector.until_equal(*SYMBOLS, depth=10)
            assert simulator.counts["connections"] == 2
            (busy,) = [c for c in simulator.connections if ("book", "BTC/USD") in c.topics]
            assert busy._transport is not None
            busy._transport.send(WSMsgType.TEXT, b"x" * 600_000, fin=False)
            busy._transport.send(WSMsgType.CONTINUATION, b"x" * 600_000, fin=False)
            await collector.venue_until(lambda: simulator.counts["connections"] >= 3)
            await collector.until_equal(*SYMBOLS, depth=10)
    assert [line["symbols"] for line in logs if line["event"] == "message too large"] == [
        list(SYMBOLS)
    ]


async def test_a_symbol_that_is_not_listed_is_named_and_the_others_run(ring_prefix: str) -> None:
    for number, (kind, settings) in enumerate(DIALECTS):
        with capture_logs() as logs:
            async with collecting(
                kind(market()),
                f"{ring_prefix}-{number}",
                symbols=("BTC-USD", "ETH-USX"),
                **settings,
            ) as collector:
                await collector.until_equal("BTC-USD", depth=settings.get("depth"))
        (line,) = [line for line in logs if "not listed" in line["event"]]
        assert line["symbol"] == "ETH-USX"
        assert line["closest"][0] == "ETH-USD"


class DeafSimulator(KrakenSimulator):
    """A venue that loses the first requests for trades."""

    lost = 5

    def message(self, connection: Connection, message: bytes) -> None:
        if b'"trade"' in message and self.lost:
            self.lost -= 1
            return
        super().message(connection, message)


async def test_trades_whose_subscription_is_lost_are_asked_for_until_they_come(
    ring_prefix: str,
) -> None:
    simulator = DeafSimulator(market())
    async with collecting(
        simulator, ring_prefix, depth=10, acknowledge_timeout_seconds=0.05
    ) as collector:
        await collector.until(lambda: set(collector.follower.trades) == set(SYMBOLS))
        assert simulator.lost == 0


async def test_many_refused_products_do_not_cost_the_good_one(ring_prefix: str) -> None:
    symbols = ("BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD", "DOGE-USD", "LTC-USD")
    simulator = CoinbaseSimulator(Market(symbols, seed=13, book_rate=200, trade_rate=50, levels=40))
    for symbol in symbols[:-1]:
        simulator.faults.refuse(symbol, 100)
    # Refused ones aren't tried again within the test.
    async with collecting(
        simulator, ring_prefix, symbols=symbols, backoff_max_seconds=60.0
    ) as collector:
        await collector.until(lambda: symbols[-1] in collector.follower.trades)
        await collector.until_equal(symbols[-1])
        refused = (BookState.STALE, Reason.REFUSED)
        history = collector.follower.history
        await collector.until(lambda: all(refused in history(symbol) for symbol in symbols[:-1]))


async def test_usd_and_usdc_products_answered_alike_are_told_apart(ring_prefix: str) -> None:
    simulator = CoinbaseAdvancedSimulator(market(), usdc_twins=True)
    twins = ("BTC-USD", "BTC-USDC", "ETH-USDC")
    async with collecting(simulator, ring_prefix, feed="advanced", symbols=twins) as collector:
        follower = collector.follower
        await collector.until_live(*twins)
        await collector.until(lambda: set(follower.trades) == set(twins))
        simulator.pause()
        for symbol in twins:
            await collector.until(
                partial(_equal, follower, symbol, simulator.book(symbol.removesuffix("C")))
            )
        assert simulator.counts["connections"] == 2


def _equal(follower: Follower, symbol: str, book: FinalBook) -> bool:
    return follower.is_live(symbol) and follower.book(symbol) == book


async def test_symbols_are_spread_over_connections(ring_prefix: str) -> None:
    simulator = CoinbaseSimulator(market())
    async with collecting(simulator, ring_prefix, symbols_per_connection=1) as collector:
        await collector.until_equal(*SYMBOLS)
        assert simulator.counts["connections"] == 3
        first = next(iter(simulator.connections))
        (symbol,) = {product for _, product in first.topics}
        first.abort()
        lost = (BookState.STALE, Reason.DISCONNECTED)
        await collector.until(lambda: lost in collector.follower.history(symbol))
        await collector.until_equal(*SYMBOLS)
        for other in set(SYMBOLS) - {symbol}:
            assert lost not in collector.follower.history(other)


async def test_a_server_that_speaks_something_else_is_tried_again(ring_prefix: str) -> None:
    answers = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"\x00" * 100]
    tried: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.append(len(tried))
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answers[tried[-1] % len(answers)])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = settings_at(
        "kraken",
        f"ws://127.0.0.1:{port}",
        "http://127.0.0.1:1",
        ring_prefix,
        connect_timeout_seconds=0.5,
    )
    stop = asyncio.Event()
    with capture_logs() as logs:
        collector = asyncio.create_task(run_venue("kraken", settings, stop=stop))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while len([line for line in logs if line["event"] == "connection failed"]) < 4:
                assert not collector.done()
                await asyncio.sleep(0.02)
        stop.set()
        await collector
    server.close()
    await server.wait_closed()

"""Connections and messages keep within what the venues allow, whatever goes wrong."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from alphapulse.model import BookState, Reason
from alphapulse.simulators import (
    BinanceUsSimulator,
    CoinbaseAdvancedSimulator,
    KrakenSimulator,
    Market,
)
from tests.collecting import collecting

pytestmark = pytest.mark.usefixtures("quick_pulse")

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")


def market() -> Market:
    return Market(SYMBOLS, seed=13, book_rate=200.0, trade_rate=20.0, levels=40)


async def test_a_venue_that_refuses_connections_is_not_stormed(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    simulator.faults.refuse_connections()
    async with collecting(
        simulator, ring_prefix, backoff_first_seconds=0.05, backoff_max_seconds=0.2
    ) as collector:
        started = time.monotonic()
        await collector.venue_until(lambda: simulator.counts["attempts"] >= 6)
        # At least 0.025, 0.05, 0.1, 0.1 and 0.1 lie between.
        assert time.monotonic() - started > 0.25
        simulator.faults.refuse_connections(False)
        await collector.until_equal(*SYMBOLS, depth=1000)


async def test_connections_that_open_and_die_are_not_a_storm(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())

    async def kill_newcomers() -> None:
        while True:
            simulator.faults.abort()
            await asyncio.sleep(0.01)

    async with collecting(
        simulator, ring_prefix, backoff_first_seconds=0.05, backoff_max_seconds=0.2
    ) as collector:
        killing = asyncio.create_task(kill_newcomers())
        started = time.monotonic()
        await collector.venue_until(lambda: simulator.counts["attempts"] >= 6)
        assert time.monotonic() - started > 0.25
        killing.cancel()
        await collector.until_equal(*SYMBOLS)


async def test_connection_attempts_keep_within_the_share_of_the_venues_budget(
    ring_prefix: str,
) -> None:
    simulator = KrakenSimulator(market())
    simulator.faults.refuse_connections()
    async with collecting(
        simulator,
        ring_prefix,
        backoff_first_seconds=0.001,
        backoff_max_seconds=0.001,
        rate_share=0.2,
    ) as collector:
        # A fifth of ten at once, then a fifth of ten a minute: a third attempt is far away.
        await collector.venue_until(lambda: simulator.counts["attempts"] >= 2)
        await collector.until_heartbeats(2)
        assert simulator.counts["attempts"] == 2


async def test_a_banned_address_does_not_connect_either(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())
    async with collecting(simulator, ring_prefix) as collector:
        await collector.until_live(*SYMBOLS)
        asked = simulator.counts["rest /api/v3/depth"]
        simulator.faults.rest_status(418, 60.0)
        simulator.faults.drop_update("BTC-USD")
        await collector.venue_until(lambda: simulator.counts["rest /api/v3/depth"] > asked)
        # The open connection stays, and is still followed.
        await collector.until_heartbeats(1)
        assert collector.follower.is_live("ETH-USD")
        simulator.faults.abort()
        lost = (BookState.STALE, Reason.DISCONNECTED)
        await collector.until(lambda: lost in collector.follower.history("ETH-USD"))
        await collector.until_heartbeats(5)
        assert simulator.counts["attempts"] == 1


class HurriedSimulator(KrakenSimulator):
    """A venue that takes hardly more than a message a second."""

    messages_per_second = 3.0
    messages_burst = 1.0


async def test_asking_too_fast_is_told_and_asked_again(ring_prefix: str) -> None:
    simulator = HurriedSimulator(market())
    with capture_logs() as logs:
        async with collecting(
            simulator, ring_prefix, depth=10, acknowledge_timeout_seconds=0.3
        ) as collector:
            follower = collector.follower
            # Books come first, trades second: too fast.
            await collector.until(lambda: set(follower.trades) == set(SYMBOLS))
            await collector.until_live(*SYMBOLS)
            for symbol in SYMBOLS:
                assert (BookState.STALE, Reason.REFUSED) not in follower.history(symbol)
    told = [line for line in logs if line["event"] == "the venue complains"]
    assert {line["text"] for line in told} == {"Exceeded msg rate"}


async def test_messages_of_all_connections_keep_within_the_budget_of_an_address(
    ring_prefix: str,
) -> None:
    symbols = ("BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD", "DOGE-USD")
    simulator = CoinbaseAdvancedSimulator(Market(symbols, seed=13, book_rate=100, levels=20))
    # A connection's first message must come soon, however many wait for the budget.
    simulator.subscribe_timeout_seconds = 0.4
    async with collecting(
        simulator, ring_prefix, feed="advanced", symbols=symbols, symbols_per_connection=1
    ) as collector:
        await collector.venue_until(lambda: simulator.counts["messages"] >= 3 * len(symbols))
        await collector.until_equal(*symbols)
        assert simulator.counts["connections"] == len(symbols)
        assert simulator.counts["idlers"] == 0

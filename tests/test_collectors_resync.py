"""One symbol's trouble is that symbol's alone, and is mended within the venue's budgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from alphapulse.collectors.resync import ReconnectPace
from alphapulse.model import BookState, Channel, Reason
from alphapulse.simulators import (
    BinanceUsSimulator,
    CoinbaseAdvancedSimulator,
    CoinbaseSimulator,
    KrakenSimulator,
    Market,
    VenueSimulator,
)
from tests.collecting import Collecting, collecting

pytestmark = pytest.mark.usefixtures("quick_pulse")

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")
DEPTH_PATH = "rest /api/v3/depth"


def market(rate: float = 300.0) -> Market:
    return Market(SYMBOLS, seed=11, book_rate=rate, trade_rate=20.0, levels=40)


def undisturbed(collector: Collecting, *symbols: str) -> None:
    """Check that these books have been live since their first snapshot."""
    for symbol in symbols:
        states = [state for state, _ in collector.follower.history(symbol)]
        assert states[-1] is BookState.LIVE
        assert set(states[:-1]) <= {BookState.SYNCING}, states


async def test_a_lost_update_is_found_by_its_checksum_and_mended_alone(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    async with collecting(simulator, ring_prefix, depth=100) as collector:
        await collector.until_live(*SYMBOLS)
        # Several: the checksum covers ten levels a side, and one update may lie beyond them.
        simulator.faults.drop_update("BTC-USD", count=5)
        failed = (BookState.INVALID, Reason.CHECKSUM)
        await collector.until(lambda: failed in collector.follower.history("BTC-USD"))
        await collector.until_live("BTC-USD")
        await collector.until_equal(*SYMBOLS, depth=100)
        undisturbed(collector, "ETH-USD", "SOL-USD")
        assert simulator.counts["connections"] == 2


async def test_a_wrong_checksum_never_lets_its_delta_out(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    async with collecting(simulator, ring_prefix, depth=100) as collector:
        await collector.until_live(*SYMBOLS)
        failed = (BookState.INVALID, Reason.CHECKSUM)
        history = collector.follower.history
        for times in (1, 2, 3):
            await collector.until_live("ETH-USD")
            simulator.faults.corrupt_checksum("ETH-USD")
            await collector.until(partial(_comes_to, history, "ETH-USD", failed, times))
        await collector.until_equal(*SYMBOLS, depth=100)
        undisturbed(collector, "BTC-USD", "SOL-USD")


async def test_a_lost_update_is_found_by_its_number_and_mended_alone(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())
    async with collecting(simulator, ring_prefix) as collector:
        await collector.until_live(*SYMBOLS)
        simulator.faults.drop_update("ETH-USD")
        failed = (BookState.INVALID, Reason.GAP)
        await collector.until(lambda: failed in collector.follower.history("ETH-USD"))
        await collector.until_equal(*SYMBOLS)
        undisturbed(collector, "BTC-USD", "SOL-USD")
        (gap,) = collector.follower.gaps("ETH-USD")
        assert gap.channel is Channel.ORDERBOOK
        assert gap.count


async def test_updates_that_come_while_the_snapshot_is_fetched_are_not_lost(
    ring_prefix: str,
) -> None:
    simulator = BinanceUsSimulator(market())
    simulator.faults.delay_rest(0.4)
    async with collecting(simulator, ring_prefix) as collector:
        await collector.until_live(*SYMBOLS)
        simulator.faults.delay_rest(0)
        await collector.until_equal(*SYMBOLS)
        undisturbed(collector, *SYMBOLS)
        assert simulator.counts[DEPTH_PATH] == len(SYMBOLS)


async def test_a_snapshot_fetched_while_the_connection_was_replaced_is_used(
    ring_prefix: str,
) -> None:
    simulator = BinanceUsSimulator(market())
    simulator.faults.delay_rest(0.5)
    async with collecting(simulator, ring_prefix, rotate_seconds=0.2) as collector:
        await collector.until_live(*SYMBOLS)
        assert simulator.counts["connections"] >= 2
        assert simulator.counts[DEPTH_PATH] == len(SYMBOLS)
        simulator.faults.delay_rest(0)
        await collector.until_equal(*SYMBOLS)
        undisturbed(collector, *SYMBOLS)


async def test_a_snapshot_too_old_is_fetched_again_and_the_buffer_kept(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())
    async with collecting(simulator, ring_prefix) as collector:
        await collector.until_live(*SYMBOLS)
        asked = simulator.counts[DEPTH_PATH]
        simulator.faults.stale_snapshot("BTC-USD", 3)
        simulator.faults.drop_update("BTC-USD")
        await collector.until(lambda: simulator.counts[DEPTH_PATH] >= asked + 4)
        await collector.until_equal(*SYMBOLS)
        # The fourth answer fits: what had been kept meanwhile was not thrown away.
        assert simulator.counts[DEPTH_PATH] == asked + 4
        undisturbed(collector, "ETH-USD", "SOL-USD")


async def test_retry_after_holds_all_symbols_back(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())
    async with collecting(simulator, ring_prefix) as collector:
        await collector.until_live(*SYMBOLS)
        asked = simulator.counts[DEPTH_PATH]
        simulator.faults.rest_status(429, 1.0)
        simulator.faults.drop_update("BTC-USD")
        await collector.venue_until(lambda: simulator.counts[DEPTH_PATH] > asked)
        refused_at = time.monotonic()
        simulator.faults.drop_update("ETH-USD")
        simulator.faults.drop_update("SOL-USD")
        failed = (BookState.INVALID, Reason.GAP)
        await collector.until(
            lambda: all(failed in collector.follower.history(symbol) for symbol in SYMBOLS)
        )
        assert simulator.counts[DEPTH_PATH] == asked + 1
        await collector.venue_until(lambda: simulator.counts[DEPTH_PATH] > asked + 1)
        assert time.monotonic() - refused_at > 0.9
        await collector.until_equal(*SYMBOLS)


async def test_a_failing_rest_service_is_asked_again(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())
    simulator.faults.rest_status(500, 1.0, 3)
    async with collecting(simulator, ring_prefix) as collector:
        await collector.until_equal(*SYMBOLS)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (KrakenSimulator, {"depth": 25}),
        (CoinbaseSimulator, {}),
        (CoinbaseAdvancedSimulator, {"feed": "advanced"}),
    ],
)
async def test_a_refused_symbol_is_alone_and_tried_again(
    kind: type[VenueSimulator], settings: dict[str, Any], ring_prefix: str
) -> None:
    simulator = kind(market())
    simulator.faults.refuse("ETH-USD", 2)
    async with collecting(simulator, ring_prefix, backoff_max_seconds=0.4, **settings) as collector:
        follower = collector.follower
        refused = (BookState.STALE, Reason.REFUSED)
        await collector.until(lambda: refused in follower.history("ETH-USD"))
        await collector.until_live("BTC-USD", "SOL-USD")
        await collector.until_live("ETH-USD")
        # Trades of all three come too.
        await collector.until(lambda: set(follower.trades) == set(SYMBOLS))
        await collector.until_equal(*SYMBOLS, depth=settings.get("depth"))
        undisturbed(collector, "BTC-USD", "SOL-USD")


async def test_a_silent_symbol_is_found_and_the_others_stay(ring_prefix: str) -> None:
    simulator = CoinbaseSimulator(market())
    async with collecting(
        simulator, ring_prefix, symbol_silence_seconds=0.8, acknowledge_timeout_seconds=0.5
    ) as collector:
        await collector.until_live(*SYMBOLS)
        simulator.faults.silence("ETH-USD")
        silent = (BookState.STALE, Reason.SILENT)
        await collector.until(lambda: silent in collector.follower.history("ETH-USD"))
        assert collector.follower.is_live("BTC-USD", "SOL-USD")
        simulator.faults.speak()
        await collector.until_equal(*SYMBOLS)
        undisturbed(collector, "BTC-USD", "SOL-USD")


async def test_a_snapshot_that_does_not_come_is_asked_for_again(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    async with collecting(
        simulator, ring_prefix, depth=10, acknowledge_timeout_seconds=0.4
    ) as collector:
        await collector.until_live(*SYMBOLS)
        simulator.faults.silence("ETH-USD")
        messages = simulator.counts["messages"]
        simulator.faults.send_text(
            '{"channel":"book","type":"update","data":[{"symbol":"ETH/USD","bids":"?"}]}'
        )
        malformed = (BookState.INVALID, Reason.MALFORMED)
        await collector.until(lambda: malformed in collector.follower.history("ETH-USD"))
        # An unsubscription and a subscription each time.
        await collector.venue_until(lambda: simulator.counts["messages"] >= messages + 4)
        simulator.faults.speak()
        await collector.until_equal(*SYMBOLS, depth=10)


async def test_a_symbol_that_nothing_helps_costs_its_connection_once(ring_prefix: str) -> None:
    simulator = KrakenSimulator(market())
    simulator.faults.silence("ETH-USD")
    async with collecting(
        simulator,
        ring_prefix,
        depth=10,
        acknowledge_timeout_seconds=0.1,
        backoff_max_seconds=0.05,
    ) as collector:
        # The instruments' connection, the first one of the symbols, and the one after it.
        await collector.venue_until(lambda: simulator.counts["connections"] >= 3)
        messages = simulator.counts["messages"]
        # Two each time: far more than the six timeouts after which a lane may be reconnected.
        await collector.venue_until(lambda: simulator.counts["messages"] >= messages + 12)
        assert simulator.counts["connections"] == 3
        await collector.until_live("BTC-USD", "SOL-USD")
        simulator.faults.speak()
        await collector.until_equal(*SYMBOLS, depth=10)
        assert simulator.counts["connections"] == 3


def test_reconnecting_for_single_symbols_grows_more_seldom() -> None:
    pace = ReconnectPace(60.0)
    taken = [now for now in range(1000, 3000) if pace.take(now)]
    assert taken == [1000, 1060, 1180, 1420, 1900, 2860]
    # The pause runs until 4780; after as long again without a need, it is short again.
    assert pace.take(10_000)
    assert not pace.take(10_059)
    assert pace.take(10_060)


async def test_garbage_costs_at_most_the_book_it_names(ring_prefix: str) -> None:
    frames = [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "NaN",
        "\x00\x01\x02",
        '{"channel":"book"}',
        '{"channel":"book","type":"update","data":[{"symbol":"X/Y","bids":[],"asks":[]}]}',
        '{"channel":"book","type":"update","data":{"symbol":17}}',
        '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"hold"}]}',
        '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",'
        '"price":-1,"qty":NaN,"trade_id":1,"timestamp":"?"}]}',
        '{"method":"subscribe","success":"maybe"}',
        '{"channel":"status","data":[{"system":7}]}',
        '{"channel":"instrument","type":"update","data":{"pairs":[{"symbol":"BTC/USD"}]}}',
        "9" * 100_000,
    ]
    digits = "9" * 400
    book = '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[%s],"asks":[]}]}'
    books = [
        book % f'{{"price":{digits},"qty":1}}',
        book % '{"price":1.0,"qty":-1}',
        book % '{"price":NaN,"qty":1}',
        book % '{"price":1.0}',
        book % '{"price":1.0,"qty":1',
    ]
    simulator = KrakenSimulator(market())
    async with collecting(simulator, ring_prefix, depth=10) as collector:
        await collector.until_live(*SYMBOLS)
        for frame in frames:
            simulator.faults.send_text(frame)
        malformed = (BookState.INVALID, Reason.MALFORMED)
        history = collector.follower.history
        for number, frame in enumerate(books, 1):
            await collector.until_live("BTC-USD")
            simulator.faults.send_text(frame)
            await collector.until(partial(_comes_to, history, "BTC-USD", malformed, number))
        await collector.until_equal(*SYMBOLS, depth=10)
        undisturbed(collector, "ETH-USD", "SOL-USD")
        assert simulator.counts["connections"] == 2


async def test_a_storm_of_gaps_is_paced(ring_prefix: str) -> None:
    simulator = BinanceUsSimulator(market())
    async with collecting(
        simulator, ring_prefix, backoff_first_seconds=0.2, backoff_max_seconds=0.4
    ) as collector:
        await collector.until_live(*SYMBOLS)
        asked = simulator.counts[DEPTH_PATH]
        started = time.monotonic()
        storm = asyncio.create_task(_drop_for_ever(simulator))
        await collector.venue_until(lambda: simulator.counts[DEPTH_PATH] >= asked + 9)
        storm.cancel()
        # Three symbols, three snapshots each: after the first come two pauses.
        assert time.monotonic() - started > 0.2
        # The last losses show only where updates follow them.
        await collector.until(lambda: not simulator.faults.armed)
        await collector.until_heartbeats(2)
        await collector.until_equal(*SYMBOLS)


def _comes_to(
    history: Callable[[str], list[tuple[BookState, Reason]]],
    symbol: str,
    state: tuple[BookState, Reason],
    times: int,
) -> bool:
    return history(symbol).count(state) >= times


async def _drop_for_ever(simulator: BinanceUsSimulator) -> None:
    while True:
        if not simulator.faults.armed:
            for symbol in SYMBOLS:
                simulator.faults.drop_update(symbol)
        # Batches go out every 100 ms: some in between must arrive for the loss to be seen.
        await asyncio.sleep(0.25)

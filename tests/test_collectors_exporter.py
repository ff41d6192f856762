"""A collector's figures come out as metrics, and its complaints don't flood the log."""

from __future__ import annotations

import json

import pytest
import structlog
from structlog.testing import capture_logs

from alphapulse import metrics
from alphapulse.clock import NO_TIME
from alphapulse.collectors import exporter
from alphapulse.collectors.complaints import MOST_KINDS, SHOWN_PER_MINUTE, Complaints
from alphapulse.collectors.latency import LatencySampler
from alphapulse.model import BookState, Reason
from alphapulse.simulators import CoinbaseSimulator, KrakenSimulator, Market
from tests.collecting import collecting
from tests.support import ManualClock

SYMBOLS = ("BTC-USD", "ETH-USD")


def value(name: str, **labels: str) -> float:
    return metrics.sample(name, **labels) or 0.0


async def test_what_happens_is_counted_by_symbol(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "EXPORT_SECONDS", 0.1)

    def counted(name: str, symbol: str, **labels: str) -> float:
        return value(name, exchange="kraken", symbol=symbol, **labels)

    before = {
        (name, symbol): counted(name, symbol)
        for name in ("trades_processed_total", "checksum_failures_total", "malformed_frames_total")
        for symbol in (*SYMBOLS, "")
    }
    frames = value("websocket_messages_total", exchange="kraken")
    resyncs = counted("book_resyncs_total", "BTC-USD", reason="checksum")
    simulator = KrakenSimulator(Market(SYMBOLS, seed=3, book_rate=200, trade_rate=50, levels=30))
    async with collecting(simulator, ring_prefix, depth=10, symbols=SYMBOLS) as collector:
        follower = collector.follower
        await collector.until_live(*SYMBOLS)
        simulator.faults.corrupt_checksum("BTC-USD")
        failed = (BookState.INVALID, Reason.CHECKSUM)
        await collector.until(lambda: failed in follower.history("BTC-USD"))
        await collector.until_live("BTC-USD")
        simulator.faults.send_text("no JSON")
        await collector.until(
            lambda: (
                value("websocket_connected", exchange="kraken") == 1
                and counted("book_state", "BTC-USD") == BookState.LIVE
            )
        )
    trades = {symbol: len(follower.trades.get(symbol, ())) for symbol in SYMBOLS}
    for symbol in SYMBOLS:
        total = counted("trades_processed_total", symbol)
        assert total - before["trades_processed_total", symbol] == trades[symbol]
        assert counted("book_state", symbol) == BookState.STALE
    failures = counted("checksum_failures_total", "BTC-USD")
    assert failures - before["checksum_failures_total", "BTC-USD"] == 1
    assert (
        counted("checksum_failures_total", "ETH-USD")
        == (before["checksum_failures_total", "ETH-USD"])
    )
    # Both connections got the frame that is no JSON; nobody can tell its symbol.
    assert counted("malformed_frames_total", "") - before["malformed_frames_total", ""] == 2
    assert counted("book_resyncs_total", "BTC-USD", reason="checksum") - resyncs == 1
    assert value("websocket_messages_total", exchange="kraken") > frames
    assert value("stage_latency_seconds_count", stage="decode") > 0
    assert value("stage_latency_seconds_count", stage="publish") > 0
    assert value("processing_latency_ms_count", exchange="kraken") > 0


async def test_a_frame_with_several_entries_that_cant_be_used_is_shown(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "EXPORT_SECONDS", 0.1)
    labels = {"exchange": "kraken", "symbol": "BTC-USD"}
    before = value("malformed_frames_total", **labels)
    unnamed = value("malformed_frames_total", exchange="kraken", symbol="")
    simulator = KrakenSimulator(Market(SYMBOLS, seed=3, book_rate=200, trade_rate=0, levels=30))
    async with collecting(simulator, ring_prefix, depth=10, symbols=SYMBOLS) as collector:
        await collector.until_live(*SYMBOLS)
        entries = [{"symbol": "BTC/USD"}, {"symbol": "BTC/USD"}, {"symbol": "ETH/USD"}]
        simulator.faults.send_text(
            json.dumps({"channel": "book", "type": "update", "data": entries})
        )
        await collector.until(lambda: value("malformed_frames_total", **labels) > before)
        await collector.until_live(*SYMBOLS)
    assert value("malformed_frames_total", exchange="kraken", symbol="") == unnamed


async def test_lost_trades_are_counted(ring_prefix: str) -> None:
    labels = {"exchange": "coinbase", "symbol": "ETH-USD", "channel": "trades"}
    gaps = value("book_gaps_total", **labels)
    simulator = CoinbaseSimulator(Market(SYMBOLS, seed=3, trade_rate=50, levels=30))
    async with collecting(simulator, ring_prefix, symbols=SYMBOLS) as collector:
        await collector.until(lambda: "ETH-USD" in collector.follower.trades)
        simulator.faults.skip_trade("ETH-USD")
        await collector.until(lambda: collector.follower.gaps("ETH-USD"))
    assert value("book_gaps_total", **labels) - gaps == 1


def test_a_venue_whose_clock_is_ahead_is_shown() -> None:
    sampler = LatencySampler("ahead")

    def see(exchange_ns: int) -> None:
        sampler.sample([exchange_ns], 10**18, 10**18, 10**18)

    see(10**18 - 40_000_000)
    see(10**18 + 250_000_000)
    see(NO_TIME)
    see(1)
    sampler.flush()
    assert value("clock_skew_seconds", exchange="ahead") == 0.25
    see(10**18 - 30_000_000)
    sampler.flush()
    assert value("clock_skew_seconds", exchange="ahead") == -0.03


def test_complaints_are_few_and_their_number_is_told() -> None:
    clock = ManualClock(0.0)
    with capture_logs() as logs:
        complaints = Complaints("venue", structlog.stdlib.get_logger("test"), clock)
        for number in range(1000):
            complaints.add("malformed", "X", number=number)
        complaints.add("malformed", "Y")
        complaints.flush()
        assert len(logs) == SHOWN_PER_MINUTE + 1
        clock.now = 61.0
        complaints.flush()
        assert logs[-1]["count"] == 1000 - SHOWN_PER_MINUTE
        assert (logs[-1]["symbol"], logs[-1]["exchange"]) == ("X", "venue")
        clock.now = 200.0
        complaints.flush()
        assert len(logs) == SHOWN_PER_MINUTE + 2
        complaints.add("malformed", "X")
        assert len(logs) == SHOWN_PER_MINUTE + 3


def test_symbols_that_a_venue_makes_up_do_not_fill_the_memory() -> None:
    with capture_logs() as logs:
        complaints = Complaints("venue", structlog.stdlib.get_logger("test"), ManualClock())
        for number in range(10 * MOST_KINDS):
            complaints.add("malformed", f"X{number}")
        assert len(complaints._counts) <= MOST_KINDS + 1
        assert len(logs) <= MOST_KINDS + SHOWN_PER_MINUTE

"""Trades: each once, each loss reported with its size."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from alphapulse.collectors.events import TradeEvent, TradeMark
from alphapulse.collectors.trades import TradeLog
from alphapulse.errors import PrecisionError, RangeError
from alphapulse.model import Channel, IdKind, Reason, Side
from tests.feeding import NOW_NS, FeedOnRing, gaps, trade_ids
from tests.support import make_instrument

BTC = make_instrument("coinbase", "BTC-USD", "BTC-USD")


class Log:
    """A trade log on a real ring."""

    def __init__(self, on_ring: FeedOnRing) -> None:
        self.on_ring = on_ring
        tracker = on_ring.feed.books["BTC-USD"].tracker
        self.log = TradeLog(tracker, on_ring.feed.publisher)
        self.now_ns = NOW_NS

    def trade(self, *ids: int, **fields: object) -> list[int]:
        """Ids published for these."""
        for number in ids:
            self.now_ns += 1
            event = TradeEvent("BTC-USD", "1.50", "0.25", Side.BUY, number, NOW_NS)
            self.log.trade(msgspec.structs.replace(event, **fields), self.now_ns)
        self.found = self.on_ring.events()
        return trade_ids(self.found)

    def mark(self, last: int, *, settled: bool) -> None:
        self.now_ns += 1
        self.log.mark(TradeMark("BTC-USD", last, settled), self.now_ns)
        self.found = self.on_ring.events()

    @property
    def gaps(self) -> list[tuple[int | None, int | None, int | None, Reason]]:
        """(first, last, count, reason) of the gaps of the latest call."""
        found = gaps(self.found)
        assert all(gap.channel is Channel.TRADES for gap in found)
        return [(gap.first, gap.last, gap.count, gap.reason) for gap in found]


@pytest.fixture
def log(ring_prefix: str) -> Iterator[Log]:
    with FeedOnRing(ring_prefix, "coinbase", [BTC]) as on_ring:
        yield Log(on_ring)


def test_contiguous_trades_have_no_gap(log: Log) -> None:
    assert log.trade(7, 8, 9) == [7, 8, 9]
    assert log.gaps == []


def test_a_missing_trade_is_a_gap_that_names_it(log: Log) -> None:
    assert log.trade(7, 9) == [7, 9]
    assert log.gaps == [(8, 8, 1, Reason.GAP)]
    [gap] = gaps(log.found)
    assert gap.since_ns == NOW_NS + 1


def test_a_repeated_trade_is_published_once(log: Log) -> None:
    assert log.trade(7, 8, 8, 7, 9) == [7, 8, 9]


def test_a_trade_that_comes_late_after_all_is_published(log: Log) -> None:
    log.trade(1, 5)
    assert log.gaps == [(2, 4, 3, Reason.GAP)]
    assert log.trade(3, 3, 2, 4, 4) == [3, 2, 4]
    assert log.gaps == []


def test_ids_of_the_other_kind_do_not_count(log: Log) -> None:
    assert log.trade(100, id_kind=IdKind.AGGREGATE) == [100]
    assert log.trade(5000) == []
    assert log.trade(101, id_kind=IdKind.AGGREGATE) == [101]
    assert log.gaps == []


def test_ids_that_are_no_sequence_have_no_gaps(log: Log) -> None:
    assert log.trade(10, 20, 15, 30, contiguous=False) == [10, 20, 30]
    assert log.gaps == []


def test_a_heartbeat_ahead_of_its_trade_is_no_loss(log: Log) -> None:
    log.trade(1)
    log.mark(2, settled=False)
    assert log.gaps == []
    assert log.trade(2) == [2]
    log.mark(2, settled=False)
    log.mark(2, settled=False)
    assert log.gaps == []


def test_a_trade_that_two_heartbeats_miss_is_lost(log: Log) -> None:
    log.trade(1)
    log.mark(3, settled=False)
    log.mark(4, settled=False)
    assert log.gaps == [(2, 3, 2, Reason.GAP)]
    log.mark(4, settled=False)
    assert log.gaps == [(4, 4, 1, Reason.GAP)]
    assert log.trade(5) == [5]
    assert log.gaps == []


def test_last_match_sets_the_beginning_and_is_no_trade(log: Log) -> None:
    log.mark(41, settled=True)
    assert log.found == []
    assert log.trade(42) == [42]
    assert log.gaps == []


def test_last_match_shows_what_a_reconnect_missed(log: Log) -> None:
    log.trade(1)
    log.log.reconnected()
    log.mark(4, settled=True)
    assert log.gaps == [(2, 4, 3, Reason.RECONNECTED)]
    assert log.trade(5, 7) == [5, 7]
    assert log.gaps == [(6, 6, 1, Reason.GAP)]


def test_recent_trades_of_the_first_connection_are_no_news(log: Log) -> None:
    assert log.trade(1, 2, 3, recent=True) == []
    assert log.trade(4) == [4]
    assert log.gaps == []


def test_recent_trades_fill_what_a_reconnect_missed(log: Log) -> None:
    log.trade(1, 2)
    log.log.reconnected()
    assert log.trade(1, 2, 3, 4, recent=True) == [3, 4]
    assert log.gaps == []
    assert log.trade(5) == [5]


def test_recent_trades_that_do_not_reach_back_leave_a_gap(log: Log) -> None:
    log.trade(1, 2)
    log.log.reconnected()
    assert log.trade(6, 7, recent=True) == [6, 7]
    assert log.gaps == [(3, 5, 3, Reason.RECONNECTED)]


def test_ids_that_are_no_sequence_leave_a_gap_of_unknown_size_at_a_reconnect(log: Log) -> None:
    log.trade(10, 20, contiguous=False)
    log.log.reconnected()
    assert log.trade(40, 50, 60, contiguous=False, recent=True) == [40, 50, 60]
    assert log.gaps == [(21, 39, None, Reason.RECONNECTED)]
    log.log.reconnected()
    assert log.trade(50, 60, 80, contiguous=False, recent=True) == [80]
    assert log.gaps == []


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("price", "0", RangeError),
        ("price", "-1", RangeError),
        ("size", "0.0000", RangeError),
        ("size", "9" * 400, RangeError),
        ("price", "1.505", PrecisionError),
        ("trade_id", -1, RangeError),
        ("trade_id", 2**63, RangeError),
    ],
)
def test_a_trade_that_cant_be_used_is_missed_by_the_next(
    log: Log, name: str, value: object, error: type[Exception]
) -> None:
    log.trade(1)
    with pytest.raises(error):
        log.trade(2, **{name: value})
    assert log.trade(3) == [3]
    assert log.gaps == [(2, 2, 1, Reason.GAP)]


def test_a_heartbeat_ahead_of_the_first_trade_hides_it_not(log: Log) -> None:
    log.mark(100, settled=False)
    assert log.trade(100, 101) == [100, 101]
    assert log.gaps == []


def test_one_wrong_id_far_ahead_does_not_silence_what_follows(log: Log) -> None:
    log.trade(10, contiguous=False)
    with pytest.raises(RangeError, match="soon after 10"):
        log.trade(2**62, contiguous=False)
    assert log.trade(11, 12, contiguous=False) == [11, 12]


def test_a_venue_that_counts_anew_is_followed_and_the_break_told(log: Log) -> None:
    log.trade(1000, exchange_ns=NOW_NS)
    assert log.trade(1, exchange_ns=NOW_NS + 1) == [1]
    assert log.gaps == [(None, None, None, Reason.GAP)]
    assert log.trade(2, 3, exchange_ns=NOW_NS + 2) == [2, 3]
    assert log.gaps == []


@pytest.mark.parametrize("last", [-1, 2**63, 10**30])
def test_a_mark_that_is_no_trade_id_is_refused(log: Log, last: int) -> None:
    log.trade(1)
    with pytest.raises(RangeError):
        log.mark(last, settled=True)
    assert log.trade(2) == [2]

"""What is missing is found from the trades around it, whatever the venue's clock says."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.fixed import INT64_MAX
from alphapulse.history import GapRow, OrderKey, TradeRow
from alphapulse.model import Channel, IdKind, Reason
from alphapulse.store import holes
from alphapulse.store.holes import Hole, Missing, find_hole
from tests.trading import NOW_NS, row

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=30)


class Trades:
    """A store, as far as it is asked: rows in order."""

    def __init__(self, rows: list[TradeRow]) -> None:
        self.rows = sorted(rows, key=lambda row: row.order_key)
        self.keys = [row.order_key for row in self.rows]
        self.reads = 0

    async def read_trades(
        self,
        exchange: str,
        symbol: str,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
        *,
        newest: bool = False,
        beyond: OrderKey | None = None,
    ) -> list[TradeRow]:
        self.reads += 1
        first, last = 0, len(self.rows)
        if end_ns is not None:
            last = bisect_left(self.keys, (end_ns + 1, 0, ""))
        if beyond is not None and newest:
            last = min(last, bisect_left(self.keys, beyond))
        elif beyond is not None:
            first = bisect_right(self.keys, beyond)
        found = self.rows[first:last]
        assert limit is not None, "reads are bounded"
        return found[-limit:] if newest else found[:limit]


def second(number: float) -> int:
    """Our time, so many seconds from now."""
    return NOW_NS + int(number * NS_PER_SECOND)


def heard(number: int, at: float, ahead: float = 0, **fields: object) -> TradeRow:
    """A trade that arrived at a second, made by a venue whose clock is ahead."""
    received = second(at)
    return row(
        number, timestamp_ns=received + second(ahead) - NOW_NS, received_ns=received, **fields
    )


def filled(number: int, at: float, ahead: float = 0, **fields: object) -> TradeRow:
    """A trade of the venue's REST service."""
    return row(number, timestamp_ns=second(at + ahead), filled=True, **fields)


def lapped(since: float, seen: float) -> GapRow:
    """Records of a ring lost after a second."""
    return GapRow(
        exchange="kraken",
        symbol=None,
        channel=Channel.RING,
        reason=Reason.LAPPED,
        first=100,
        last=200,
        count=101,
        since_ns=second(since),
        received_ns=second(seen),
        epoch=second(-100) // 1_000_000,
    )


def missed(first: int, last: int, since: float, seen: float) -> GapRow:
    """Trades lost, by their ids."""
    return GapRow(
        exchange="kraken",
        symbol="BTC-USD",
        channel=Channel.TRADES,
        reason=Reason.GAP,
        first=first,
        last=last,
        count=last - first + 1,
        since_ns=second(since),
        received_ns=second(seen),
    )


async def hole_of(gap: GapRow, *rows: TradeRow) -> Hole:
    return await find_hole(Trades(list(rows)), gap, "BTC-USD", IdKind.TRADE)  # type: ignore[arg-type]


@given(RANGES, st.integers(0, 12))
def test_missing_ids_are_a_set(removals: list[tuple[int, int]], reach: int) -> None:
    missing, oracle = Missing(5, 50), set(range(5, 51))
    for first, length in removals:
        ids = set(range(first, first + length + 1))
        assert missing.remove(first, first + length) is (ids <= oracle)
        if ids <= oracle:
            oracle -= ids
        assert missing.within(first, first + length) is bool(ids & oracle)
    found = missing.groups(0)
    assert {number for first, last in found for number in range(first, last + 1)} == oracle
    assert bool(missing) is bool(oracle)
    for one, other in zip(missing.groups(reach), missing.groups(reach)[1:], strict=False):
        assert other[0] - one[1] > reach + 1
    missing.cut(10, 20)
    assert missing.groups(100) == (
        [(min(oracle & set(range(10, 21))), max(oracle & set(range(10, 21))))]
        if oracle & set(range(10, 21))
        else []
    )


@pytest.mark.parametrize("ahead", [0, 60, -60, 3600, -3600])
async def test_a_rings_loss_is_between_the_trades_that_were_heard(ahead: float) -> None:
    before = [heard(number, number, ahead) for number in range(1, 11)]
    behind = [heard(number, number, ahead) for number in range(16, 30)]
    hole = await hole_of(lapped(10.5, 15.7), *before, *behind)
    assert hole.missing.groups(0) == [(11, 15)]
    assert (hole.after_id, hole.closed, hole.filled) == (10, True, 0)
    assert hole.since_of(11) == before[-1].timestamp_ns
    assert hole.until_ns == behind[0].timestamp_ns


async def test_what_was_filled_before_isnt_missing_and_counts() -> None:
    rows = [heard(10, 10), filled(12, 12), filled(13, 13), heard(16, 16)]
    hole = await hole_of(lapped(10.5, 15), *rows)
    assert hole.missing.groups(0) == [(11, 11), (14, 15)]
    assert hole.missing.groups(2) == [(11, 15)]
    assert hole.filled == 2
    assert hole.since_of(14) == rows[2].timestamp_ns
    assert not hole.aggregated


async def test_what_filled_an_earlier_gap_doesnt_count() -> None:
    rows = [heard(1, 1), filled(2, 2), filled(3, 3), heard(4, 4), heard(6, 6)]
    hole = await hole_of(lapped(4.5, 5), *rows)
    assert (hole.missing.groups(0), hole.filled) == ([(5, 5)], 0)


async def test_aggregates_in_the_hole_are_known_again() -> None:
    aggregate = filled(3, 12, id_kind=IdKind.AGGREGATE, matches=2)
    hole = await hole_of(lapped(10.5, 15), heard(10, 10), aggregate, heard(16, 16))
    assert hole.missing.groups(0) == [(11, 15)], "its matches are told by the venue alone"
    assert hole.aggregated
    assert hole.filled == 1
    assert not hole.is_new(aggregate)
    assert hole.is_new(filled(4, 13, id_kind=IdKind.AGGREGATE))


async def test_trades_of_one_frame_may_be_on_both_sides() -> None:
    rows = [heard(1, 1), heard(2, 2), heard(5, 2), heard(6, 3)]
    hole = await hole_of(lapped(2, 3), *rows)
    assert hole.missing.groups(0) == [(3, 4)]


@pytest.mark.parametrize("closed", [True, False])
async def test_trades_heard_just_when_a_gap_begins_may_be_before_it(closed: bool) -> None:
    """All that is stored before it came at once, and took longer than what came behind it."""
    first = [heard(number, 10, ahead=-8) for number in (5, 6, 7)]
    behind = [heard(12, 14, ahead=-0.01)] if closed else []
    hole = await hole_of(lapped(10, 13), *first, *behind)
    assert hole.missing.groups(0) == [(0, 4), (8, 11 if closed else INT64_MAX)]
    assert hole.closed is closed
    assert hole.since_of(0) == first[0].timestamp_ns - holes.LATE_NS, "some may lie before these"
    assert hole.since_of(8) <= first[0].timestamp_ns


async def test_trades_heard_just_when_a_gap_begins_tell_the_venues_time() -> None:
    hole = await hole_of(lapped(10, 13), heard(5, 10, ahead=60))
    assert hole.since_ns == second(10 + 60) - holes.LATE_NS
    assert hole.until_ns == second(13 + 60) + holes.LATE_NS


async def test_a_trade_heard_just_when_a_gap_begins_doesnt_end_it() -> None:
    hole = await hole_of(lapped(2, 3), heard(1, 1), heard(4, 2), heard(7, 2), heard(9, 3))
    assert hole.missing.groups(0) == [(2, 3), (5, 6), (8, 8)]


async def test_an_open_hole_ends_after_the_loss_was_seen() -> None:
    hole = await hole_of(lapped(10.5, 15), heard(9, 9, ahead=60), heard(10, 10, ahead=60))
    assert not hole.closed
    assert hole.missing.groups(0) == [(11, INT64_MAX)]
    assert hole.until_ns == second(15 + 60) + holes.LATE_NS


async def test_a_hole_before_the_first_trade_begins_with_the_gap() -> None:
    hole = await hole_of(lapped(10, 15), heard(16, 16, ahead=-7), heard(17, 17, ahead=-7))
    assert hole.after_id is None
    assert hole.missing.groups(0) == [(0, 15)]
    assert hole.since_ns == second(10 - 7) - holes.LATE_NS


async def test_a_ring_lost_from_its_beginning_on_is_as_old_as_its_epoch() -> None:
    gap = GapRow(
        exchange="kraken",
        symbol=None,
        channel=Channel.RING,
        reason=Reason.STARTED,
        first=1,
        last=50,
        count=50,
        since_ns=NO_TIME,
        received_ns=second(5),
        epoch=second(0) // 1_000_000,
    )
    hole = await hole_of(gap, heard(7, 4), heard(8, 5))
    assert hole.missing.groups(0) == [(0, 6)]
    assert hole.since_ns == second(0) - holes.LATE_NS


@pytest.mark.parametrize("ahead", [0, 60, -60])
async def test_known_ids_are_missing_unless_they_are_there(ahead: float) -> None:
    rows = [heard(number, number, ahead) for number in (8, 9, 13, 16, 17)]
    hole = await hole_of(missed(10, 15, 9, 16), *rows)
    assert hole.missing.groups(0) == [(10, 12), (14, 15)]
    assert (hole.after_id, hole.closed) == (9, True)
    assert hole.since_of(10) == rows[1].timestamp_ns
    hole = await hole_of(missed(10, 15, 9, 16))
    assert hole.missing.groups(0) == [(10, 15)]
    assert not hole.closed
    assert hole.since_ns < second(9)


async def test_ids_count_what_the_trades_around_count() -> None:
    rows = [heard(number, number, id_kind=IdKind.AGGREGATE) for number in (8, 9, 16)]
    hole = await hole_of(missed(10, 15, 9, 16), *rows)
    assert (hole.kind, hole.missing.groups(0)) == (IdKind.AGGREGATE, [(10, 15)])


async def test_long_histories_are_read_where_the_hole_is() -> None:
    rows = [heard(number, number) for number in range(1, 9000) if number != 4500]
    trades = Trades(rows)
    hole = await find_hole(trades, lapped(4499.5, 4501), "BTC-USD", IdKind.TRADE)  # type: ignore[arg-type]
    assert hole.missing.groups(0) == [(4500, 4500)]
    assert trades.reads == 2

"""When a book may be believed: both ways of synchronising, on a real ring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.collectors import sync
from alphapulse.collectors.events import (
    BookSnapshotEvent,
    BookUpdateEvent,
    VenueEvent,
    book_parts,
)
from alphapulse.config import BinanceUsSettings, VenuesSettings
from alphapulse.model import Action, BookState, Channel, Event, InstrumentDefined, Reason
from tests.feeding import (
    FeedOnRing,
    Rebuilt,
    deltas,
    gaps,
    snapshots,
    states,
)
from tests.support import make_instrument

LIVE, SYNCING, INVALID, STALE = (
    BookState.LIVE,
    BookState.SYNCING,
    BookState.INVALID,
    BookState.STALE,
)


def snapshot(symbol: str, bids: list[list[str]], asks: list[list[str]]) -> dict[str, Any]:
    return {"type": "snapshot", "product_id": symbol, "bids": bids, "asks": asks}


def update(symbol: str, *changes: list[str]) -> dict[str, Any]:
    return {"type": "l2update", "product_id": symbol, "changes": list(changes)}


class TestStreamed:
    """Snapshots come among the updates: Coinbase (no checksum)."""

    @pytest.fixture
    def on_ring(self, ring_prefix: str) -> Iterator[FeedOnRing]:
        listed = [make_instrument("coinbase", name, name) for name in ("BTC-USD", "ETH-USD")]
        with FeedOnRing(ring_prefix, "coinbase", listed) as on_ring:
            yield on_ring

    def live(self, on_ring: FeedOnRing) -> None:
        for symbol in ("BTC-USD", "ETH-USD"):
            on_ring.send(snapshot(symbol, [["1.00", "2"]], [["1.10", "3"]]))

    def test_it_begins_by_announcing_instruments_that_are_syncing(
        self, on_ring: FeedOnRing
    ) -> None:
        defined = [event for event in on_ring.started if isinstance(event, InstrumentDefined)]
        assert [event.instrument.symbol for event in defined] == ["BTC-USD", "ETH-USD"]
        assert states(on_ring.started) == [
            ("BTC-USD", SYNCING, Reason.STARTED),
            ("ETH-USD", SYNCING, Reason.STARTED),
        ]

    def test_nothing_is_published_before_the_snapshot(self, on_ring: FeedOnRing) -> None:
        assert on_ring.send(update("BTC-USD", ["buy", "1.00", "5"])) == []

    def test_a_snapshot_makes_it_live_and_updates_become_deltas(self, on_ring: FeedOnRing) -> None:
        found = on_ring.send(snapshot("BTC-USD", [["1.00", "2"]], [["1.10", "3"]]))
        [made] = snapshots(found)
        assert (made.version, made.reason) == (1, Reason.SUBSCRIBED)
        assert states(found) == [("BTC-USD", LIVE, Reason.SUBSCRIBED)]
        found = on_ring.send(
            update("BTC-USD", ["buy", "1.00", "0.00000000"], ["sell", "1.05", "1.5"])
        )
        [delta] = deltas(found)
        assert (delta.prev_version, delta.version) == (1, 2)
        assert [(change.price, change.size, change.action) for change in delta.changes] == [
            (100, 0, Action.REMOVE),
            (105, 15000, Action.ADD),
        ]
        assert delta.received_ns == on_ring.now_ns

    def test_an_update_that_changes_nothing_is_no_delta(self, on_ring: FeedOnRing) -> None:
        self.live(on_ring)
        assert on_ring.send(update("BTC-USD", ["buy", "1.00", "2.0"])) == []
        assert on_ring.send(update("BTC-USD", ["buy", "0.50", "0"])) == []

    def test_a_crossed_book_is_invalid_until_its_next_snapshot(self, on_ring: FeedOnRing) -> None:
        self.live(on_ring)
        found = on_ring.send(update("BTC-USD", ["buy", "1.20", "1"]))
        assert deltas(found) == []
        assert states(found) == [("BTC-USD", INVALID, Reason.CROSSED)]
        assert on_ring.feed.wanted == {"BTC-USD": Reason.CROSSED}
        assert on_ring.send(update("BTC-USD", ["buy", "0.90", "1"])) == []
        assert len(deltas(on_ring.send(update("ETH-USD", ["buy", "0.90", "1"])))) == 1
        found = on_ring.send(snapshot("BTC-USD", [["1.00", "2"]], []))
        [made] = snapshots(found)
        assert (made.version, made.reason) == (2, Reason.RESYNCED)
        assert states(found) == [("BTC-USD", LIVE, Reason.RESYNCED)]

    def test_a_crossed_snapshot_never_becomes_the_book(self, on_ring: FeedOnRing) -> None:
        found = on_ring.send(snapshot("BTC-USD", [["1.20", "2"]], [["1.10", "3"]]))
        assert snapshots(found) == []
        assert states(found) == [("BTC-USD", INVALID, Reason.CROSSED)]

    @pytest.mark.parametrize(
        "change",
        [
            ["buy", "1.00", "-1"],
            ["buy", "NaN", "1"],
            ["buy", "9" * 400, "1"],
            ["buy", "1.00", "9" * 25],
            ["hold", "1.00", "1"],
            ["buy", "0", "1"],
            ["buy", "-1", "1"],
            ["buy", "1.00"],
            ["buy", "1e400", "1"],
        ],
    )
    def test_an_update_that_cant_be_used_makes_its_book_invalid_and_no_other(
        self, on_ring: FeedOnRing, change: list[str]
    ) -> None:
        self.live(on_ring)
        found = on_ring.send(update("BTC-USD", ["sell", "1.10", "4"], change))
        assert deltas(found) == []
        assert states(found) == [("BTC-USD", INVALID, Reason.MALFORMED)]
        [(symbol, problem)] = on_ring.complaints
        assert symbol == "BTC-USD"
        assert problem
        assert on_ring.feed.counts.malformed == 1
        assert len(deltas(on_ring.send(update("ETH-USD", ["buy", "0.90", "1"])))) == 1

    def test_more_decimal_places_make_a_new_instrument_and_a_snapshot(
        self, on_ring: FeedOnRing
    ) -> None:
        self.live(on_ring)
        old = on_ring.feed.books["BTC-USD"].instrument
        found = on_ring.send(update("BTC-USD", ["buy", "1.001", "0.12345"]))
        defined = [event.instrument for event in found if isinstance(event, InstrumentDefined)]
        assert [(made.price_exponent, made.size_exponent) for made in defined] == [(3, 4), (3, 5)]
        assert old.id not in {made.id for made in defined}
        assert [made.reason for made in snapshots(found)] == [Reason.RESCALED] * 2
        assert snapshots(found)[-1].bids == ((1000, 200000),)
        [delta] = deltas(found)
        assert [(change.price, change.size) for change in delta.changes] == [(1001, 12345)]
        assert delta.instrument == defined[-1]
        assert states(found)[-1] == ("BTC-USD", LIVE, Reason.RESCALED)

    def test_too_many_decimal_places_are_malformed(self, on_ring: FeedOnRing) -> None:
        self.live(on_ring)
        found = on_ring.send(update("BTC-USD", ["buy", "1.0000000000000000001", "1"]))
        assert states(found) == [("BTC-USD", INVALID, Reason.MALFORMED)]

    def test_digits_that_grew_the_exponents_too_far_are_given_up_with_the_book(
        self, on_ring: FeedOnRing
    ) -> None:
        on_ring.send(snapshot("BTC-USD", [["0.000000000000000001", "1"]], []))
        assert on_ring.feed.books["BTC-USD"].instrument.price_exponent == 18
        found = on_ring.send(snapshot("BTC-USD", [["29430.20", "2"]], []))
        assert states(found)[-1][1] is INVALID
        found = on_ring.send(snapshot("BTC-USD", [["29430.20", "2"]], []))
        assert states(found)[-1] == ("BTC-USD", LIVE, Reason.RESYNCED)
        assert on_ring.feed.books["BTC-USD"].instrument.price_exponent == 2

    def test_a_price_that_can_only_be_held_at_the_cost_of_another_is_malformed(
        self, on_ring: FeedOnRing
    ) -> None:
        on_ring.send(snapshot("BTC-USD", [["29430.20", "2"]], []))
        found = on_ring.send(update("BTC-USD", ["sell", "99999.000000000000000001", "1"]))
        assert states(found) == [("BTC-USD", INVALID, Reason.MALFORMED)]
        assert on_ring.feed.books["BTC-USD"].instrument.price_exponent == 2

    def test_exponents_do_not_change_without_end(
        self, on_ring: FeedOnRing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync, "MOST_RESCALES", 2)
        self.live(on_ring)
        for places in (3, 4):
            on_ring.send(update("BTC-USD", ["buy", f"1.{'0' * (places - 1)}1", "1"]))
        assert on_ring.feed.books["BTC-USD"].instrument.price_exponent == 4
        found = on_ring.send(update("BTC-USD", ["buy", "1.00001", "1"]))
        assert states(found) == [("BTC-USD", INVALID, Reason.MALFORMED)]

    def test_a_second_snapshot_is_an_explicit_reset(self, on_ring: FeedOnRing) -> None:
        self.live(on_ring)
        found = on_ring.send(snapshot("BTC-USD", [["0.99", "1"]], []))
        [made] = snapshots(found)
        assert (made.version, made.reason) == (2, Reason.RESYNCED)


class TestNumbered:
    """Snapshots come among updates that bear numbers, as the template's would without REST."""

    @pytest.fixture
    def on_ring(self, ring_prefix: str) -> Iterator[FeedOnRing]:
        listed = [make_instrument("coinbase", name, name) for name in ("BTC-USD", "ETH-USD")]
        with FeedOnRing(ring_prefix, "coinbase", listed) as on_ring:
            yield on_ring

    def send(self, on_ring: FeedOnRing, *found: VenueEvent) -> list[Event]:
        on_ring.now_ns += 1_000_000
        on_ring.feed.take(on_ring.channel, list(found), 0, on_ring.now_ns)
        return on_ring.events()

    def whole(self, last_id: int | None) -> BookSnapshotEvent:
        parts = book_parts(msgspec.Raw(b'[["1.00","2"]]'), msgspec.Raw(b"[]"))
        return BookSnapshotEvent("BTC-USD", parts, last_id=last_id)

    def change(self, first: int, last: int, size: str, time_ns: int = NO_TIME) -> BookUpdateEvent:
        parts = book_parts(msgspec.Raw(b'[["1.00","%s"]]' % size.encode()), msgspec.Raw(b"[]"))
        return BookUpdateEvent("BTC-USD", parts, time_ns, first_id=first, last_id=last)

    def test_updates_that_continue_the_snapshot_are_deltas(self, on_ring: FeedOnRing) -> None:
        found = self.send(on_ring, self.whole(100), self.change(101, 102, "3"))
        assert len(deltas(found)) == 1
        assert len(deltas(self.send(on_ring, self.change(103, 103, "4")))) == 1

    def test_a_jump_is_a_gap_of_known_size_and_a_snapshot_mends_it(
        self, on_ring: FeedOnRing
    ) -> None:
        self.send(on_ring, self.whole(100), self.change(101, 102, "3"))
        found = self.send(on_ring, self.change(105, 105, "4"))
        assert deltas(found) == []
        assert states(found) == [("BTC-USD", INVALID, Reason.GAP)]
        [gap] = gaps(found)
        assert (gap.channel, gap.first, gap.last, gap.count) == (Channel.ORDERBOOK, 103, 104, 2)
        assert on_ring.feed.wanted == {"BTC-USD": Reason.GAP}
        found = self.send(on_ring, self.whole(110), self.change(111, 111, "5"))
        assert states(found) == [("BTC-USD", LIVE, Reason.RESYNCED)]
        assert len(deltas(found)) == 1

    def test_what_the_snapshot_includes_is_left_out(self, on_ring: FeedOnRing) -> None:
        found = self.send(on_ring, self.whole(100), self.change(99, 100, "3"))
        assert deltas(found) == []
        assert len(deltas(self.send(on_ring, self.change(99, 101, "4")))) == 1

    def test_a_snapshot_without_a_number_begins_with_the_first_update(
        self, on_ring: FeedOnRing
    ) -> None:
        found = self.send(on_ring, self.whole(None), self.change(7, 7, "3"))
        assert len(deltas(found)) == 1
        found = self.send(on_ring, self.change(9, 9, "4"))
        assert states(found) == [("BTC-USD", INVALID, Reason.GAP)]

    def test_old_numbers_at_a_later_time_mean_that_the_venue_counts_anew(
        self, on_ring: FeedOnRing
    ) -> None:
        self.send(on_ring, self.whole(100), self.change(101, 101, "3", 5 * NS_PER_SECOND))
        found = self.send(on_ring, self.change(1, 1, "4", 6 * NS_PER_SECOND))
        assert states(found) == [("BTC-USD", INVALID, Reason.GAP)]

    def test_a_snapshot_whose_number_cant_be_is_not_taken(self, on_ring: FeedOnRing) -> None:
        for number in (-1, 1 << 63):
            found = self.send(on_ring, self.whole(number))
            assert snapshots(found) == []
            assert on_ring.feed.books["BTC-USD"].state is INVALID


def depth(first: int, last: int, bids: list[list[str]], time: int = 1) -> dict[str, Any]:
    data = {"e": "depthUpdate", "E": time, "s": "BTCUSD", "U": first, "u": last, "b": bids, "a": []}
    return {"stream": "btcusd@depth@100ms", "data": data}


def rest(last_id: int, bids: list[list[str]]) -> bytes:
    return json.dumps({"lastUpdateId": last_id, "bids": bids, "asks": []}).encode()


class TestSequenced:
    """Numbered updates on top of a REST snapshot: Binance.US."""

    @pytest.fixture
    def on_ring(self, ring_prefix: str) -> Iterator[FeedOnRing]:
        listed = [make_instrument("binance_us", "BTC-USD", "BTCUSD")]
        settings = VenuesSettings(binance_us=BinanceUsSettings(snapshot_limit=100))
        with FeedOnRing(ring_prefix, "binance_us", listed, settings) as on_ring:
            yield on_ring

    def answer(self, on_ring: FeedOnRing, last_id: int, bids: list[list[str]]) -> list[Any]:
        on_ring.feed.wanted.clear()
        book = on_ring.feed.books["BTCUSD"]
        assert on_ring.feed.rest_snapshot(book.instrument, rest(last_id, bids), on_ring.now_ns)
        return on_ring.events()

    def live(self, on_ring: FeedOnRing) -> None:
        self.answer(on_ring, 100, [["1.00", "2"]])

    def test_a_snapshot_is_wanted_as_soon_as_the_stream_is_open(self, on_ring: FeedOnRing) -> None:
        assert "BTCUSD" in on_ring.feed.wanted

    def test_kept_updates_follow_the_snapshot_and_older_ones_are_dropped(
        self, on_ring: FeedOnRing
    ) -> None:
        found = on_ring.send(
            depth(95, 99, [["9.00", "9"]]),
            depth(100, 102, [["1.01", "1"]]),
            depth(103, 103, [["1.02", "1"]]),
        )
        assert found == []
        found = self.answer(on_ring, 101, [["1.00", "2"]])
        [made] = snapshots(found)
        assert made.bids == ((100, 20000),)
        assert [[change.price for change in delta.changes] for delta in deltas(found)] == [
            [101],
            [102],
        ]
        assert states(found) == [("BTC-USD", LIVE, Reason.SUBSCRIBED)]

    def test_a_snapshot_older_than_the_kept_updates_is_wanted_again_and_they_stay(
        self, on_ring: FeedOnRing
    ) -> None:
        on_ring.send(depth(105, 106, [["1.01", "1"]]), depth(107, 108, [["1.02", "1"]]))
        for _ in range(3):
            assert self.answer(on_ring, 90, [["5.00", "5"]]) == []
            assert "BTCUSD" in on_ring.feed.wanted
        found = self.answer(on_ring, 106, [["1.01", "1"]])
        assert len(snapshots(found)) == 1
        assert [delta.changes[0].price for delta in deltas(found)] == [102]

    def test_a_snapshot_without_kept_updates_is_enough(self, on_ring: FeedOnRing) -> None:
        found = self.answer(on_ring, 100, [["1.00", "2"]])
        assert states(found) == [("BTC-USD", LIVE, Reason.SUBSCRIBED)]
        [delta] = deltas(on_ring.send(depth(99, 101, [["1.00", "3"]])))
        assert delta.changes[0].action is Action.UPDATE

    def test_a_jump_is_a_gap_of_known_size_and_the_book_invalid(self, on_ring: FeedOnRing) -> None:
        self.live(on_ring)
        found = on_ring.send(depth(101, 102, []), depth(104, 107, [["1.00", "3"]]))
        assert deltas(found) == []
        assert states(found) == [("BTC-USD", INVALID, Reason.GAP)]
        [gap] = gaps(found)
        assert (gap.channel, gap.first, gap.last, gap.count) == (Channel.ORDERBOOK, 103, 103, 1)
        assert on_ring.feed.wanted == {"BTCUSD": Reason.GAP}
        assert on_ring.send(depth(108, 108, [["1.01", "1"]])) == []
        found = self.answer(on_ring, 105, [["1.00", "9"]])
        assert [made.reason for made in snapshots(found)] == [Reason.RESYNCED]
        assert [delta.changes[0].price for delta in deltas(found)] == [100, 101]

    def test_a_gap_among_the_kept_updates_keeps_what_follows_it(self, on_ring: FeedOnRing) -> None:
        on_ring.send(depth(101, 101, []), depth(103, 103, [["1.02", "1"]]), depth(104, 104, []))
        found = self.answer(on_ring, 100, [["1.00", "2"]])
        assert states(found)[-1] == ("BTC-USD", INVALID, Reason.GAP)
        found = self.answer(on_ring, 102, [["1.00", "2"]])
        assert [delta.changes[0].price for delta in deltas(found)] == [102]
        assert states(found) == [("BTC-USD", LIVE, Reason.RESYNCED)]

    def test_updates_that_two_overlapping_connections_bring_count_once(
        self, on_ring: FeedOnRing
    ) -> None:
        self.live(on_ring)
        frame = depth(101, 101, [["1.00", "3"]])
        assert len(deltas(on_ring.send(frame, frame))) == 1

    def test_an_old_answer_does_not_turn_a_live_book_back(self, on_ring: FeedOnRing) -> None:
        self.live(on_ring)
        on_ring.send(depth(101, 105, [["1.00", "3"]]))
        assert self.answer(on_ring, 103, [["9.00", "9"]]) == []

    def test_the_snapshot_says_how_far_it_is_trusted(self, on_ring: FeedOnRing) -> None:
        bids = [[f"{price / 100:.2f}", "1"] for price in range(1000, 900, -1)]
        [made] = snapshots(self.answer(on_ring, 100, bids))
        assert (made.trusted_bid, made.trusted_ask) == (901, None)

    def test_kept_updates_are_bounded(
        self, on_ring: FeedOnRing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync, "MAX_BUFFERED_FRAMES", 3)
        on_ring.send(*(depth(number, number, [["1.00", str(number)]]) for number in range(1, 9)))
        found = self.answer(on_ring, 4, [])
        assert snapshots(found) == []
        found = self.answer(on_ring, 5, [])
        assert [delta.changes[0].size for delta in deltas(found)] == [60000, 70000, 80000]

    def test_a_malformed_answer_is_counted_and_not_taken(self, on_ring: FeedOnRing) -> None:
        book = on_ring.feed.books["BTCUSD"]
        assert not on_ring.feed.rest_snapshot(book.instrument, b'{"bids":[]', on_ring.now_ns)
        assert on_ring.feed.counts.malformed == 1
        assert states(on_ring.events()) == []

    def test_an_unusable_update_is_told_and_the_next_one_proves_that_nothing_was_lost(
        self, on_ring: FeedOnRing
    ) -> None:
        self.live(on_ring)
        garbage = b'{"stream":"btcusd@depth@100ms","data":{"e":"depthUpdate","s":"BTCUSD","U":'
        found = on_ring.send(garbage)
        assert states(found) == [("BTC-USD", INVALID, Reason.MALFORMED)]
        assert on_ring.feed.wanted == {"BTCUSD": Reason.MALFORMED}
        found = on_ring.send(depth(101, 101, [["1.00", "3"]]))
        [made] = snapshots(found)
        assert (made.bids, made.reason) == (((100, 20000),), Reason.RESYNCED)
        assert states(found) == [("BTC-USD", LIVE, Reason.RESYNCED)]
        assert len(deltas(found)) == 1

    def test_an_unusable_update_that_was_a_real_one_is_found_by_the_next(
        self, on_ring: FeedOnRing
    ) -> None:
        self.live(on_ring)
        found = on_ring.send(depth(101, 101, [["-1", "3"]]), depth(102, 102, [["1.00", "3"]]))
        assert deltas(found) == []
        assert snapshots(found) == []
        assert states(found) == [("BTC-USD", INVALID, Reason.MALFORMED)]
        assert self.answer(on_ring, 99, [["9.00", "9"]]) == []
        found = self.answer(on_ring, 101, [["1.00", "2"]])
        assert states(found) == [("BTC-USD", LIVE, Reason.RESYNCED)]
        assert len(deltas(found)) == 1

    def test_an_answer_older_than_a_suspect_book_is_wanted_again(self, on_ring: FeedOnRing) -> None:
        self.live(on_ring)
        on_ring.send(depth(101, 105, [["1.00", "3"]]), depth(106, 106, [["-1", "3"]]))
        assert self.answer(on_ring, 104, [["9.00", "9"]]) == []
        assert "BTCUSD" in on_ring.feed.wanted
        found = self.answer(on_ring, 106, [["1.00", "4"]])
        assert states(found) == [("BTC-USD", LIVE, Reason.RESYNCED)]

    def test_old_ids_at_a_later_time_mean_that_the_venue_counts_anew(
        self, on_ring: FeedOnRing
    ) -> None:
        self.live(on_ring)
        on_ring.send(depth(101, 101, [["1.00", "3"]], time=5))
        assert on_ring.send(depth(99, 100, [["1.00", "4"]], time=4)) == []
        found = on_ring.send(depth(1, 1, [["1.00", "4"]], time=6))
        assert states(found) == [("BTC-USD", INVALID, Reason.GAP)]

    def test_a_snapshot_that_is_ahead_of_all_updates_for_long_is_not_the_books(
        self, on_ring: FeedOnRing
    ) -> None:
        self.answer(on_ring, 10**9, [["1.00", "2"]])
        assert on_ring.send(depth(101, 102, [["1.00", "3"]])) == []
        on_ring.now_ns += sync.MAX_AHEAD_SECONDS * NS_PER_SECOND
        found = on_ring.send(depth(103, 104, [["1.00", "4"]]))
        assert states(found) == [("BTC-USD", INVALID, Reason.GAP)]
        assert on_ring.feed.wanted == {"BTCUSD": Reason.GAP}

    def test_repeats_long_after_a_snapshot_leave_a_book_alone_that_went_on(
        self, on_ring: FeedOnRing
    ) -> None:
        self.live(on_ring)
        on_ring.send(depth(101, 102, []))
        on_ring.now_ns += sync.MAX_AHEAD_SECONDS * NS_PER_SECOND
        assert on_ring.send(depth(101, 102, [])) == []

    @pytest.mark.parametrize("last_id", [-1, 2**64])
    def test_a_snapshot_whose_id_cant_be_is_not_taken(
        self, on_ring: FeedOnRing, last_id: int
    ) -> None:
        self.live(on_ring)
        on_ring.feed.resyncing("BTCUSD", on_ring.now_ns)
        on_ring.events()
        assert snapshots(self.answer(on_ring, last_id, [["9.00", "9"]])) == []
        assert on_ring.feed.counts.malformed == 1

    @pytest.mark.parametrize("ids", [(101, 2**62), (-5, 101), (2**64, 2**64)])
    def test_ids_that_cant_be_are_malformed(
        self, on_ring: FeedOnRing, ids: tuple[int, int]
    ) -> None:
        self.live(on_ring)
        found = on_ring.send(depth(*ids, [["1.00", "4"]]))
        assert states(found) == [("BTC-USD", INVALID, Reason.MALFORMED)]

    @pytest.mark.parametrize("time", [10**17, 10**30, -1, 0])
    def test_a_time_that_cant_be_is_unknown(self, on_ring: FeedOnRing, time: int) -> None:
        self.live(on_ring)
        [delta] = deltas(on_ring.send(depth(101, 101, [["1.00", "4"]], time=time)))
        assert delta.exchange_ns == NO_TIME

    def test_a_kept_update_larger_than_all_that_is_kept_is_dropped(
        self, on_ring: FeedOnRing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync, "MAX_BUFFERED_BYTES", 100)
        on_ring.send(depth(101, 101, [["1.00", "4"]] * 10), depth(102, 102, [["1.00", "5"]]))
        assert snapshots(self.answer(on_ring, 100, [])) == []
        found = self.answer(on_ring, 101, [])
        assert [delta.changes[0].size for delta in deltas(found)] == [50000]

    def test_what_an_earlier_connection_left_does_not_join_on(self, on_ring: FeedOnRing) -> None:
        on_ring.send(depth(11, 11, []))
        on_ring.feed.opened(on_ring.channel, on_ring.now_ns)
        on_ring.send(depth(50, 50, [["1.00", "4"]]))
        found = self.answer(on_ring, 49, [])
        assert gaps(found) == []
        assert len(deltas(found)) == 1

    def test_rebuilt_books_follow_through_everything(self, on_ring: FeedOnRing) -> None:
        rebuilt = Rebuilt()
        rebuilt.take(on_ring.started)
        rebuilt.take(self.answer(on_ring, 100, [["1.00", "2"]]))
        rebuilt.take(on_ring.send(depth(101, 101, [["1.01", "1"]]), depth(103, 103, [])))
        rebuilt.take(self.answer(on_ring, 103, [["1.05", "1"]]))
        rebuilt.take(on_ring.send(depth(104, 104, [["1.05", "0"], ["1.06", "1"]])))
        assert rebuilt.books == {"BTC-USD": ({106: 10000}, {})}

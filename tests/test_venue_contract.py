"""What is asked of every venue, the template included, on a real feed and a real ring.

Each check is made of frames in the venue's own dialect (tests/dialects.py), and goes both ways, the
native and the long one, which have to come to the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphapulse.collectors.events import Acknowledged, Instruments, Malformed
from alphapulse.collectors.venue import RestAnswer, TradeSpan
from alphapulse.model import Action, BookSide, BookState, Event, Side, Trade
from tests.bothways import Both
from tests.dialects import DIALECTS, Dialect
from tests.feeding import FeedOnRing, deltas, snapshots, states, trade_ids
from tests.test_architecture import NETWORK_LIBRARIES, imports_of

BIDS = {"1.00": "1.0000", "0.99": "2.0000"}
ASKS = {"1.10": "1.0000", "1.11": "2.0000"}


class Site(Both):
    """A dialect, and its venue's feed twice: with the native path and without."""

    def __init__(self, prefix: str, spoken: Dialect) -> None:
        self.spoken = spoken
        listed = [spoken.instrument]
        self.fast = FeedOnRing(f"{prefix}-fast", spoken.venue(), listed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(self.fast.venue), "plain_frames", ())
            self.slow = FeedOnRing(f"{prefix}-slow", spoken.venue(), listed)

    def state(self) -> BookState:
        return self.fast.feed.books[self.spoken.venue_symbol].state

    def make_live(self) -> list[Event]:
        for each in (self.fast, self.slow):
            self.spoken.make_live(each, BIDS, ASKS)
        return self.send()


@pytest.fixture(params=DIALECTS, ids=lambda kind: kind.name)
def site(request: pytest.FixtureRequest, ring_prefix: str) -> Iterator[Site]:
    made = Site(ring_prefix, request.param())
    try:
        yield made
    finally:
        made.close()


def test_a_snapshot_makes_a_book_live_and_nothing_else_does(site: Site) -> None:
    assert site.state() is BookState.SYNCING
    found = site.make_live()
    assert site.state() is BookState.LIVE
    [snapshot] = snapshots(found)
    assert snapshot.bids == ((100, 10000), (99, 20000))
    assert snapshot.asks == ((110, 10000), (111, 20000))


def test_an_update_before_the_snapshot_is_no_delta(site: Site) -> None:
    assert deltas(site.send(site.spoken.update(bids={"1.01": "1.0000"}))) == []
    assert site.state() is BookState.SYNCING


def test_levels_are_added_changed_and_removed_exactly(site: Site) -> None:
    site.make_live()
    update = site.spoken.update(
        bids={"1.01": "0.0001", "1.00": "3.5000", "0.99": "0.0000"}, asks={"1.10": "0"}
    )
    [delta] = deltas(site.send(update))
    assert {(c.side, c.price, c.size, c.action) for c in delta.changes} == {
        (BookSide.BID, 101, 1, Action.ADD),
        (BookSide.BID, 100, 35000, Action.UPDATE),
        (BookSide.BID, 99, 0, Action.REMOVE),
        (BookSide.ASK, 110, 0, Action.REMOVE),
    }
    assert delta.exchange_ns // 10**9 == 1690731013


def test_what_changes_nothing_is_no_delta(site: Site) -> None:
    site.make_live()
    same = site.spoken.update(bids={"1.00": "1.0000"})
    absent = site.spoken.update(asks={"1.50": "0.0000"})
    assert deltas(site.send(same, absent)) == []
    assert site.state() is BookState.LIVE


def test_a_crossed_book_is_never_published(site: Site) -> None:
    site.make_live()
    assert deltas(site.send(site.spoken.update(bids={"1.10": "1.0000"}))) == []
    assert site.state() is BookState.INVALID


def test_a_lost_update_ends_the_books_life(site: Site) -> None:
    if not site.spoken.notices_losses:
        return
    site.make_live()
    site.spoken.update(bids={"1.00": "7.0000"})
    found = site.send(site.spoken.update(asks={"1.10": "7.0000"}))
    assert deltas(found) == []
    assert [state for _, state, _ in states(found)] == [BookState.INVALID]
    assert site.spoken.venue_symbol in site.fast.feed.wanted


def test_after_a_new_snapshot_the_book_goes_on(site: Site) -> None:
    site.make_live()
    site.send(site.spoken.update(bids={"1.10": "1.0000"}))
    assert site.state() is BookState.INVALID
    site.make_live()
    assert site.state() is BookState.LIVE
    assert len(deltas(site.send(site.spoken.update(bids={"1.00": "9.0000"})))) == 1


@pytest.mark.parametrize("taker", ["buy", "sell"])
def test_a_trade_is_told_once_with_the_takers_side(site: Site, taker: str) -> None:
    first = site.spoken.trade(41, "1.01", "0.5000", taker)
    again = site.spoken.trade(41, "1.01", "0.5000", taker)
    second = site.spoken.trade(42, "1.02", "0.0001", taker)
    found = [event for event in site.send(first, again, second) if isinstance(event, Trade)]
    assert trade_ids(found) == [41, 42]
    assert [(trade.price, trade.size) for trade in found] == [(101, 5000), (102, 1)]
    assert {trade.side for trade in found} == {Side.BUY if taker == "buy" else Side.SELL}
    assert {trade.exchange_ns // 10**9 for trade in found} == {1690731013}


def test_everyday_frames_go_the_native_way(site: Site) -> None:
    site.make_live()
    taken = site.taken
    site.send(
        site.spoken.update(bids={"1.00": "2.0000"}), site.spoken.trade(1, "1.00", "1.0000", "buy")
    )
    assert site.taken == taken + 2


def test_a_broken_update_names_its_symbol_and_ends_the_books_life(site: Site) -> None:
    site.make_live()
    frame = site.spoken.update(bids={"1.00": "2.0000"})
    assert deltas(site.send(frame[: frame.index(b"1.00") + 1])) == []
    assert site.state() is BookState.INVALID
    assert [symbol for symbol, _ in site.fast.complaints] == [site.spoken.venue_symbol]


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_frame_is_too_damaged(site: Site, data: st.DataObject) -> None:
    if site.state() is not BookState.LIVE:
        site.make_live()
    trade = site.spoken.trade(data.draw(st.integers(1, 99)), "1.01", "0.5000", "buy")
    frame = bytearray(
        data.draw(st.sampled_from([site.spoken.update(bids={"1.00": "2.0000"}), trade]))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 1))
        if data.draw(st.booleans()):
            frame[at] = data.draw(st.integers(0, 255))
        else:
            frame[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
        frame = frame or bytearray(b"{")
    site.send(bytes(frame))


def test_kinds_of_frames_that_are_not_followed_are_no_error(site: Site) -> None:
    site.make_live()
    site.send(site.spoken.unknown)
    assert site.fast.complaints == []
    assert site.state() is BookState.LIVE


def test_what_is_subscribed_to_is_awaited_or_named_in_the_address(site: Site) -> None:
    venue, symbol = site.spoken.venue(), site.spoken.venue_symbol
    channel = venue.channel([site.spoken.instrument])
    messages = channel.open(0)
    if messages:
        assert (venue.book_channel, symbol) in channel.awaited
        assert any(symbol.encode() in message for message in messages)
        assert channel.subscribe({(venue.book_channel, symbol)}, 0)
    else:
        assert symbol.lower() in channel.url.lower()
        assert channel.awaited == set()


def test_a_refusal_concerns_its_symbol(site: Site) -> None:
    venue = site.spoken.venue()
    channel = venue.channel([site.spoken.instrument])
    refusal = site.spoken.refusal(channel)
    if refusal is None:
        return
    refused = [event for event in channel.receive(refusal) if isinstance(event, Acknowledged)]
    assert (venue.book_channel, site.spoken.venue_symbol) not in channel.awaited
    assert {event.venue_symbol for event in refused} == {site.spoken.venue_symbol}
    assert all(event.error for event in refused)


def test_metadata_gives_exact_scales_and_one_bad_entry_spoils_no_other(site: Site) -> None:
    good = site.spoken.metadata_fields
    bad = dict.fromkeys(good, "?")
    found = site.spoken.instruments([bad, good])
    [event] = [event for event in found if isinstance(event, Instruments)]
    [instrument] = event.instruments
    assert (instrument.id, instrument.exchange) == (0, site.spoken.venue().name)
    assert (instrument.symbol, instrument.venue_symbol) == ("BTC-USD", site.spoken.venue_symbol)
    assert (instrument.price_exponent, instrument.size_exponent) == (2, 4)
    assert [type(event) for event in found].count(Malformed) == 1


def test_metadata_with_names_that_no_record_holds_is_malformed(site: Site) -> None:
    entry = {
        key: "X" * 300 if value == site.spoken.venue_symbol else value
        for key, value in site.spoken.metadata_fields.items()
    }
    instruments, malformed = site.spoken.instruments([entry])
    assert instruments == Instruments([])
    assert isinstance(malformed, Malformed)
    assert "bytes of names" in malformed.problem


def test_symbols_are_spread_without_loss_within_the_venues_limits(site: Site) -> None:
    venue, one = site.spoken.venue(), site.spoken.instrument
    planned = venue.plan([one] * 120)
    assert sum(map(len, planned)) == 120
    assert max(map(len, planned)) <= venue.settings.symbols_per_connection
    for budget in (venue.limits.connects, venue.limits.messages, venue.limits.rest_weight):
        assert min(budget) > 0


def test_rest_trades_are_those_of_the_stream(site: Site) -> None:
    venue, instrument = site.spoken.venue(), site.spoken.instrument
    span = TradeSpan(41, 44, 1_690_000_000_000_000_000, 1_700_000_000_000_000_000)
    request = venue.trades_request(instrument, span)
    assert request is not None
    assert request.path.startswith("/")
    answer = RestAnswer(site.spoken.rest_trades([42, 43]), {})
    page = venue.parse_trades(instrument, span, request, answer)
    assert [trade.trade_id for trade in page.trades] == [42, 43]
    assert {trade.side for trade in page.trades} == {Side.BUY}
    assert {(trade.price, trade.size) for trade in page.trades} == {("1.01", "0.5000")}
    assert page.more is None


def test_a_books_snapshot_comes_over_rest_where_its_updates_are_numbered(site: Site) -> None:
    venue = site.spoken.venue()
    if venue.sequenced:
        assert venue.snapshot_request(site.spoken.instrument) is not None


def test_a_venue_imports_no_networking_library(site: Site) -> None:
    module = sys.modules[type(site.spoken.venue()).__module__]
    assert module.__file__ is not None
    path = Path(module.__file__)
    imported = {found.module.split(".")[0] for found in imports_of(path, path.parent)}
    assert imported & NETWORK_LIBRARIES == set()

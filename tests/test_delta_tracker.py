"""From a venue's levels to records: versions, net changes, truncation, checksums."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.delta import (
    BookTracker,
    BookView,
    ChecksumRule,
    Encoder,
    LevelLayout,
    LevelStage,
    Part,
    decode,
)
from alphapulse.errors import (
    BookError,
    ChecksumMismatch,
    CrossedBook,
    LevelSyntaxError,
    PrecisionError,
    RangeError,
)
from alphapulse.model import (
    Action,
    BookDelta,
    BookSide,
    BookSnapshot,
    Change,
    Level,
    Reason,
)
from tests.reference.book import ASK, BID, ReferenceBook
from tests.support import make_instrument

COARSE = make_instrument(id=3, price_exponent=2, size_exponent=3)
FINE = make_instrument(id=4, price_exponent=3, size_exponent=4)
PAIRS = LevelLayout.pairs()


def bids(*levels: str) -> Part:
    return side_part(BookSide.BID, levels)


def asks(*levels: str) -> Part:
    return side_part(BookSide.ASK, levels)


def side_part(side: BookSide, levels: tuple[str, ...]) -> Part:
    """A part of levels written as ``"price size"``."""
    texts = ['["{}","{}"]'.format(*level.split()) for level in levels]
    return PAIRS, side, f"[{','.join(texts)}]".encode()


def read(record: Encoder | None) -> BookSnapshot | BookDelta:
    assert record is not None
    event = decode(record, {3: COARSE, 4: FINE}, "kraken")
    assert isinstance(event, BookSnapshot | BookDelta)
    return event


def loaded(depth: int = 0, rule: ChecksumRule | None = None) -> BookTracker:
    tracker = BookTracker(COARSE, depth=depth, checksum=rule)
    tracker.load([bids("10.0 1", "9.9 2"), asks("10.1 3", "10.2 4")], reason=Reason.SUBSCRIBED)
    return tracker


def changes_of(record: Encoder | None) -> tuple[Change, ...]:
    event = read(record)
    assert isinstance(event, BookDelta)
    return event.changes


def test_load_gives_a_snapshot() -> None:
    tracker = BookTracker(COARSE, depth=10)
    record = tracker.load(
        [bids("9.9 2.00", "10.0 1"), asks("10.1 0.003")],
        reason=Reason.SUBSCRIBED,
        exchange_ns=5,
        received_ns=6,
    )
    assert read(record) == BookSnapshot(
        exchange="kraken",
        sequence=0,
        exchange_ns=5,
        received_ns=6,
        published_ns=0,
        instrument=COARSE,
        version=1,
        reason=Reason.SUBSCRIBED,
        bids=(Level(1000, 1000), Level(990, 2000)),
        asks=(Level(1010, 3),),
        depth=10,
    )
    assert tracker.ready


def test_update_gives_the_net_difference() -> None:
    tracker = loaded()
    record = tracker.update(
        [asks("10.1 0", "10.15 1"), bids("10.0 5", "9.8 1", "9.9 0")],
        exchange_ns=7,
        received_ns=8,
    )
    assert read(record) == BookDelta(
        exchange="kraken",
        sequence=0,
        exchange_ns=7,
        received_ns=8,
        published_ns=0,
        instrument=COARSE,
        version=2,
        prev_version=1,
        changes=(
            Change(BookSide.BID, 1000, 5000, Action.UPDATE),
            Change(BookSide.BID, 990, 0, Action.REMOVE),
            Change(BookSide.BID, 980, 1000, Action.ADD),
            Change(BookSide.ASK, 1010, 0, Action.REMOVE),
            Change(BookSide.ASK, 1015, 1000, Action.ADD),
        ),
    )
    assert tracker.version == 2


def test_a_price_touched_twice_in_a_message_changes_once() -> None:
    tracker = loaded()
    assert changes_of(tracker.update([bids("10.0 0", "9.7 1", "10.0 4", "9.7 2")])) == (
        Change(BookSide.BID, 1000, 4000, Action.UPDATE),
        Change(BookSide.BID, 970, 2000, Action.ADD),
    )


@pytest.mark.parametrize(
    "part",
    [
        bids(),
        bids("10.0 1"),
        bids("10.0 1.000", "9.9 2"),
        bids("10.0 9", "10.0 1"),
        bids("9.0 1", "9.0 0"),
        asks("99 0", "98 0.000"),
    ],
)
def test_no_delta_where_nothing_changed(part: Part) -> None:
    tracker = loaded()
    digest = tracker.book.digest()
    assert tracker.update([part]) is None
    assert tracker.version == 1
    assert tracker.book.digest() == digest


def test_truncation_is_told_as_remove() -> None:
    tracker = loaded(depth=2)
    assert changes_of(tracker.update([bids("9.95 1"), asks("10.3 1")])) == (
        Change(BookSide.BID, 995, 1000, Action.ADD),
        Change(BookSide.BID, 990, 0, Action.REMOVE),
    )
    assert tracker.book.asks() == ((1010, 3000), (1020, 4000))
    assert changes_of(tracker.update([asks("10.1 0", "10.3 1", "10.4 1")])) == (
        Change(BookSide.ASK, 1010, 0, Action.REMOVE),
        Change(BookSide.ASK, 1030, 1000, Action.ADD),
    )


def test_versions_go_on_across_reloads() -> None:
    tracker = loaded()
    tracker.update([bids("9.0 1")])
    assert tracker.update([bids("9.0 1")]) is None
    tracker.invalidate()
    reloaded = read(tracker.load([bids("5 1")], reason=Reason.RESYNCED))
    assert (reloaded.version, tracker.version) == (3, 3)
    update = read(tracker.update([asks("6 1")]))
    assert isinstance(update, BookDelta)
    assert (update.version, update.prev_version) == (4, 3)


def test_repeat_is_the_current_book_at_its_version() -> None:
    tracker = loaded(depth=5)
    tracker.update([bids("10.0 0")], exchange_ns=7)
    digest = tracker.book.digest()
    repeat = read(tracker.repeat(received_ns=99))
    assert isinstance(repeat, BookSnapshot)
    assert repeat.repeat
    assert (repeat.version, repeat.reason, repeat.depth) == (2, Reason.REPEATED, 5)
    assert (repeat.exchange_ns, repeat.received_ns) == (7, 99)
    assert repeat.bids == (Level(990, 2000),)
    assert tracker.version == 2
    assert tracker.book.digest() == digest


def test_reset_is_the_current_book_at_a_new_version() -> None:
    tracker = loaded()
    tracker.update([bids("10.0 0")], exchange_ns=7)
    reset = read(tracker.reset(reason=Reason.RESYNCED, received_ns=99))
    assert isinstance(reset, BookSnapshot)
    assert not reset.repeat
    assert (reset.version, reset.reason) == (3, Reason.RESYNCED)
    assert (reset.exchange_ns, reset.received_ns) == (7, 99)
    assert reset.bids == (Level(990, 2000),)
    assert read(tracker.update([bids("10.0 1")])).version == 4


def test_rescale_moves_the_book_to_another_instrument() -> None:
    tracker = BookTracker(COARSE)
    tracker.load([bids("10 1", "9 1"), asks("11 1")], reason=Reason.SUBSCRIBED, limit=2)
    with pytest.raises(PrecisionError) as caught:
        tracker.update([bids("10.125 1.2345")])
    assert (caught.value.field, caught.value.needed) == ("price", 3)
    snapshot = read(tracker.rescaled(FINE, received_ns=9))
    assert isinstance(snapshot, BookSnapshot)
    assert (snapshot.version, snapshot.reason, snapshot.instrument) == (2, Reason.RESCALED, FINE)
    assert snapshot.bids == (Level(10000, 10000), Level(9000, 10000))
    assert (snapshot.trusted_bid, snapshot.trusted_ask) == (9000, None)
    assert not snapshot.repeat
    assert changes_of(tracker.update([bids("10.125 1.2345")])) == (
        Change(BookSide.BID, 10125, 12345, Action.ADD),
    )
    with pytest.raises(ValueError, match="rescale"):
        tracker.rescaled(COARSE)
    assert tracker.instrument is FINE


def test_rescale_beyond_int64_changes_nothing() -> None:
    tracker = BookTracker(COARSE)
    tracker.load([bids("10 9000000000000000")], reason=Reason.SUBSCRIBED)
    with pytest.raises(RangeError):
        tracker.rescaled(FINE)
    assert tracker.instrument is COARSE
    assert tracker.version == 1
    assert read(tracker.update([bids("10 1")])).version == 2


def test_precision_error_covers_the_whole_frame() -> None:
    """At most one rescale for the price and one for the size, however the digits are spread."""
    tracker = loaded()
    parts = [bids("9.123 1"), asks("11.1234 1", "11.1 1.12345"), bids("9.12345 1.123456")]
    for field, needed in (("price", 5), ("size", 6)):
        with pytest.raises(PrecisionError) as caught:
            tracker.update(parts)
        assert (caught.value.field, caught.value.needed) == (field, needed)
        changes = {f"{field}_exponent": needed}
        tracker.rescaled(msgspec.structs.replace(tracker.instrument, **changes))
    assert tracker.update(parts) is not None


def test_a_frame_that_cannot_be_read_leaves_the_book() -> None:
    tracker = loaded()
    digest = tracker.book.digest()
    for error, bad in (
        (LevelSyntaxError, b"[["),
        (RangeError, b'[["1","-1"]]'),
        (PrecisionError, b'[["1","0.0001"]]'),
    ):
        parts = [bids("10.0 9"), (PAIRS, BookSide.ASK, bad)]
        with pytest.raises(error):
            tracker.update(parts)
        with pytest.raises(error):
            tracker.load(parts, reason=Reason.RESYNCED)
        assert tracker.book.digest() == digest
        assert tracker.version == 1
    assert read(tracker.update([bids("10.0 9")])).version == 2


def test_crossed_book_is_of_no_use_until_reloaded() -> None:
    tracker = loaded()
    with pytest.raises(CrossedBook, match=r"best bid 10\.10 is not below best ask 10\.10"):
        tracker.update([bids("10.1 1")])
    refuses_all_but_load(tracker)


def test_crossed_or_wrong_snapshot_does_not_become_the_book() -> None:
    tracker = loaded(rule=ChecksumRule(1, 3))
    digest = tracker.book.digest()
    with pytest.raises(CrossedBook):
        tracker.load([bids("11 1"), asks("10.9 1")], reason=Reason.RESYNCED)
    assert tracker.book.digest() == digest
    refuses_all_but_load(tracker)
    with pytest.raises(ChecksumMismatch):
        tracker.load([bids("11 1")], reason=Reason.RESYNCED, checksum=1)
    refuses_all_but_load(tracker)


def test_checksum_is_verified_before_anything_is_published() -> None:
    tracker = loaded(rule=ChecksumRule(1, 3))
    right = zlib.crc32(b"1013000" + b"1024000" + b"1008000" + b"992000")
    assert tracker.update([bids("10.0 8")], checksum=right) is not None
    # Nothing changes, and yet the checksum tells that the book is wrong.
    with pytest.raises(ChecksumMismatch) as caught:
        tracker.update([bids("10.0 8")], checksum=right ^ 1)
    assert (caught.value.expected, caught.value.computed) == (right ^ 1, right)
    refuses_all_but_load(tracker)


def test_checksum_without_a_rule_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no checksum rule"):
        loaded().update([bids("10.0 8")], checksum=1)


def refuses_all_but_load(tracker: BookTracker) -> None:
    version = tracker.version
    refused: list[Callable[[], object]] = [
        lambda: tracker.update([bids("9.0 1")]),
        tracker.repeat,
        lambda: tracker.reset(reason=Reason.RESYNCED),
        lambda: tracker.rescaled(FINE),
    ]
    for call in refused:
        with pytest.raises(BookError, match="BTC-USD has no book"):
            call()
    record = tracker.load([bids("10.0 1"), asks("10.1 1")], reason=Reason.RESYNCED)
    assert read(record).version == version + 1


def test_trust_ends_where_a_snapshot_is_cut_off() -> None:
    tracker = BookTracker(COARSE)
    parts = [bids("10 1", "9 1"), asks("11 1", "12 1", "13 1")]
    snapshot = read(tracker.load(parts, reason=Reason.SUBSCRIBED, limit=3))
    assert isinstance(snapshot, BookSnapshot)
    assert (snapshot.trusted_bid, snapshot.trusted_ask) == (None, 1300)
    snapshot = read(tracker.load(parts, reason=Reason.RESYNCED))
    assert isinstance(snapshot, BookSnapshot)
    assert (snapshot.trusted_bid, snapshot.trusted_ask) == (None, None)


def test_trackers_share_scratch_memory() -> None:
    stage, encoder = LevelStage(), Encoder()
    trackers = [BookTracker(COARSE, stage=stage, encoder=encoder) for _ in range(2)]
    for price, tracker in enumerate(trackers, start=1):
        record = tracker.load([bids(f"{price} 1")], reason=Reason.SUBSCRIBED)
        assert record is encoder
    assert [tracker.book.bids() for tracker in trackers] == [((100, 1000),), ((200, 1000),)]


levels = st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0, 0, 1, 2])), max_size=6)


@given(st.sampled_from([0, 1, 3, 10]), levels, levels, st.lists(st.tuples(levels, levels)))
def test_records_rebuild_the_book(
    depth: int,
    first_bids: list[tuple[int, int]],
    first_asks: list[tuple[int, int]],
    updates: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    """A view that sees the records alone has the tracker's book; so has the twin."""
    tracker, view, twin = BookTracker(COARSE, depth=depth), BookView(), ReferenceBook(depth)

    def staged(
        bid_levels: list[tuple[int, int]], ask_levels: list[tuple[int, int]]
    ) -> tuple[list[Part], list[tuple[int, int, int]]]:
        # Asks lie above all bids, so that no book is crossed.
        parts = [
            bids(*[f"{Decimal(price) / 100} {size}" for price, size in bid_levels]),
            asks(*[f"{Decimal(price + 60) / 100} {size}" for price, size in ask_levels]),
        ]
        message = [(BID, price, size * 1000) for price, size in bid_levels]
        return parts, message + [(ASK, price + 60, size * 1000) for price, size in ask_levels]

    parts, message = staged(first_bids, first_asks)
    twin.load(message)
    view.apply(tracker.load(parts, reason=Reason.SUBSCRIBED))
    for update in updates:
        parts, message = staged(*update)
        changed = twin.apply(message)
        record = tracker.update(parts)
        assert (record is not None) == bool(changed)
        if record is not None:
            assert [tuple(change) for change in changes_of(record)] == twin.changes
            view.apply(record)
        assert view.version == tracker.version
        assert view.book.digest() == tracker.book.digest() == twin.digest()

"""The native book, its change sets and top views against their plain-Python twin."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core.book import Book
from alphapulse._core.changes import ChangeSet
from alphapulse._core.levels import LevelStage
from alphapulse._core.topview import TopView
from alphapulse.errors import RangeError
from alphapulse.fixed import parse_decimal
from tests.records import staged
from tests.reference.book import ASK, BID, ReferenceBook, net_changes

Message = list[tuple[int, int, int]]

INT64_MAX = 2**63 - 1

sides = st.sampled_from([BID, ASK])
sizes = st.sampled_from([0, 0, 1, 2, 3]) | st.integers(0, INT64_MAX)
near_prices = st.integers(1, 25)
far_prices = near_prices | st.integers(1, INT64_MAX) | st.integers(INT64_MAX - 10, INT64_MAX)
messages = st.lists(st.tuples(sides, near_prices, sizes), max_size=40)
far_messages = st.lists(st.tuples(sides, far_prices, sizes), max_size=40)
depths = st.sampled_from([0, 0, 1, 2, 5, 10])


def assert_same(book: Book, twin: ReferenceBook) -> None:
    assert list(book.changes) == twin.changes
    assert len(book.changes) == len(twin.changes)
    assert book.bids() == twin.bids()
    assert book.asks() == twin.asks()
    assert book.bids(3) == twin.bids(3)
    assert (book.bid_count, book.ask_count) == (len(twin.bids()), len(twin.asks()))
    best = (next(iter(twin.bids()), None), next(iter(twin.asks()), None))
    assert book.best() == best
    assert (book.best_bid, book.best_ask) == tuple(level and level[0] for level in best)
    assert book.crossed == twin.crossed
    assert book.digest() == twin.digest()


@given(depths, messages | far_messages, st.lists(messages | far_messages, max_size=12))
def test_native_book_does_as_its_twin(
    depth: int, snapshot: Message, updates: list[Message]
) -> None:
    book, twin = Book(depth), ReferenceBook(depth)
    book.load(staged(snapshot))
    twin.load(snapshot)
    assert_same(book, twin)
    for message in updates:
        assert book.apply(staged(message)) == twin.apply(message)
        assert_same(book, twin)
        for side, price, _ in message:
            assert book.size_at(side, price) == twin.sides[side].get(price, 0)


@given(depths, messages | far_messages, messages | far_messages)
def test_levels_set_one_by_one(depth: int, snapshot: Message, levels: Message) -> None:
    book, twin = Book(depth), ReferenceBook(depth)
    book.load(staged(snapshot))
    twin.load(snapshot)
    for level in levels:
        assert book.set_level(*level) == twin.apply([level])
        assert_same(book, twin)


@given(messages, st.integers(-18, 18), st.integers(-18, 18))
def test_checksum_is_that_of_the_digits(
    message: Message, price_shift: int, size_shift: int
) -> None:
    book, twin = Book(), ReferenceBook()
    book.load(staged(message))
    twin.load(message)
    assert book.kraken_checksum(price_shift, size_shift) == twin.kraken_checksum(
        price_shift, size_shift
    )


def test_checksum_of_the_longest_text() -> None:
    book = Book()
    message = [
        (side, INT64_MAX - place, INT64_MAX - place) for side in (BID, ASK) for place in range(12)
    ]
    book.load(staged(message))
    twin = ReferenceBook()
    twin.load(message)
    assert book.kraken_checksum(18, 18) == twin.kraken_checksum(18, 18)


def test_checksum_example_of_the_venue() -> None:
    """The example of Kraken's page "Book checksum (WebSocket v2)"."""
    asks = (
        "45285.2 0.00100000, 45286.4 1.54571953, 45286.6 1.54571109, 45289.6 1.54560911, "
        "45290.2 0.15890660, 45291.8 1.54553491, 45294.7 0.04454749, 45296.1 0.35380000, "
        "45297.5 0.09945542, 45299.5 0.18772827"
    )
    bids = (
        "45283.5 0.10000000, 45283.4 1.54582015, 45282.1 0.10000000, 45281.0 0.10000000, "
        "45280.3 1.54592586, 45279.0 0.07990000, 45277.6 0.03310103, 45277.5 0.30000000, "
        "45277.3 1.54602737, 45276.6 0.15445238"
    )
    stage = LevelStage()
    for side, text in ((BID, bids), (ASK, asks)):
        for level in text.split(", "):
            price, size = level.split()
            stage.append(side, parse_decimal(price, 1), parse_decimal(size, 8))
    book = Book(10)
    book.load(stage)
    assert book.kraken_checksum() == 3310070434
    # The venue's digits count, not the scale of the instrument.
    book.rescale(2, 3)
    assert book.kraken_checksum(-2, -3) == 3310070434


def test_checksum_of_an_empty_and_a_short_book() -> None:
    book = Book()
    assert book.kraken_checksum() == zlib.crc32(b"")
    book.load(staged([(ASK, 12, 3), (BID, 11, 40)]))
    assert book.kraken_checksum() == zlib.crc32(b"1231140")


@given(st.lists(messages, min_size=1, max_size=8), depths, depths)
def test_top_view_tells_what_enters_and_leaves(
    updates: list[Message], depth: int, view_depth: int
) -> None:
    book, view = Book(depth), TopView(view_depth)
    shown: dict[int, dict[int, int]] = {BID: {}, ASK: {}}
    for message in updates:
        book.apply(staged(message))
        now = {BID: dict(book.bids(view_depth)), ASK: dict(book.asks(view_depth))}
        expected = net_changes(shown, now)
        assert view.advance(book) == len(expected)
        assert list(view.changes) == expected
        assert view.bids() == book.bids(view_depth)
        assert view.asks() == book.asks(view_depth)
        shown = now
    view.load(book)
    assert list(view.changes) == []
    assert view.advance(book) == 0


@given(messages | far_messages, st.integers(0, 18), st.integers(0, 18))
def test_rescale_is_exact_or_changes_nothing(
    message: Message, price_places: int, size_places: int
) -> None:
    book, twin = Book(), ReferenceBook()
    book.load(staged(message))
    twin.load(message)
    try:
        twin.rescale(price_places, size_places)
    except OverflowError:
        with pytest.raises(RangeError):
            book.rescale(price_places, size_places)
    else:
        book.rescale(price_places, size_places)
    assert_same(book, twin)


def test_one_price_touched_twice_gives_one_net_change() -> None:
    book = Book()
    book.load(staged([(BID, 10, 5), (BID, 9, 4)]))
    assert book.apply(staged([(BID, 10, 7), (BID, 10, 6)])) == 1
    assert list(book.changes) == [(BID, 10, 6, 2)]
    assert book.apply(staged([(BID, 10, 0), (BID, 10, 8)])) == 1
    assert list(book.changes) == [(BID, 10, 8, 2)]
    assert book.apply(staged([(ASK, 11, 3), (ASK, 11, 0)])) == 0
    assert book.apply(staged([(BID, 9, 4), (BID, 3, 0)])) == 0


def test_truncation_is_told_as_removal() -> None:
    book = Book(2)
    book.load(staged([(BID, 10, 1), (BID, 9, 1), (BID, 8, 1)]))
    assert book.bids() == ((10, 1), (9, 1))
    assert book.apply(staged([(BID, 11, 1), (BID, 7, 5)])) == 2
    assert list(book.changes) == [(BID, 11, 1, 1), (BID, 9, 0, 3)]


def test_many_levels_in_every_order() -> None:
    count = 5_000
    orders = {
        "best first": range(count, 0, -1),
        "worst first": range(1, count + 1),
        "mixed": sorted(range(1, count + 1), key=lambda price: price * 7919 % 5003),
    }
    digests = set()
    for order in orders.values():
        loaded, grown = Book(), Book()
        loaded.load(staged([(BID, price, price) for price in order]))
        for price in order:
            grown.apply(staged([(BID, price, price)]))
        digests |= {loaded.digest(), grown.digest()}
        assert grown.apply(staged([(BID, price, 0) for price in order])) == count
        assert grown.bid_count == 0
    assert len(digests) == 1


def test_failed_operations_leave_the_book() -> None:
    book = Book()
    book.load(staged([(BID, 10, 1)]))
    for places in (-1, 19):
        with pytest.raises(ValueError, match="rescale"):
            book.rescale(places, 0)
    with pytest.raises(ValueError, match="shifts"):
        book.kraken_checksum(19, 0)
    with pytest.raises(ValueError, match="side"):
        book.size_at(3, 1)
    for level in ((3, 1, 1), (0, 1, 1), (BID, 0, 1), (BID, -1, 1), (BID, 1, -1)):
        with pytest.raises(ValueError, match=r"side|level"):
            book.set_level(*level)
    for depth in (-1, 4_000_001):
        with pytest.raises(ValueError, match="depth"):
            Book(depth)
        with pytest.raises(ValueError, match="depth"):
            TopView(depth)
    assert book.bids() == ((10, 1),)
    assert book.size_at(BID, -5) == 0
    book.clear()
    assert book.best() == (None, None)


def test_change_set_takes_only_a_change_sets_order() -> None:
    changes = ChangeSet()
    given_changes = [(BID, 9, 1, 1), (BID, 8, 0, 3), (ASK, 8, 5, 2), (ASK, 9, 5, 1)]
    changes.assign(given_changes)
    assert list(changes) == given_changes
    for wrong in (
        [(BID, 8, 1, 1), (BID, 9, 1, 1)],
        [(ASK, 9, 1, 1), (ASK, 8, 1, 1)],
        [(ASK, 9, 1, 1), (BID, 8, 1, 1)],
        [(BID, 9, 1, 1), (BID, 9, 1, 1)],
        [(BID, 9, 0, 1)],
        [(BID, 9, 1, 3)],
        [(BID, 0, 1, 1)],
        [(3, 9, 1, 1)],
        [(BID, 9, -1, 2)],
        [(BID, 9, 1, 4)],
    ):
        with pytest.raises(ValueError, match=r"change|action"):
            changes.assign(wrong)
        assert len(changes) == 0

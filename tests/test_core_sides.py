"""Books of many blocks against their plain-Python twin: growing, shrinking, moving, truncated."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapulse._core.book import Book
from alphapulse._core.encoder import Encoder
from alphapulse._core.topview import TopView
from tests.records import staged
from tests.reference import codec
from tests.reference.book import ASK, BID, ReferenceBook, net_changes

Message = list[tuple[int, int, int]]

LEVEL_BYTES = 16
LARGEST_PRICE = 4000

runs = st.tuples(
    st.sampled_from([BID, ASK]),
    st.integers(1, LARGEST_PRICE),
    st.sampled_from([1, 1, 2, 3, 7, -1, -2]),
    st.integers(1, 900),
    st.sampled_from([0, 0, 1, 2]),
)
"""Side, first price, step, number of levels, size or 0: a block's worth of levels and more."""

messages = st.lists(runs, min_size=1, max_size=3)


def levels_of(message: list[tuple[int, int, int, int, int]]) -> Message:
    return [
        (side, first + step * place, size)
        for side, first, step, count, size in message
        for place in range(count)
        if 1 <= first + step * place <= LARGEST_PRICE
    ]


def assert_same(book: Book, twin: ReferenceBook) -> None:
    assert book.bids() == twin.bids()
    assert book.asks() == twin.asks()
    for limit in (1, 10, 300):
        assert book.bids(limit) == twin.bids(limit)
        assert book.asks(limit) == twin.asks(limit)
    assert (book.bid_count, book.ask_count) == (len(twin.bids()), len(twin.asks()))
    assert book.digest() == twin.digest()
    assert book.kraken_checksum() == twin.kraken_checksum()
    assert book.crossed == twin.crossed


@given(st.sampled_from([0, 0, 5, 200, 1000]), messages, st.lists(messages, max_size=8))
@settings(max_examples=60)
def test_messages_of_many_levels(
    depth: int,
    snapshot: list[tuple[int, int, int, int, int]],
    updates: list[list[tuple[int, int, int, int, int]]],
) -> None:
    book, twin = Book(depth), ReferenceBook(depth)
    book.load(staged(levels_of(snapshot)))
    twin.load(levels_of(snapshot))
    assert_same(book, twin)
    for message in updates:
        levels = levels_of(message)
        assert book.apply(staged(levels)) == twin.apply(levels)
        assert list(book.changes) == twin.changes
        assert_same(book, twin)


@given(st.lists(messages, min_size=1, max_size=5), st.integers(0, 600), st.integers(0, 6))
@settings(max_examples=40)
def test_views_records_and_rescaling_of_many_levels(
    updates: list[list[tuple[int, int, int, int, int]]], view_depth: int, places: int
) -> None:
    book, twin, view, encoder = Book(), ReferenceBook(), TopView(view_depth), Encoder()
    shown: dict[int, dict[int, int]] = {BID: {}, ASK: {}}
    for message in updates:
        levels = levels_of(message)
        book.apply(staged(levels))
        twin.apply(levels)
        now = {BID: dict(twin.bids(view_depth)), ASK: dict(twin.asks(view_depth))}
        expected = net_changes(shown, now)
        assert view.advance(book) == len(expected)
        assert list(view.changes) == expected
        assert (view.bids(), view.asks()) == (book.bids(view_depth), book.asks(view_depth))
        shown = now
    book.rescale(places, places)
    twin.rescale(places, places)
    assert_same(book, twin)
    for message in updates:
        levels = [(s, price * 10**places, size) for s, price, size in levels_of(message)]
        assert book.apply(staged(levels)) == twin.apply(levels)
    assert_same(book, twin)
    _, body = codec.decode(bytes(encoder.snapshot(book, 1, 2, 3, limit=view_depth)))
    assert body is not None
    assert body[5:] == (twin.bids(view_depth), twin.asks(view_depth))


@pytest.mark.parametrize("drift", [-1, 0, 1])
@pytest.mark.parametrize("width", [40, 2500])
def test_single_changes_in_a_moving_market(drift: int, width: int) -> None:
    seed = Random().randrange(2**32)
    print(f"seed {seed}")
    random = Random(seed)
    book = Book()
    expected: dict[int, dict[int, int]] = {BID: {}, ASK: {}}
    middle = 1_000_000
    for step in range(30_000):
        middle += drift
        side = random.choice((BID, ASK))
        price = middle + random.randrange(-width, width)
        # Now it grows, now it shrinks.
        size = random.randrange(1, 9) if random.random() < (0.8, 0.3)[step // 5000 % 2] else 0
        before = expected[side].pop(price, 0)
        if size:
            expected[side][price] = size
        assert book.set_level(side, price, size) == (before != size)
        assert book.size_at(side, price) == size
        if step % 1000 == 999:
            assert book.bids() == tuple(sorted(expected[BID].items(), reverse=True))
            assert book.asks() == tuple(sorted(expected[ASK].items()))
    for side, prices in expected.items():
        for price in sorted(prices, key=lambda _: random.random()):
            assert book.set_level(side, price, 0) == 1
    assert (book.bids(), book.asks()) == ((), ())


@pytest.mark.parametrize("depth", [300, 1000])
def test_truncation_of_single_changes(depth: int) -> None:
    seed = Random().randrange(2**32)
    print(f"seed {seed}")
    random = Random(seed)
    book, twin = Book(depth), ReferenceBook(depth)
    for _ in range(2500):
        level = (BID, random.randrange(1, 3000), random.choice((0, 1, 2, 3)))
        assert book.set_level(*level) == twin.apply([level])
        assert list(book.changes) == twin.changes
    assert_same(book, twin)


@pytest.mark.parametrize("order", ["best first", "worst first", "mixed"])
@pytest.mark.parametrize("side", [BID, ASK])
def test_memory_follows_the_number_of_levels(order: str, side: int) -> None:
    count = 20_000
    prices = list(range(1, count + 1))
    if order == "mixed":
        Random(3).shuffle(prices)
    elif (order == "best first") == (side == BID):
        prices.reverse()
    book = Book()
    for price in prices:
        book.set_level(side, price, 1)
    assert book.nbytes < 1.6 * LEVEL_BYTES * count
    loaded = Book()
    loaded.load(staged([(side, price, 1) for price in prices]))
    assert loaded.nbytes < 1.5 * LEVEL_BYTES * count
    for shrinking in (book, loaded):
        for price in prices[: count - count // 20]:
            shrinking.set_level(side, price, 0)
        assert shrinking.nbytes < LEVEL_BYTES * count / 5
        shrinking.clear()
        assert shrinking.nbytes <= LEVEL_BYTES * 256
        assert shrinking.set_level(side, 7, 1) == 1
        assert shrinking.size_at(side, 7) == 1


def test_a_small_book_takes_little_memory() -> None:
    book = Book()
    assert book.nbytes == 0
    book.load(staged([(side, price, 1) for side in (BID, ASK) for price in range(1, 11)]))
    assert book.nbytes < 2 * 3 * LEVEL_BYTES * 10

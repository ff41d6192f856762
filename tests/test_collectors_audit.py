"""The comparison with REST finds what is wrong, and nothing else, however fast the market."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs

from alphapulse.collectors.audit import Levels, common, contradictions, still
from alphapulse.delta import Book, LevelStage
from alphapulse.model import BookSide, BookState, Reason
from alphapulse.simulators import CoinbaseSimulator, Market
from alphapulse.simulators.web import json_response
from tests.collecting import collecting

BOOK = Levels({100: 5, 99: 6, 98: 7}, {101: 1, 102: 2, 103: 3})


def test_equal_books_contradict_nothing() -> None:
    assert contradictions(BOOK, BOOK, BOOK) == {}


def test_a_wrong_size_a_phantom_and_a_missing_level_are_found() -> None:
    rest = Levels({100: 5, 99: 60, 97: 1}, {100: 9, 102: 2, 103: 3})
    assert contradictions(BOOK, BOOK, rest) == {
        (BookSide.BID, 99): 6,
        (BookSide.BID, 98): 7,
        (BookSide.BID, 97): 0,
        (BookSide.ASK, 101): 1,
        (BookSide.ASK, 100): 0,
    }


def test_a_stale_best_price_is_found_though_the_answer_does_not_reach_it() -> None:
    rest = Levels({99: 6, 98: 7}, {102: 2, 103: 3})
    assert contradictions(BOOK, BOOK, rest) == {(BookSide.BID, 100): 5, (BookSide.ASK, 101): 1}


def test_levels_beyond_the_answer_are_not_compared() -> None:
    assert contradictions(BOOK, BOOK, Levels({100: 5}, {101: 1, 102: 2})) == {}
    assert contradictions(BOOK, BOOK, Levels({}, {})) == {}


def test_levels_that_changed_meanwhile_are_not_compared() -> None:
    after = Levels({100: 5, 99: 8, 98: 7}, {101: 1, 103: 3})
    assert contradictions(BOOK, after, Levels({100: 5, 99: 77, 98: 7}, {101: 1, 103: 3})) == {}


def test_a_suspect_that_changes_with_us_is_none() -> None:
    book, stage = Book(), LevelStage()
    stage.append(1, 99, 6)
    stage.append(2, 101, 1)
    book.load(stage)
    suspects = {(BookSide.BID, 99): 6, (BookSide.BID, 98): 7, (BookSide.ASK, 103): 0}
    assert still(suspects, book) == {(BookSide.BID, 99): 6, (BookSide.ASK, 103): 0}


class Venue:
    """A fast market: a venue's book, and ours, which follows it some updates later."""

    def __init__(self, rng: random.Random, late: int) -> None:
        self.rng = rng
        self.late = late
        self.updates: list[tuple[int, int, int]] = []
        self.book: dict[tuple[int, int], int] = {}
        self.ours: dict[tuple[int, int], int] = {}
        self.lost: set[int] = set()
        self.applied = 0
        for _ in range(200):
            self.move()
        self.catch_up()

    def move(self) -> None:
        side = self.rng.choice((1, 2))
        price = self.rng.randint(90, 99) if side == 1 else self.rng.randint(101, 110)
        size = self.rng.choice((0, 1, 2))
        self.updates.append((side, price, size))
        _set(self.book, side, price, size)

    def catch_up(self, late: int = 0) -> None:
        while self.applied < len(self.updates) - late:
            if self.applied not in self.lost:
                _set(self.ours, *self.updates[self.applied])
            self.applied += 1

    def pass_time(self, moves: int) -> None:
        for _ in range(moves):
            self.move()
            self.catch_up(self.late)


def _set(book: dict[tuple[int, int], int], side: int, price: int, size: int) -> None:
    if size:
        book[side, price] = size
    else:
        book.pop((side, price), None)


def levels(book: dict[tuple[int, int], int]) -> Levels:
    bids, asks = (
        {price: size for (at, price), size in book.items() if at == side} for side in (1, 2)
    )
    return Levels(bids, asks)


def native(book: dict[tuple[int, int], int]) -> Book:
    stage, made = LevelStage(), Book()
    for (side, price), size in book.items():
        stage.append(side, price, size)
    made.load(stage)
    return made


def audit(venue: Venue) -> dict[tuple[BookSide, int], int]:
    """What two comparisons find, the market moving on throughout."""

    def compare() -> dict[tuple[BookSide, int], int]:
        before = levels(venue.ours)
        venue.pass_time(venue.rng.randint(0, 3))
        rest = levels(venue.book)
        venue.pass_time(venue.rng.randint(0, 3))
        return contradictions(before, levels(venue.ours), rest)

    first = compare()
    for _ in range(25):
        venue.pass_time(40)
        first = still(first, native(venue.ours))
    return common(first, compare())


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), late=st.integers(0, 5))
def test_a_fast_market_that_comes_late_raises_no_alarm(seed: int, late: int) -> None:
    assert audit(Venue(random.Random(seed), late)) == {}


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), late=st.integers(0, 5))
def test_a_level_that_stays_wrong_is_found_in_a_fast_market(seed: int, late: int) -> None:
    venue = Venue(random.Random(seed), late)
    # The removal of a level away from the market's commotion is lost.
    venue.ours[1, 89] = 4
    if not any(side == 1 and price < 89 for side, price in venue.book):
        venue.book[1, 80] = venue.ours[1, 80] = 1
    assert (BookSide.BID, 89) in audit(venue)


async def test_a_book_that_missed_an_update_is_found_and_mended(ring_prefix: str) -> None:
    symbols = ("BTC-USD", "ETH-USD")
    # A slow market, in which no later update mends the level by chance.
    simulator = CoinbaseSimulator(Market(symbols, seed=5, book_rate=40, trade_rate=1, levels=300))
    async with collecting(simulator, ring_prefix, rest_check_seconds=0.5) as collector:
        await collector.until_live(*symbols)
        simulator.faults.drop_update("BTC-USD", 30)
        wrong = (BookState.INVALID, Reason.MISMATCH)
        await collector.until(lambda: wrong in collector.follower.history("BTC-USD"))
        await collector.until(lambda: not simulator.faults.pending())
        await collector.until_equal("ETH-USD")
        assert wrong not in collector.follower.history("ETH-USD")


class NestedBooks(CoinbaseSimulator):
    """A venue whose REST books are brackets, a hundred thousand deep."""

    async def _rest_book(self, request: Request) -> Response:
        return json_response(b'{"bids":' + b"[" * 100_000)


async def test_a_rest_book_nested_too_deep_is_told_and_ends_nothing(ring_prefix: str) -> None:
    simulator = NestedBooks(Market(("BTC-USD",), seed=5, book_rate=40, levels=30))
    settings = {"symbols": ("BTC-USD",), "rest_check_seconds": 0.05}
    with capture_logs() as logs:
        async with collecting(simulator, ring_prefix, **settings) as collector:
            await collector.until_live("BTC-USD")
            await collector.until(
                lambda: [line for line in logs if line["event"] == "REST book can't be used"]
            )
            await collector.until_equal("BTC-USD")

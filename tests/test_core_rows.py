"""Levels given as rows of integers, beside the same levels in a stage."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core.book import Book
from alphapulse._core.levels import LevelStage
from tests.reference.book import ASK, BID, ReferenceBook

LEVEL_ROW = np.dtype([("side", np.int64), ("price", np.int64), ("size", np.int64)])

Message = list[tuple[int, int, int]]

levels = st.tuples(
    st.sampled_from([BID, ASK]), st.integers(1, 50) | st.integers(1, 2**63 - 1),
    st.sampled_from([0, 1, 2, 2**63 - 1]),
)  # fmt: skip


def matrix(message: Message) -> Any:
    return np.array(message, np.int64).reshape(-1, 3)


def structures(message: Message) -> Any:
    return np.array(message, LEVEL_ROW)


def memory(message: Message) -> Any:
    flat = memoryview(array("q", [number for level in message for number in level]))
    return flat.cast("B").cast("q", (len(message), 3)) if message else matrix(message)


@pytest.mark.parametrize("given_as", [matrix, structures, memory])
@given(st.lists(levels, max_size=60), st.lists(levels, max_size=60))
def test_rows_do_as_a_stage(given_as: Any, snapshot: Message, update: Message) -> None:
    book, twin = Book(20), ReferenceBook(20)
    book.load(given_as(snapshot))
    twin.load(snapshot)
    assert (book.bids(), book.asks()) == (twin.bids(), twin.asks())
    assert book.apply(given_as(update)) == twin.apply(update)
    assert list(book.changes) == twin.changes
    assert (book.bids(), book.asks()) == (twin.bids(), twin.asks())


def test_many_rows() -> None:
    rows = np.ones((100_000, 3), np.int64)
    rows[:, 1] = np.random.default_rng(5).permutation(100_000) + 1
    book, staged = Book(), Book()
    stage = LevelStage()
    for level in rows.tolist():
        stage.append(*level)
    staged.load(stage)
    book.load(rows)
    assert book.digest() == staged.digest()
    rows[:, 2] = 0
    assert book.apply(rows[:90_000]) == 90_000
    assert book.bid_count == 10_000


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((2, 3), np.int32),
        np.ones((2, 3), np.uint64),
        np.ones((2, 3)),
        np.ones((2, 4), np.int64),
        np.ones(3, np.int64),
        np.ones((1, 2, 3), np.int64),
        np.ones((2, 3), ">i8"),
        np.zeros(2, [("price", np.int64), ("side", np.int64), ("size", np.int64)]),
        b"123456781234567812345678",
    ],
)
def test_other_rows_are_refused(rows: Any) -> None:
    book = Book()
    with pytest.raises(ValueError, match="rows of int64 side, price and size"):
        book.apply(rows)


@pytest.mark.parametrize(
    "bad", [(0, 1, 1), (3, 1, 1), (1, 0, 1), (1, -1, 1), (2, 1, -1), (2**32 + 1, 1, 1)]
)
def test_a_bad_row_changes_nothing(bad: tuple[int, int, int]) -> None:
    book = Book()
    book.load(matrix([(BID, 10, 5)]))
    with pytest.raises(ValueError, match="row 1 is no level"):
        book.apply(matrix([(BID, 10, 6), bad]))
    with pytest.raises(ValueError, match="row 1 is no level"):
        book.load(matrix([(BID, 10, 6), bad]))
    assert book.bids() == ((10, 5),)
    assert book.apply(matrix([(BID, 10, 6)])) == 1


def test_what_is_no_buffer_is_refused() -> None:
    book = Book()
    wrong: Any
    for wrong in (None, [(1, 2, 3)], 7):
        with pytest.raises(TypeError):
            book.apply(wrong)
    with pytest.raises((ValueError, BufferError)):
        book.apply(np.ones((4, 6), np.int64)[:, ::2])

"""Kraken's checksum, kept from message to message, against its plain-Python twin."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core.book import Book
from alphapulse._core.checksum import crc32
from tests.records import staged
from tests.reference.book import ASK, BID, ReferenceBook

Message = list[tuple[int, int, int]]

levels = st.tuples(
    st.sampled_from([BID, ASK]), st.integers(1, 25), st.sampled_from([0, 0, 1, 20, 10**18])
)
messages = st.lists(levels, max_size=6)


@given(st.lists(messages, min_size=1, max_size=20), st.integers(0, 3))
def test_checksum_follows_the_book(updates: list[Message], later_shift: int) -> None:
    book, twin = Book(), ReferenceBook()
    for number, message in enumerate(updates):
        book.apply(staged(message))
        twin.apply(message)
        shift = later_shift if number > len(updates) // 2 else 0
        assert book.kraken_checksum(shift, shift) == twin.kraken_checksum(shift, shift)


@given(st.binary(max_size=200))
def test_crc_is_that_of_zlib_either_way(text: bytes) -> None:
    assert crc32(text) == zlib.crc32(text)
    assert crc32(text, by_tables=True) == zlib.crc32(text)
